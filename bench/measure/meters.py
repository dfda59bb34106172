"""What is read besides the stopwatch: memory, load, energy, conditions, and how the pipeline computes."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from bench.formatting import plural
from bench.measure import nvml
from bench.measure.stopwatch import device_kind
from bench.records import Conditions, Settings, Slowdown, TimingName

if sys.platform != "win32":
    import resource

LOAD_INTERVAL_S = 0.2
POLL_S = 0.02
"""Between two readings of memory."""
WATCH_S = 0.2
"""Between two readings of what slows the clocks, during the timed images: seldom, so as not to disturb them."""
WINDOW_S = 5.0
"""Shortest window of energy: the counter moves about ten times a second."""
WINDOWS = 2
PROC_STATUS = Path("/proc/self/status")
KERNELS = {"flash": "flash", "mem_efficient": "memory-efficient", "cudnn": "cuDNN", "math": "plain"}
"""Kernels of torch's attention by the names of ``torch.backends.cuda.<name>_sdp_enabled``."""

Sample = TypeVar("Sample")
Result = TypeVar("Result")
Measured = tuple[dict[TimingName, tuple[float, ...]], tuple[str, ...]]
"""Values by name, joules or bytes, and a note on each that could not be measured."""


# --- reading a meter -----------------------------------------------------------------------


def cpu_load(interval_s: float = LOAD_INTERVAL_S) -> tuple[float, float]:
    """Measure how busy the machine is, over ``interval_s`` seconds in which the caller only waits.

    Returns:
        The share of all cores in use, 0 to 100, and the system's load average over the last minute, in runnable
        processes.
    """
    return psutil.cpu_percent(interval_s), psutil.getloadavg()[0]


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
    child of a parent that once held 2 GiB reports 2 GiB whatever it does itself. Windows: the peak of the working set.
    Elsewhere ``ru_maxrss``, which macOS gives in bytes and the others in KiB.
    """
    if PROC_STATUS.exists():
        for line in PROC_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    else:  # noqa: RET505 -- how mypy knows that the other systems are not forgotten
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_device_peaks(device: str) -> None:
    """Give cached blocks of a CUDA ``device`` back and set its peaks to what is allocated now."""
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def device_peaks(device: str) -> tuple[int, int]:
    """Read the peaks of a CUDA ``device`` since ``reset_device_peaks``: allocated and reserved bytes.

    What is allocated is what the tensors needed, and repeats; what is reserved is what the allocator took from the
    driver, and differs from run to run for identical work.
    """
    import torch

    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def mps_bytes() -> tuple[int, int]:
    """Read what tensors hold on an Apple GPU now, and what Metal has given this process, cache included, in bytes.

    torch keeps no peaks for ``mps``: poll this, and take the maxima.
    """
    import torch

    return torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()


# --- the passes of one timing process ------------------------------------------------------


def observe(gpu: nvml.Gpu | None, work: Callable[[], Result]) -> tuple[Result, Conditions]:
    """Do the timed work, and record what the machine was like: foreign load before it, heat, clocks, slowdowns.

    A slowdown's share is over the readings in which the device was not idle. Whether that makes a figure weak is
    decided on reading (``bench.compare.timing``).
    """
    cpu_percent, one_minute = cpu_load()
    if gpu is None:
        return work(), Conditions(cpu_percent=cpu_percent, cpu_load=one_minute)
    busy, others, before = nvml.busy_percent(gpu), nvml.other_processes(gpu), nvml.device_state(gpu)
    with polled(lambda: nvml.clock_reasons(gpu).value, WATCH_S) as readings:
        result = work()
    after = nvml.device_state(gpu)
    counts = [one.value for one in (others, nvml.other_processes(gpu)) if one.value is not None]
    return result, Conditions(
        cpu_percent=cpu_percent,
        cpu_load=one_minute,
        device_percent=busy.value,
        other_processes=max(counts, default=None),
        before=before,
        after=after,
        slowdowns=slowdowns([bits for bits in readings if bits is not None]),
    )


def slowdowns(readings: Sequence[int]) -> tuple[Slowdown, ...]:
    """What held the clocks down, as shares of the readings at work, in the order of their bits."""
    at_work = [bits for bits in readings if not bits & nvml.IDLE]
    seen = 0
    for bits in at_work:
        seen |= bits
    reasons = [set(nvml.words_of(bits)) for bits in at_work]
    return tuple(
        Slowdown(reason=word, share=sum(word in words for words in reasons) / len(reasons))
        for word in nvml.words_of(seen)
    )


def measure_energy(gpu: nvml.Gpu, draw: Callable[[int], object], image_s: float) -> Measured:
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
            return {}, (f"energy_per_image was not measured: {before.reason or after.reason}.",)
        if after.value <= before.value:
            return {}, ("energy_per_image was not measured: the card's counter stood still.",)
        values.append((after.value - before.value) / 1000 / images)
    return {"energy_per_image": tuple(values)}, ()


def measure_memory(device: str, gpu: nvml.Gpu | None, draw: Callable[[], object]) -> Measured:
    """Measure the peaks of memory, in bytes: of one more image on a GPU, of the whole process for resident memory.

    On CUDA ``peak_allocated`` and ``peak_reserved`` are torch's own peaks and ``peak_process`` the largest of the
    driver's figures, read every 20 ms. On ``mps`` the first two are the largest of such readings.
    """
    peaks: dict[TimingName, int] = {}
    notes: tuple[str, ...] = ()
    if device_kind(device) == "cuda":
        reset_device_peaks(device)
        readings: list[nvml.Reading] = []
        if gpu is None:
            draw()
        else:
            with polled(lambda: nvml.process_bytes(gpu), POLL_S) as readings:
                draw()
        peaks["peak_allocated"], peaks["peak_reserved"] = device_peaks(device)
        sizes = [one.value for one in readings if one.value is not None]
        if sizes:
            peaks["peak_process"] = max(sizes)
        elif readings:
            notes = (f"peak_process was not measured: {readings[-1].reason}.",)
    elif device_kind(device) == "mps":
        with polled(mps_bytes, POLL_S) as samples:
            draw()
        peaks["peak_allocated"], peaks["peak_reserved"] = map(max, zip(*samples, strict=True))
    peaks["peak_rss"] = peak_rss_bytes()
    return {name: (float(size),) for name, size in peaks.items()}, notes


def arithmetic_note(pipe: Any, settings: Settings, device: str, of: str = "") -> str:
    """How a loaded pipeline computes, in one sentence: the speed holds for this, on this machine.

    It names dtype, attention, compiled blocks, and on CUDA the versions and switches that choose kernels. All is read
    from the pipeline and from torch, not from the settings. ``of`` names a variant that runs otherwise than others.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    words = [settings.dtype, f"attention by {_attention(pipe.unet)}", _compiled(pipe.unet)]
    if device_kind(device) == "cuda":
        allowed = [word for name, word in KERNELS.items() if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()]
        words += [
            f"attention kernels allowed: {', '.join(allowed)}",
            f"CUDA {torch.version.cuda}",
            f"cuDNN {cudnn.version()} (autotuning {_on(cudnn.benchmark)})",
            f"TensorFloat-32 {_on(cudnn.allow_tf32)} in convolutions, "
            f"{_on(torch.get_float32_matmul_precision() != 'highest')} in products",
        ]
    return f"Arithmetic of the timing processes{of}: {'; '.join(words)}."


def _attention(unet: Any) -> str:
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    return ", ".join(sorted(kinds)) or "none"


def _compiled(unet: Any) -> str:
    """``Module.compile`` leaves its compiled call at the module."""
    if getattr(unet, "_compiled_call_impl", None) is not None:
        return "compiled whole"
    count = sum(getattr(module, "_compiled_call_impl", None) is not None for module in unet.modules())
    return plural(count, "compiled block") if count else "not compiled"


def _on(switch: bool) -> str:
    return "on" if switch else "off"
