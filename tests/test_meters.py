"""Meters of memory and load, against processes whose memory is known and a driver made of numbers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bench import meters

MIB = 2**20


def _peak_in_child(code: str) -> int:
    root = str(Path(meters.__file__).resolve().parent.parent)
    start = f"import sys; sys.path.insert(0, {root!r})\nfrom bench.meters import peak_rss_bytes"
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
        while not meters.cpu_load().is_busy:
            assert time.monotonic() < deadline, "a machine that is kept busy was not called busy"
    finally:
        for process in spin:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("percent", "busy"), [(0.0, False), (25.0, False), (25.1, True), (100.0, True)])
def test_busy_begins_above_a_quarter_of_the_cores(percent: float, busy: bool) -> None:
    assert meters.CpuLoad(percent, 0.0).is_busy is busy


# --- a CUDA device and its driver, made of numbers -----------------------------------------


class FakeNvmlError(Exception):
    """Stands for ``pynvml.NVMLError``."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with one device, which the process sees as cuda:0 and the driver knows by its UUID."""
    state = SimpleNamespace(processes=[], percent=0, error=None)

    def handle(uuid: str) -> str:
        if state.error:
            raise FakeNvmlError(state.error)
        assert uuid == "GPU-1234-abcd"
        return "handle"

    module = ModuleType("pynvml")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]  # what find_spec looks at
    members = {
        "NVMLError": FakeNvmlError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: state.processes,
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=state.percent),
    }
    for name, member in members.items():
        setattr(module, name, member)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    cuda = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(uuid="1234-abcd"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return state


def test_process_memory_is_the_drivers_figure_for_this_process(nvml: SimpleNamespace) -> None:
    nvml.processes = [
        SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=1),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 * MIB),
    ]
    assert meters.device_process_bytes("cuda:0") == meters.Reading(5 * MIB)


@pytest.mark.parametrize("used", [None, "absent"])
def test_process_memory_that_the_driver_hides_is_none_with_a_reason(nvml: SimpleNamespace, used: str | None) -> None:
    if used is None:
        nvml.processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)]
    reading = meters.device_process_bytes("cuda:0")
    assert reading.value is None
    assert "does not list this process" in reading.reason


def test_device_load_is_the_drivers_share(nvml: SimpleNamespace) -> None:
    nvml.percent = 63
    assert meters.device_load_percent("cuda:0").value == 63


def test_an_error_of_the_driver_becomes_the_reason(nvml: SimpleNamespace) -> None:
    nvml.error = "Not Supported"
    for reading in (meters.device_process_bytes("cuda:0"), meters.device_load_percent("cuda:0")):
        assert reading == meters.Reading(None, "NVML does not tell: Not Supported")


def test_without_the_extra_there_is_a_reason_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters.importlib.util, "find_spec", lambda name: None)
    for reading in (meters.device_process_bytes("cuda:0"), meters.device_load_percent("cuda:0")):
        assert reading == meters.Reading(None, "nvidia-ml-py is not installed")


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
    assert meters.device_peaks("cuda:0") == meters.DevicePeaks(7, 11)
    assert calls[0] == "synchronize"
