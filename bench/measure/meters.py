"""Meters of memory and of foreign load, and reading them while something else runs. torch is imported late."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

LOAD_INTERVAL_S = 0.2
PROC_STATUS = Path("/proc/self/status")

Sample = TypeVar("Sample")


class CpuLoad(NamedTuple):
    """How busy the machine is before a timing starts."""

    percent: float
    """Share of all cores in use over the interval, 0 to 100."""
    one_minute: float
    """The system's load average over the last minute, in runnable processes."""


class DevicePeaks(NamedTuple):
    """Peak memory of torch's allocator on one device, in bytes."""

    allocated_bytes: int
    reserved_bytes: int


def cpu_load(interval_s: float = LOAD_INTERVAL_S) -> CpuLoad:
    """Measure the share of the cores in use, over ``interval_s`` seconds in which the caller only waits."""
    return CpuLoad(psutil.cpu_percent(interval_s), psutil.getloadavg()[0])


@contextmanager
def polled(read: Callable[[], Sample], interval_s: float) -> Iterator[list[Sample]]:
    """Read a meter every ``interval_s`` seconds in a thread, as long as the block runs, and once after it.

    A peak between two readings is missed, so a maximum over them is a lower bound. What a reading raises is raised
    at the end of the block.
    """
    samples: list[Sample] = []
    done = threading.Event()

    def keep_reading() -> None:
        while not done.wait(interval_s):
            samples.append(read())

    with ThreadPoolExecutor(1, "meter") as pool:
        reading = pool.submit(keep_reading)
        try:
            yield samples
        finally:
            done.set()
        reading.result()
    samples.append(read())


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


def mps_bytes() -> DevicePeaks:
    """Read what tensors hold on an Apple GPU now, and what Metal has given this process, cache included.

    torch keeps no peaks for ``mps``: poll this, and take the maxima.
    """
    import torch

    return DevicePeaks(torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory())
