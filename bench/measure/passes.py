"""The passes of one timing process that are no stopwatch: conditions, energy, memory.

Each says in notes what it could not read, and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bench.measure import meters, nvml
from bench.records import Conditions, Slowdown, TimingName

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
    judged on reading (``bench.compare.timing_doubts``).
    """
    load = meters.cpu_load()
    if gpu is None:
        return work(), Conditions(cpu_percent=load.percent, cpu_load=load.one_minute)
    busy, others, before = nvml.busy_percent(gpu), nvml.other_processes(gpu), nvml.device_state(gpu)
    with meters.polled(lambda: nvml.clock_reasons(gpu).value, WATCH_S) as readings:
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
        with meters.polled(meters.mps_bytes, POLL_S) as samples:
            draw()
        largest = (max(sizes) for sizes in zip(*samples, strict=True))
        found += _torch_peaks(meters.DevicePeaks(*largest))
    found.append(("peak_rss", (float(meters.peak_rss_bytes()),)))
    return Found(tuple(found), notes)


def _torch_peaks(peaks: meters.DevicePeaks) -> list[tuple[TimingName, tuple[float, ...]]]:
    return [("peak_allocated", (float(peaks.allocated_bytes),)), ("peak_reserved", (float(peaks.reserved_bytes),))]


def _cuda_peaks(
    device: str, gpu: nvml.Gpu | None, draw: Callable[[], object]
) -> tuple[meters.DevicePeaks, list[nvml.Reading]]:
    meters.reset_device_peaks(device)
    if gpu is None:
        draw()
        return meters.device_peaks(device), []
    with meters.polled(lambda: nvml.process_bytes(gpu), POLL_S) as booked:
        draw()
    return meters.device_peaks(device), booked
