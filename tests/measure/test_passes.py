"""Conditions, energy and memory: what is made of a device of numbers, and in which order it is asked."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from fake_nvml import FakeDriver
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import meters
from bench.measure import meters as passes
from bench.measure.meters import (
    WINDOW_S,
    CpuLoad,
    DevicePeaks,
    Found,
    measure_energy,
    measure_memory,
    observe,
    slowdowns,
)
from bench.measure.nvml import IDLE, Gpu
from bench.records import Conditions, DeviceState, Slowdown


@pytest.fixture(autouse=True)
def quiet_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "cpu_load", lambda: CpuLoad(3.0, 0.5))


def gpu_of(driver: FakeDriver) -> Gpu:
    return Gpu(driver.module(), "handle")


def process(pid: int, used: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


# --- conditions ----------------------------------------------------------------------------


def test_without_a_driver_the_conditions_are_the_cpus() -> None:
    result, conditions = observe(None, lambda: "drawn")
    assert result == "drawn"
    assert conditions == Conditions(cpu_percent=3.0, cpu_load=0.5)


def test_conditions_are_read_before_during_and_after_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "WATCH_S", 0.001)
    driver = FakeDriver(processes=[process(os.getpid(), 1)], percent=7, reasons=IDLE, celsius=40)

    def work() -> None:
        driver.percent, driver.celsius, driver.megahertz = 100, 81, {1: 1200, 2: 2619}
        driver.processes.append(process(77, 1))
        time.sleep(0.03)
        driver.reasons = 0x20 | 0x4
        time.sleep(0.03)

    _, conditions = observe(gpu_of(driver), work)
    assert conditions == Conditions(
        cpu_percent=3.0,
        cpu_load=0.5,
        device_percent=7,
        other_processes=1,
        before=DeviceState(temperature_c=40, sm_clock_mhz=1980, memory_clock_mhz=2619),
        after=DeviceState(temperature_c=81, sm_clock_mhz=1200, memory_clock_mhz=2619),
        slowdowns=(
            Slowdown(reason="power limit", share=1.0),
            Slowdown(reason="heat (software slowdown)", share=1.0),
        ),
    )


def test_a_card_that_tells_nothing_leaves_gaps_and_no_error() -> None:
    names = [name for name in vars(FakeDriver().module()) if name.startswith("nvmlDevice")]
    driver = FakeDriver(errors=dict.fromkeys(names, "Not Supported"))
    _, found = observe(gpu_of(driver), lambda: None)
    assert (found.device_percent, found.other_processes, found.slowdowns) == (None, None, ())


def test_a_slowdowns_share_is_of_the_readings_at_work() -> None:
    found = slowdowns([IDLE, IDLE, 0x4, 0x4 | 0x40, 0, 0])
    assert found == (
        Slowdown(reason="power limit", share=0.5),
        Slowdown(reason="heat (hardware slowdown)", share=0.25),
    )
    assert slowdowns([]) == slowdowns([IDLE]) == ()


@given(st.lists(st.integers(min_value=0, max_value=0x1FF)))
def test_shares_lie_in_0_to_1_and_only_what_was_seen_is_named(readings: list[int]) -> None:
    found = slowdowns(readings)
    assert all(0 < one.share <= 1 for one in found)
    seen = 0
    for bits in readings:
        seen |= 0 if bits & IDLE else bits
    assert len(found) == seen.bit_count()


# --- energy --------------------------------------------------------------------------------


@pytest.mark.parametrize(("image_s", "images"), [(0.3, 17), (2.5, 2), (WINDOW_S, 1), (60.0, 1)])
def test_energy_is_the_counters_joules_over_whole_images_of_long_windows(image_s: float, images: int) -> None:
    driver = FakeDriver()
    drawn: list[int] = []

    def draw(number: int) -> None:
        drawn.append(number)
        driver.millijoules += 700_000 if number < images else 900_000

    found = measure_energy(gpu_of(driver), draw, image_s)
    assert found == Found((("energy_per_image", (pytest.approx(700.0), pytest.approx(900.0))),))
    assert drawn == list(range(2 * images))
    assert images * image_s >= WINDOW_S


def test_a_card_without_a_counter_has_no_energy_and_a_note() -> None:
    driver = FakeDriver(errors={"nvmlDeviceGetTotalEnergyConsumption": "Not Supported"})
    found = measure_energy(gpu_of(driver), lambda number: None, 9.0)
    assert found == Found((), ("energy_per_image was not measured: NVML does not tell: Not Supported.",))


def test_a_counter_that_stands_still_is_no_energy_of_0() -> None:
    found = measure_energy(gpu_of(FakeDriver()), lambda number: None, 9.0)
    assert found == Found((), ("energy_per_image was not measured: the card's counter stood still.",))


# --- memory --------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A torch device of numbers; gives the order in which its meters were used."""
    order: list[str] = []
    answers = {"reset_device_peaks": None, "device_peaks": DevicePeaks(700, 1100), "peak_rss_bytes": 2000}
    for name, value in answers.items():
        monkeypatch.setattr(meters, name, lambda *_, name=name, value=value: (order.append(name), value)[1])
    return order


def test_torchs_peaks_are_of_one_image_between_reset_and_reading(calls: list[str]) -> None:
    found = measure_memory("cuda:0", None, lambda: calls.append("draw"))
    assert calls[:3] == ["reset_device_peaks", "draw", "device_peaks"]
    assert dict(found.values) == {"peak_allocated": (700,), "peak_reserved": (1100,), "peak_rss": (2000,)}
    assert found.notes == ()


def test_the_processs_peak_is_the_largest_of_the_drivers_readings(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "POLL_S", 0.001)
    driver = FakeDriver(processes=[process(os.getpid(), 1000)])

    def draw() -> None:
        driver.processes = [process(os.getpid(), 1900)]
        time.sleep(0.05)
        driver.processes = [process(os.getpid(), 1300)]

    assert dict(measure_memory("cuda:0", gpu_of(driver), draw).values)["peak_process"] == (1900,)


def test_a_peak_that_the_driver_hides_is_left_out_and_said(calls: list[str]) -> None:
    found = measure_memory("cuda:0", gpu_of(FakeDriver()), lambda: None)
    assert "peak_process" not in dict(found.values)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("peak_process was not measured: the driver does not list")


def test_on_mps_the_peaks_are_the_largest_readings(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "POLL_S", 0.001)
    now = [DevicePeaks(1, 10)]
    monkeypatch.setattr(meters, "mps_bytes", lambda: now[0])

    def draw() -> None:
        for peaks in (DevicePeaks(5, 20), DevicePeaks(3, 30)):
            now[0] = peaks
            time.sleep(0.05)

    found = measure_memory("mps", None, draw)
    assert dict(found.values) == {"peak_allocated": (5,), "peak_reserved": (30,), "peak_rss": (2000,)}


def test_a_cpu_draws_nothing_for_memory(calls: list[str]) -> None:
    found = measure_memory("cpu", None, lambda: pytest.fail("an image was drawn"))
    assert found == Found((("peak_rss", (2000,)),))
