"""Meters of memory and of foreign load. torch and NVML are imported only when a CUDA device is read."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

LOAD_INTERVAL_S = 0.2
PROC_STATUS = Path("/proc/self/status")
BUSY_PERCENT = 25.0
"""From this share of all cores on, other programs are taken to disturb a timing."""


class CpuLoad(NamedTuple):
    """How busy the machine is before a timing starts."""

    percent: float
    """Share of all cores in use over the interval, 0 to 100."""
    one_minute: float
    """The system's load average over the last minute, in runnable processes."""

    @property
    def is_busy(self) -> bool:
        """Whether other programs take enough of the cores to disturb a timing."""
        return self.percent > BUSY_PERCENT


class DevicePeaks(NamedTuple):
    """Peak memory of torch's caching allocator on one CUDA device, in bytes."""

    allocated_bytes: int
    reserved_bytes: int


class Reading(NamedTuple):
    """A value in bytes or percent, or None with the sentence why there is none."""

    value: int | None
    reason: str = ""


def cpu_load(interval_s: float = LOAD_INTERVAL_S) -> CpuLoad:
    """Measure the share of the cores in use, over ``interval_s`` seconds in which the caller only waits."""
    return CpuLoad(psutil.cpu_percent(interval_s), psutil.getloadavg()[0])


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process since its start, in bytes.

    Linux: ``VmHWM`` of /proc/self/status. Not ``getrusage``: its ``ru_maxrss`` survives exec, so that the
    child of a parent that once held 2 GiB reports 2 GiB whatever it does itself. Elsewhere ``ru_maxrss``,
    which macOS gives in bytes and the others in KiB.
    """
    if PROC_STATUS.exists():
        for line in PROC_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_device_peaks(device: str) -> None:
    """Give cached blocks of a CUDA ``device`` back and set its peaks to what is allocated now."""
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def device_peaks(device: str) -> DevicePeaks:
    """Read the peaks of a CUDA ``device`` since ``reset_device_peaks``.

    ``allocated`` is what the tensors needed, and repeats; ``reserved`` is what the allocator took from the
    driver, and differs from run to run for identical work.
    """
    import torch

    torch.cuda.synchronize(device)
    return DevicePeaks(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))


def device_process_bytes(device: str) -> Reading:
    """Read what the driver books for this process on a CUDA ``device``, in bytes.

    It holds the context and the libraries too, and is a reading of this moment, not a peak; taken while the
    allocator still holds its cache, it is at least the reserved peak. None without ``nvidia-ml-py``, or where
    the driver does not list this process (a container with process numbers of its own, a MIG slice).
    """
    nvml = _nvml()
    if nvml is None:
        return Reading(None, "nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(_nvml_handle(nvml, device))
    except nvml.NVMLError as error:
        return Reading(None, f"NVML does not tell: {error}")
    for process in processes:
        if process.pid == os.getpid() and process.usedGpuMemory is not None:
            return Reading(int(process.usedGpuMemory))
    return Reading(None, "the driver does not list this process, as in a container")


def device_load_percent(device: str) -> Reading:
    """Read the share of time, 0 to 100, in which a CUDA ``device`` ran any kernel over NVML's last sample.

    Read before this process uses the device, all of it is foreign. None with the reason, as above.
    """
    nvml = _nvml()
    if nvml is None:
        return Reading(None, "nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
        return Reading(int(nvml.nvmlDeviceGetUtilizationRates(_nvml_handle(nvml, device)).gpu))
    except nvml.NVMLError as error:
        return Reading(None, f"NVML does not tell: {error}")


def _nvml() -> Any:
    """Return the module ``pynvml``, or None when the extra ``gpu`` is not installed."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    return importlib.import_module("pynvml")


def _nvml_handle(nvml: Any, device: str) -> Any:
    """Find torch's ``device`` in NVML by its UUID: indices differ under CUDA_VISIBLE_DEVICES."""
    import torch

    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
