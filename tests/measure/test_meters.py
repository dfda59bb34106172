"""Meters of memory, load, energy and conditions: against processes and devices whose numbers are known."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from fake_nvml import FakeDriver
from hypothesis import given
from hypothesis import strategies as st

from bench.compare.timing import BUSY_PERCENT
from bench.measure import meters
from bench.measure.meters import WINDOW_S, arithmetic_note, measure_energy, measure_memory, observe, slowdowns
from bench.measure.nvml import IDLE, Gpu
from bench.records import Conditions, DeviceState, Settings, Slowdown

MIB = 2**20


def _peak_in_child(code: str) -> int:
    root = str(Path(meters.__file__).resolve().parents[2])
    start = f"import sys; sys.path.insert(0, {root!r})\nfrom bench.measure.meters import peak_rss_bytes"
    program = f"{start}\n{code}\nprint(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    small = _peak_in_child("")
    big = _peak_in_child(f"block = b'x' * {200 * MIB}; del block")
    assert 190 * MIB < big - small < 230 * MIB


def test_the_peak_of_a_child_is_not_its_parents() -> None:
    block = b"x" * (300 * MIB)
    assert meters.peak_rss_bytes() > len(block)
    del block
    assert _peak_in_child("") < 200 * MIB


def test_elsewhere_the_peak_is_what_getrusage_says_in_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "PROC_STATUS", meters.PROC_STATUS / "missing")
    usage = SimpleNamespace(ru_maxrss=3000)
    monkeypatch.setattr(meters.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(meters.sys, "platform", "darwin")
    assert meters.peak_rss_bytes() == 3000
    monkeypatch.setattr(meters.sys, "platform", "freebsd14")
    assert meters.peak_rss_bytes() == 3000 * 1024


def test_a_spinning_process_is_seen_as_load() -> None:
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        deadline = time.monotonic() + 10
        while meters.cpu_load()[0] <= BUSY_PERCENT:
            assert time.monotonic() < deadline, "a machine that is kept busy was not called busy"
    finally:
        for process in spin:
            process.kill()
            process.wait()


def test_polling_keeps_a_peak_that_is_gone_when_the_work_is_done() -> None:
    level = [1]
    with meters.polled(lambda: level[0], 0.001) as samples:
        level[0] = 7
        deadline = time.monotonic() + 10
        while 7 not in samples:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        level[0] = 2
    assert (max(samples), samples[-1]) == (7, 2), "and reads once more at the end"


def test_polling_reads_once_even_of_work_that_takes_no_time() -> None:
    with meters.polled(lambda: 3, 60.0) as samples:
        pass
    assert samples == [3]


def test_polling_ends_with_the_work_whatever_ends_it() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), meters.polled(lambda: 3, 60.0):
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_what_a_meter_raises_is_not_swallowed() -> None:
    def broken() -> int:
        raise ArithmeticError

    with pytest.raises(ArithmeticError), meters.polled(broken, 0.001):
        time.sleep(0.05)


def test_mps_memory_is_what_tensors_hold_and_what_metal_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    mps = SimpleNamespace(current_allocated_memory=lambda: 5, driver_allocated_memory=lambda: 9)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(mps=mps))
    assert meters.mps_bytes() == (5, 9)


def test_device_peaks_are_read_after_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cuda = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    for name, value in {
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 7,
        "max_memory_reserved": 11,
    }.items():
        setattr(cuda, name, lambda device="", name=name, value=value: (calls.append(name), value)[1])
    meters.reset_device_peaks("cuda:0")
    assert calls == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    calls.clear()
    assert meters.device_peaks("cuda:0") == (7, 11)
    assert calls[0] == "synchronize"


@pytest.fixture
def quiet_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "cpu_load", lambda: (3.0, 0.5))


def gpu_of(driver: FakeDriver) -> Gpu:
    return Gpu(driver.module(), "handle")


def process(pid: int, used: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


# --- conditions ----------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet_cpu")
def test_without_a_driver_the_conditions_are_the_cpus() -> None:
    result, conditions = observe(None, lambda: "drawn")
    assert result == "drawn"
    assert conditions == Conditions(cpu_percent=3.0, cpu_load=0.5)


@pytest.mark.usefixtures("quiet_cpu")
def test_conditions_are_read_before_during_and_after_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "WATCH_S", 0.001)
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


@pytest.mark.usefixtures("quiet_cpu")
def test_a_card_that_answers_nothing_leaves_gaps_and_no_error() -> None:
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
    assert found == ({"energy_per_image": (pytest.approx(700.0), pytest.approx(900.0))}, ())
    assert drawn == list(range(2 * images))
    assert images * image_s >= WINDOW_S


def test_a_card_without_a_counter_has_no_energy_and_a_note() -> None:
    driver = FakeDriver(errors={"nvmlDeviceGetTotalEnergyConsumption": "Not Supported"})
    found = measure_energy(gpu_of(driver), lambda number: None, 9.0)
    assert found == ({}, ("energy_per_image was not measured: NVML reports: Not Supported.",))


def test_a_counter_that_stands_still_is_no_energy_of_0() -> None:
    found = measure_energy(gpu_of(FakeDriver()), lambda number: None, 9.0)
    assert found == ({}, ("energy_per_image was not measured: the card's counter stood still.",))


# --- memory --------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A torch device of numbers; gives the order in which its meters were used."""
    order: list[str] = []
    answers = {"reset_device_peaks": None, "device_peaks": (700, 1100), "peak_rss_bytes": 2000}
    for name, value in answers.items():
        monkeypatch.setattr(meters, name, lambda *_, name=name, value=value: (order.append(name), value)[1])
    return order


def test_torchs_peaks_are_of_one_image_between_reset_and_reading(calls: list[str]) -> None:
    values, notes = measure_memory("cuda:0", None, lambda: calls.append("draw"))
    assert calls[:3] == ["reset_device_peaks", "draw", "device_peaks"]
    assert values == {"peak_allocated": (700,), "peak_reserved": (1100,), "peak_rss": (2000,)}
    assert notes == ()


def test_the_processs_peak_is_the_largest_of_the_drivers_readings(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "POLL_S", 0.001)
    driver = FakeDriver(processes=[process(os.getpid(), 1000)])

    def draw() -> None:
        driver.processes = [process(os.getpid(), 1900)]
        time.sleep(0.05)
        driver.processes = [process(os.getpid(), 1300)]

    assert measure_memory("cuda:0", gpu_of(driver), draw)[0]["peak_process"] == (1900,)


def test_a_peak_that_the_driver_hides_is_left_out_and_said(calls: list[str]) -> None:
    values, notes = measure_memory("cuda:0", gpu_of(FakeDriver()), lambda: None)
    assert "peak_process" not in values
    assert len(notes) == 1
    assert notes[0].startswith("peak_process was not measured: the driver does not list")


def test_on_mps_the_peaks_are_the_largest_readings(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "POLL_S", 0.001)
    now = [(1, 10)]
    monkeypatch.setattr(meters, "mps_bytes", lambda: now[0])

    def draw() -> None:
        for peaks in ((5, 20), (3, 30)):
            now[0] = peaks
            time.sleep(0.05)

    values, _ = measure_memory("mps", None, draw)
    assert values == {"peak_allocated": (5,), "peak_reserved": (30,), "peak_rss": (2000,)}


def test_a_cpu_draws_nothing_for_memory(calls: list[str]) -> None:
    found = measure_memory("cpu", None, lambda: pytest.fail("an image was drawn"))
    assert found == ({"peak_rss": (2000,)}, ())


# --- arithmetic ----------------------------------------------------------------------------

SETTINGS = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim", dtype="bfloat16")


class Unet(torch.nn.Sequential):
    """Two blocks, and attention processors as diffusers' models name them."""

    attn_processors: ClassVar = {"a": SimpleNamespace(), "b": SimpleNamespace()}


def test_what_was_compiled_is_counted_not_believed() -> None:
    unet = Unet(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    pipe = SimpleNamespace(unet=unet)
    assert arithmetic_note(pipe, SETTINGS, "cpu") == (
        "Arithmetic of the timing processes: bfloat16; attention by SimpleNamespace; not compiled."
    )
    unet[0].compile()
    assert arithmetic_note(pipe, SETTINGS, "cpu").endswith("1 compiled block.")
    unet[1].compile()
    assert arithmetic_note(pipe, SETTINGS, "cpu").endswith("2 compiled blocks.")
    unet.compile()
    assert arithmetic_note(pipe, SETTINGS, "cpu").endswith("compiled whole.")


def test_on_cuda_it_tells_the_switches_that_choose_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, allowed in {"flash": True, "mem_efficient": True, "cudnn": False, "math": True}.items():
        monkeypatch.setattr(torch.backends.cuda, f"{name}_sdp_enabled", lambda allowed=allowed: allowed)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    cudnn = SimpleNamespace(version=lambda: 91002, benchmark=False, allow_tf32=True)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    note = arithmetic_note(SimpleNamespace(unet=Unet()), SETTINGS, "cuda:0")
    for words in (
        "attention kernels allowed: flash, memory-efficient, plain;",
        "CUDA 12.8;",
        "cuDNN 91002 (autotuning off);",
        "TensorFloat-32 on in convolutions, off in products.",
    ):
        assert words in note
