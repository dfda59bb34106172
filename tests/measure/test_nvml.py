"""What the driver tells, from a driver made of numbers whose functions are named and counted as NVML's."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from fake_nvml import FakeDriver, install
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import nvml
from bench.measure.nvml import Gpu, Reading
from bench.records import DeviceState

MIB = 2**20


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def gpu_of(driver: FakeDriver) -> Gpu:
    return Gpu(driver.module(), "handle")


# --- finding it ----------------------------------------------------------------------------


def test_the_device_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeDriver(), monkeypatch)
    gpu, reason = nvml.find_gpu("cuda:0", 1)
    assert (gpu and gpu.handle, gpu and gpu.parents, reason) == ("handle", 1, "")


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_a_driver_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(FakeDriver(errors={name: "Driver Not Loaded"}), monkeypatch)
    assert nvml.find_gpu("cuda:0") == (None, "NVML reports: Driver Not Loaded")


def test_without_the_extra_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.importlib.util, "find_spec", lambda name: None)
    gpu, reason = nvml.find_gpu("cuda:0")
    assert gpu is None
    assert reason.startswith("nvidia-ml-py is not installed")


# --- processes -----------------------------------------------------------------------------


def test_process_memory_is_the_drivers_figure_for_this_process() -> None:
    driver = FakeDriver(processes=[process(os.getpid() + 1, 1), process(os.getpid(), 5 * MIB)])
    assert nvml.process_bytes(gpu_of(driver)) == Reading(5 * MIB)
    assert nvml.other_processes(gpu_of(driver)) == Reading(1)


def test_in_a_container_the_only_process_is_this_one() -> None:
    driver = FakeDriver(processes=[process(os.getpid() + 1, 5 * MIB)])
    assert nvml.process_bytes(gpu_of(driver)) == Reading(5 * MIB)
    assert nvml.other_processes(gpu_of(driver)) == Reading(0)


@pytest.mark.parametrize(
    ("processes", "others"),
    [
        ([], None),
        ([process(os.getpid(), None)], 0),
        ([process(os.getpid() + 1, 1), process(os.getpid() + 2, 2)], 1),
    ],
)
def test_process_memory_that_the_driver_hides_is_none_with_a_reason(
    processes: list[SimpleNamespace], others: int | None
) -> None:
    gpu = gpu_of(FakeDriver(processes=processes))
    reading = nvml.process_bytes(gpu)
    assert reading.value is None
    assert "does not list this process" in reading.reason
    assert nvml.other_processes(gpu).value == others


def test_a_parent_that_rendered_before_is_not_another_process() -> None:
    driver = FakeDriver(processes=[process(os.getppid(), 500 * MIB), process(os.getpid(), 5 * MIB)])
    gpu = gpu_of(driver)._replace(parents=1)
    assert nvml.other_processes(gpu) == Reading(0)
    assert nvml.process_bytes(gpu) == Reading(5 * MIB), "known by its number, whatever the others hold"
    driver.processes.append(process(77, 9 * MIB))
    assert nvml.other_processes(gpu) == Reading(1)
    del driver.processes[1:]
    assert nvml.other_processes(gpu) == Reading(0), "no less than none, where the driver lists one of the two"


def test_in_a_container_this_process_is_the_larger_of_the_two_of_this_program() -> None:
    one, two = process(os.getpid() + 1, 500 * MIB), process(os.getpid() + 2, 900 * MIB)
    driver = FakeDriver(processes=[two, one])
    gpu = gpu_of(driver)._replace(parents=1)
    assert nvml.process_bytes(gpu) == Reading(900 * MIB)
    assert nvml.other_processes(gpu) == Reading(0)
    driver.processes.append(process(os.getpid() + 3, 1))
    assert nvml.process_bytes(gpu).value is None, "one of three is foreign, and which is not known"
    driver.processes = [one, process(os.getpid() + 2, None)]
    assert nvml.process_bytes(gpu).value is None


def test_who_draws_graphics_is_another_process_and_who_does_both_is_one() -> None:
    driver = FakeDriver(
        processes=[process(os.getpid(), 5), process(77, 1)], graphics=[process(77, 1), process(78, 1), process(78, 1)]
    )
    assert nvml.other_processes(gpu_of(driver)) == Reading(2)
    driver.errors = {"nvmlDeviceGetGraphicsRunningProcesses": "Not Supported"}
    assert nvml.other_processes(gpu_of(driver)) == Reading(1)


# --- numbers -------------------------------------------------------------------------------


def test_numbers_come_in_the_drivers_units() -> None:
    gpu = gpu_of(FakeDriver(percent=63, millijoules=12_345, reasons=0x44))
    assert nvml.busy_percent(gpu) == Reading(63)
    assert nvml.energy_millijoules(gpu) == Reading(12_345)
    assert nvml.clock_reasons(gpu) == Reading(0x44)
    assert nvml.device_state(gpu) == DeviceState(temperature_c=45, sm_clock_mhz=1980, memory_clock_mhz=2619)


@pytest.mark.parametrize("how", ["missing", "errors"])
def test_older_names_are_asked_where_the_newer_are_not_known(how: str) -> None:
    newer = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV")
    driver = FakeDriver(reasons=0x4)
    if how == "missing":
        driver.missing = newer
    else:
        driver.errors = dict.fromkeys(newer, "Function Not Found")
    assert nvml.clock_reasons(gpu_of(driver)) == Reading(0x4)
    assert nvml.device_state(gpu_of(driver)).temperature_c == 45


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("nvmlDeviceGetComputeRunningProcesses", nvml.process_bytes),
        ("nvmlDeviceGetComputeRunningProcesses", nvml.other_processes),
        ("nvmlDeviceGetUtilizationRates", nvml.busy_percent),
        ("nvmlDeviceGetTotalEnergyConsumption", nvml.energy_millijoules),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", nvml.clock_reasons),
    ],
)
def test_an_error_of_the_driver_becomes_the_reason(name: str, read: object) -> None:
    driver = FakeDriver(errors={name: "Not Supported"}, missing=("nvmlDeviceGetCurrentClocksEventReasons",))
    assert read(gpu_of(driver)) == Reading(None, "NVML reports: Not Supported")  # type: ignore[operator]


def test_a_card_that_hides_heat_and_clocks_has_none() -> None:
    names = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo")
    driver = FakeDriver(errors=dict.fromkeys(names, "Not Supported"))
    assert nvml.device_state(gpu_of(driver)) == DeviceState(
        temperature_c=None, sm_clock_mhz=None, memory_clock_mhz=None
    )


# --- words ---------------------------------------------------------------------------------


def test_reasons_are_named_in_the_order_of_their_bits() -> None:
    assert nvml.words_of(0) == ()
    assert nvml.words_of(0x1) == (), "an idle device is not slowed down"
    assert nvml.words_of(0x60 | 0x4) == ("power limit", "heat (software slowdown)", "heat (hardware slowdown)")
    assert nvml.words_of(0x1000) == ("reason 0x1000",)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_every_bit_but_that_of_idleness_has_a_word(bits: int) -> None:
    words = nvml.words_of(bits)
    assert len(set(words)) == len(words) == (bits & ~1).bit_count()
