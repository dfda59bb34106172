"""The stopwatch of one timing process: how an image's parts are timed, and how seconds become records.

The parts of drawing an image come as ``Stages`` and time as a ``Clock``, so that nothing here knows a pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from bench.records import Compile, Conditions, Record, Timing, TimingName

Seconds = dict[TimingName, tuple[float, ...]]
"""Seconds of one image by quantity: ``text_encode``, ``denoise_step`` (each step), ``vae_decode``, ``end_to_end``."""


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
    draw_batch: Callable[[Any, Sequence[Shot]], object]
    """(pipe, shots): from the prompts to pixels in host memory."""


class Clock(NamedTuple):
    """How time is taken on a device."""

    mark: Callable[[], Any]
    """Notes this point of the device's work."""
    seconds: Callable[[Any, Any], float]
    """Seconds between two marks; call it only after ``settle``."""
    settle: Callable[[], None]
    """Waits until the device has done all its work."""


def time_image(stages: Stages, clock: Clock, pipe: Any, shot: Shot) -> Seconds:
    """Draw one image and time its parts, all by marks of one clock.

    The parts leave out the drawing of the noise; ``end_to_end`` holds all, up to uint8 pixels in host memory. The
    first step carries the preparation of the loop. No step waits for the device: on CUDA, marks are events in its
    stream, so that launches run ahead of the kernels as they do for a user.
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
    return {
        "text_encode": (clock.seconds(start, text_done),),
        "denoise_step": tuple(clock.seconds(before, after) for before, after in pairwise(steps)),
        "vae_decode": (clock.seconds(denoised, end),),
        "end_to_end": (clock.seconds(start, end),),
    }


def time_variant(
    stages: Stages, clock: Clock, shots: Sequence[Shot], tick: Callable[[int], None]
) -> tuple[Any, float, list[Seconds]]:
    """Load a variant and draw all shots, one at a time.

    Args:
        stages: the parts of drawing an image.
        clock: the device's clock, already running.
        shots: the images, in order.
        tick: called with the number of images drawn so far, outside the timed parts.

    Returns:
        The pipeline, the seconds of loading, and the seconds of each image.
    """
    clock.settle()
    start = clock.mark()
    pipe = stages.load()
    loaded = clock.mark()
    clock.settle()
    load_s = clock.seconds(start, loaded)
    images = []
    for done, shot in enumerate(shots, 1):
        images.append(time_image(stages, clock, pipe, shot))
        tick(done)
    return pipe, load_s, images


def time_batches(
    stages: Stages, clock: Clock, pipe: Any, batches: Sequence[Sequence[Shot]]
) -> dict[TimingName, tuple[float, ...]]:
    """``per_image_at_batch``: seconds of each batch over its images, the first batch left out; {} without batches.

    The first one of a size makes what later ones find: kernels, memory, and with ``settings.compile`` what is compiled.
    """
    seconds = []
    for batch in batches:
        clock.settle()
        start = clock.mark()
        stages.draw_batch(pipe, batch)
        end = clock.mark()
        clock.settle()
        seconds.append(clock.seconds(start, end) / len(batch))
    return {"per_image_at_batch": tuple(seconds[1:])} if batches else {}


def to_timings(
    load_s: float,
    images: Sequence[Seconds],
    warmups: int,
    variant: str,
    round_number: int,
    process: int,
    *,
    compiled: Compile = False,
    conditions: Conditions | None = None,
) -> tuple[Timing, ...]:
    """Write the seconds of one process as records: raw values, in order, warm-ups apart.

    ``denoise_step`` holds the steps of all images in one row, image by image. With ``compiled``, ``compile`` is the
    first denoise step of the first image, and of "whole" its decoding too, within which torch compiles: a measured
    time, of which the step itself is a small part. ``first_image`` holds it too.

    Args:
        load_s: seconds of loading.
        images: the first image, ``warmups`` warm-ups, then the timed images.
        warmups: how many images after the first are kept apart.
        variant: name of the variant.
        round_number: the round, from 0.
        process: the process id.
        compiled: what the first image compiled.
        conditions: of the process; they stand with ``end_to_end``.
    """
    first, warm, timed = images[0], images[1 : 1 + warmups], images[1 + warmups :]
    once: Seconds = {"load": (load_s,)}
    if compiled:
        decoding_s = first["vae_decode"][0] if compiled == "whole" else 0.0
        once["compile"] = (first["denoise_step"][0] + decoding_s,)
    once["first_image"] = first["end_to_end"]

    def joined(name: TimingName, some: Sequence[Seconds]) -> tuple[float, ...]:
        return tuple(value for image in some for value in image[name])

    place = (variant, round_number, process)
    return (
        *(timing(*place, name, values) for name, values in once.items()),
        *(
            timing(
                *place,
                name,
                joined(name, timed),
                joined(name, warm),
                conditions=conditions if name == "end_to_end" else None,
            )
            for name in first
        ),
    )


def timing(
    variant: str,
    round_number: int,
    process: int,
    name: TimingName,
    values: tuple[float, ...],
    warmups: tuple[float, ...] = (),
    conditions: Conditions | None = None,
) -> Timing:
    """Make one record of ``timings.jsonl``; the quantity says the unit: seconds, bytes for peaks, joules for energy."""
    return Timing(
        variant=variant,
        name=name,
        unit="joule" if name == "energy_per_image" else "byte" if name.startswith("peak_") else "second",
        round=round_number,
        process=process,
        warmups=warmups,
        values=values,
        conditions=conditions,
    )


# --- the clocks ----------------------------------------------------------------------------


def device_kind(device: str) -> str:
    """The kind of a torch device string: ``cpu``, ``cuda`` or ``mps``."""
    return device.split(":")[0]


def device_clock(device: str) -> Clock:
    """Make the clock of a device, and start the device: events on CUDA, else the host's clock.

    On ``mps`` each mark waits for the device, which costs the launches their head start.
    """
    if device_kind(device) == "cuda":
        return _cuda_clock(device)
    if device_kind(device) == "mps":
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
