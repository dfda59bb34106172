"""The stopwatch of one timing process: how an image's parts are timed, and how seconds become records.

The parts of drawing an image come as ``Stages`` and time as a ``Clock``, so that none of it knows a pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from bench.records import Conditions, Record, Timing, TimingName, Unit


class Shot(Record, frozen=True):
    """One image to draw for its time."""

    prompt: str
    negative: str
    seed: int


class Stages(NamedTuple):
    """The parts of drawing one image, as plain functions of the loaded pipeline."""

    load: Callable[[], Any]
    encode: Callable[[Any, Shot], Any]
    noise: Callable[[Any, Shot], Any]
    denoise: Callable[[Any, Any, Any, Shot, Callable[[int], None]], Any]
    """(pipe, encoded, latents, shot, on_step); calls ``on_step`` after every step."""
    decode: Callable[[Any, Any], Any]


class Clock(NamedTuple):
    """How time is taken on a device."""

    mark: Callable[[], Any]
    """Notes this point of the device's work."""
    seconds: Callable[[Any, Any], float]
    """Seconds between two marks; ask only after ``settle``."""
    settle: Callable[[], None]
    """Waits until the device has done all it was given."""


class ImageTimes(NamedTuple):
    """Seconds of one image. The parts leave out the drawing of the noise; ``end_to_end`` holds all."""

    text_encode: float
    denoise_steps: tuple[float, ...]
    """The first one carries the preparation of the loop."""
    vae_decode: float
    """Up to uint8 pixels in host memory."""
    end_to_end: float


class Laps(NamedTuple):
    """Seconds of one process, in the order in which they were taken."""

    load: float
    first: ImageTimes
    warmups: tuple[ImageTimes, ...]
    timed: tuple[ImageTimes, ...]


def time_image(stages: Stages, clock: Clock, pipe: Any, shot: Shot) -> ImageTimes:
    """Draw one image and time its parts, all by marks of one clock.

    No step waits for the device: on CUDA marks are events in its stream, so that launches run ahead of the
    kernels as they do for a user.
    """
    clock.settle()
    start = clock.mark()
    encoded = stages.encode(pipe, shot)
    text_done = clock.mark()
    latents = stages.noise(pipe, shot)
    steps = [clock.mark()]
    latents = stages.denoise(pipe, encoded, latents, shot, lambda _: steps.append(clock.mark()))
    denoised = clock.mark()
    stages.decode(pipe, latents)
    end = clock.mark()
    clock.settle()
    return ImageTimes(
        text_encode=clock.seconds(start, text_done),
        denoise_steps=tuple(clock.seconds(before, after) for before, after in pairwise(steps)),
        vae_decode=clock.seconds(denoised, end),
        end_to_end=clock.seconds(start, end),
    )


def time_variant(
    stages: Stages, clock: Clock, shots: Sequence[Shot], warmups: int, tick: Callable[[int], None]
) -> tuple[Any, Laps]:
    """Load a variant and draw all shots, one at a time; returns the pipeline and the seconds.

    Args:
        stages: the parts of drawing an image.
        clock: the device's clock, already running.
        shots: the first image, ``warmups`` warm-ups, then the timed images.
        warmups: how many images after the first are kept apart.
        tick: called with the number of images drawn so far, outside the timed parts.
    """
    clock.settle()
    start = clock.mark()
    pipe = stages.load()
    loaded = clock.mark()
    clock.settle()
    load = clock.seconds(start, loaded)
    times = []
    for done, shot in enumerate(shots, 1):
        times.append(time_image(stages, clock, pipe, shot))
        tick(done)
    first, rest = times[0], tuple(times[1:])
    return pipe, Laps(load, first, rest[:warmups], rest[warmups:])


def laps_to_timings(
    laps: Laps,
    variant: str,
    round_number: int,
    process: int,
    *,
    compiled: bool = False,
    conditions: Conditions | None = None,
) -> tuple[Timing, ...]:
    """Write the seconds of one process as records: raw values, in order, warm-ups beside them.

    ``denoise_step`` holds the steps of all images in one row, image by image. With ``compiled``, ``compile`` is the
    first denoise step of the first image, within which torch compiles: a measured time, of which the step itself is
    a small part. ``first_image`` holds it too. ``conditions`` stand with ``end_to_end``.
    """

    def record(name: TimingName, value_of: Callable[[ImageTimes], tuple[float, ...]]) -> Timing:
        warm, timed = (
            tuple(value for image in images for value in value_of(image)) for images in (laps.warmups, laps.timed)
        )
        return timing(variant, round_number, process, name, "second", timed, warm)

    once: list[tuple[TimingName, float]] = [("load", laps.load), ("first_image", laps.first.end_to_end)]
    if compiled:
        once.insert(1, ("compile", laps.first.denoise_steps[0]))
    end_to_end = record("end_to_end", lambda image: (image.end_to_end,))
    return (
        *(timing(variant, round_number, process, name, "second", (value,)) for name, value in once),
        record("text_encode", lambda image: (image.text_encode,)),
        record("denoise_step", lambda image: image.denoise_steps),
        record("vae_decode", lambda image: (image.vae_decode,)),
        msgspec.structs.replace(end_to_end, conditions=conditions),
    )


def timing(
    variant: str,
    round_number: int,
    process: int,
    name: TimingName,
    unit: Unit,
    values: tuple[float, ...],
    warmups: tuple[float, ...] = (),
) -> Timing:
    """Make one record of ``timings.jsonl``."""
    return Timing(
        variant=variant,
        name=name,
        unit=unit,
        round=round_number,
        process=process,
        warmups=warmups,
        values=values,
    )


# --- the clocks ----------------------------------------------------------------------------


def device_clock(device: str) -> Clock:
    """Make the clock of a device, and start the device: events on CUDA, else the host's clock.

    On ``mps`` each mark waits for the device, which costs the launches their head start.
    """
    kind = device.split(":")[0]
    if kind == "cuda":
        return _cuda_clock(device)
    if kind == "mps":
        return _mps_clock()
    return Clock(time.perf_counter, lambda before, after: after - before, lambda: None)


def _cuda_clock(device: str) -> Clock:
    import torch

    torch.cuda.set_device(device)

    def mark() -> Any:
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def settle() -> None:
        torch.cuda.synchronize(device)

    settle()
    return Clock(mark, lambda before, after: before.elapsed_time(after) / 1000.0, settle)


def _mps_clock() -> Clock:
    import torch

    def mark() -> float:
        torch.mps.synchronize()
        return time.perf_counter()

    mark()
    return Clock(mark, lambda before, after: after - before, torch.mps.synchronize)
