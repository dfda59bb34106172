"""What is read beside the stopwatch: memory, load, energy, conditions, and how the pipeline computes."""

from __future__ import annotations

import math
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

from bench.measure import nvml
from bench.records import Conditions, Settings, Slowdown, TimingName

# Meters of memory and of foreign load, and reading them while something else runs. torch is imported late.

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


# The passes of one timing process that are no stopwatch: conditions, energy, memory.

Result = TypeVar("Result")

POLL_S = 0.02

"""Between two readings of memory."""

WATCH_S = 0.2

"""Between two readings of what slows the clocks, during the timed images: seldom, so as not to disturb them."""

WINDOW_S = 5.0

"""Shortest window of energy: the counter moves on some ten times a second."""

WINDOWS = 2


class Found(NamedTuple):
    """Values by name, joules or bytes, and notes on those that could not be had."""

    values: tuple[tuple[TimingName, tuple[float, ...]], ...]
    notes: tuple[str, ...] = ()


def kind_of(device: str) -> str:
    """The kind of a torch device string: ``cpu``, ``cuda`` or ``mps``."""
    return device.split(":")[0]


def observe(gpu: nvml.Gpu | None, work: Callable[[], Result]) -> tuple[Result, Conditions]:
    """Do the timed work, and tell what the machine was like: foreign load before it, heat, clocks, slowdowns.

    A slowdown's share is over the readings in which the device was not idle. Whether that makes a figure weak is
    judged on reading (``bench.compare.timing``).
    """
    load = cpu_load()
    if gpu is None:
        return work(), Conditions(cpu_percent=load.percent, cpu_load=load.one_minute)
    busy, others, before = nvml.busy_percent(gpu), nvml.other_processes(gpu), nvml.device_state(gpu)
    with polled(lambda: nvml.clock_reasons(gpu).value, WATCH_S) as readings:
        result = work()
    after = nvml.device_state(gpu)
    counts = [one.value for one in (others, nvml.other_processes(gpu)) if one.value is not None]
    return result, Conditions(
        cpu_percent=load.percent,
        cpu_load=load.one_minute,
        device_percent=busy.value,
        other_processes=max(counts, default=None),
        before=before,
        after=after,
        slowdowns=slowdowns([bits for bits in readings if bits is not None]),
    )


def slowdowns(readings: Sequence[int]) -> tuple[Slowdown, ...]:
    """What held the clocks down, as shares of the readings at work, in the order of their bits."""
    at_work = [bits for bits in readings if not bits & nvml.IDLE]
    together = 0
    for bits in at_work:
        together |= bits
    every = [set(nvml.words_of(bits)) for bits in at_work]
    return tuple(
        Slowdown(reason=word, share=sum(word in words for words in every) / len(every))
        for word in nvml.words_of(together)
    )


def measure_energy(gpu: nvml.Gpu, draw: Callable[[int], object], image_s: float) -> Found:
    """Measure ``energy_per_image``: joules that the device took over whole images, by the driver's counter.

    Two windows of at least 5 s each, of as many whole images; a value a window, its energy over its images. It is
    the whole card's energy: also what it takes when idle, and what others make it do.

    Args:
        gpu: the device.
        draw: draws the image of a number, and returns when the device has done it.
        image_s: about how long an image takes, in seconds; over 0.
    """
    images = max(1, math.ceil(WINDOW_S / image_s))
    values = []
    for window in range(WINDOWS):
        before = nvml.energy_millijoules(gpu)
        for number in range(images):
            draw(window * images + number)
        after = nvml.energy_millijoules(gpu)
        if before.value is None or after.value is None:
            return Found((), (f"energy_per_image was not measured: {before.reason or after.reason}.",))
        if after.value <= before.value:
            return Found((), ("energy_per_image was not measured: the card's counter stood still.",))
        values.append((after.value - before.value) / 1000 / images)
    return Found((("energy_per_image", tuple(values)),))


def measure_memory(device: str, gpu: nvml.Gpu | None, draw: Callable[[], object]) -> Found:
    """Measure the peaks of memory, in bytes: of one more image on a GPU, of the whole process for resident memory.

    On CUDA ``peak_allocated`` and ``peak_reserved`` are torch's own peaks and ``peak_process`` the largest of the
    driver's figures, read every 20 ms. On ``mps`` the first two are the largest of such readings.
    """
    found: list[tuple[TimingName, tuple[float, ...]]] = []
    notes: tuple[str, ...] = ()
    if kind_of(device) == "cuda":
        peaks, booked = _cuda_peaks(device, gpu, draw)
        found += _torch_peaks(peaks)
        sizes = [one.value for one in booked if one.value is not None]
        if sizes:
            found.append(("peak_process", (float(max(sizes)),)))
        elif booked:
            notes = (f"peak_process was not measured: {booked[-1].reason}.",)
    elif kind_of(device) == "mps":
        with polled(mps_bytes, POLL_S) as samples:
            draw()
        largest = (max(sizes) for sizes in zip(*samples, strict=True))
        found += _torch_peaks(DevicePeaks(*largest))
    found.append(("peak_rss", (float(peak_rss_bytes()),)))
    return Found(tuple(found), notes)


def _torch_peaks(peaks: DevicePeaks) -> list[tuple[TimingName, tuple[float, ...]]]:
    return [("peak_allocated", (float(peaks.allocated_bytes),)), ("peak_reserved", (float(peaks.reserved_bytes),))]


def _cuda_peaks(
    device: str, gpu: nvml.Gpu | None, draw: Callable[[], object]
) -> tuple[DevicePeaks, list[nvml.Reading]]:
    reset_device_peaks(device)
    if gpu is None:
        draw()
        return device_peaks(device), []
    with polled(lambda: nvml.process_bytes(gpu), POLL_S) as booked:
        draw()
    return device_peaks(device), booked


# How a loaded pipeline computes, in one sentence: what a speed holds for beside the machine.

KERNELS = {"flash": "flash", "mem_efficient": "memory-efficient", "cudnn": "cuDNN", "math": "plain"}

"""Kernels of torch's attention by the names of ``torch.backends.cuda.<name>_sdp_enabled``."""


def arithmetic_note(pipe: Any, settings: Settings, device: str) -> str:
    """Tell dtype, attention, compiled blocks, and on CUDA the versions and switches that choose kernels.

    Read from the loaded pipeline and from torch, not from what was asked for.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    words = [settings.dtype, f"attention by {_attention(pipe.unet)}", _compiled(pipe.unet)]
    if kind_of(device) == "cuda":
        allowed = [word for name, word in KERNELS.items() if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()]
        words += [
            f"attention kernels allowed: {', '.join(allowed)}",
            f"CUDA {torch.version.cuda}",
            f"cuDNN {cudnn.version()} (autotuning {_on(cudnn.benchmark)})",
            f"TensorFloat-32 {_on(cudnn.allow_tf32)} in convolutions, "
            f"{_on(torch.get_float32_matmul_precision() != 'highest')} in products",
        ]
    return f"Arithmetic of the timing processes: {'; '.join(words)}."


def _attention(unet: Any) -> str:
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    return ", ".join(sorted(kinds)) or "none"


def _compiled(unet: Any) -> str:
    """``Module.compile`` leaves its compiled call at the module."""
    count = sum(getattr(module, "_compiled_call_impl", None) is not None for module in unet.modules())
    return f"{count} compiled {'block' if count == 1 else 'blocks'}" if count else "not compiled"


def _on(switch: bool) -> str:
    return "on" if switch else "off"
