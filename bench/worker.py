"""The child of ``measure``: one variant in a fresh process. ``python -P -m bench.worker``.

One JSON line on stdin is the ``Request``. Each JSON line on stdout is a message: a ``Tick`` after every
image, at the end a ``Reply``, or a ``Failure`` that the user can do something about. Whatever libraries print
goes to stderr.

Every image is drawn alone, at batch 1: that is the wait a user feels. The order is: load, the first image,
warm-ups at full shape and step count, the timed images, and on CUDA one more for memory. Nothing is shown or
saved in between. Imports and the device's start are over before the clock first runs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import msgspec

from bench import meters
from bench.errors import HotartError, MachineError
from bench.laps import Clock, Shot, Stages, device_clock, laps_to_timings, time_image, time_variant, timing
from bench.records import Record, Sampler, Settings, Timing, TimingName, Variant

# --- what passes between parent and child --------------------------------------------------


class Request(Record, frozen=True):
    """What a child is to measure."""

    variant: Variant
    settings: Settings
    device: str
    """torch device string, such as ``cpu`` or ``cuda:0``."""
    weights_dir: str | None
    round: int
    warmups: int
    shots: tuple[Shot, ...]
    """In order: the first image, ``warmups`` warm-ups, the timed images."""


class Tick(Record, frozen=True, tag=True):
    """``done`` images of this process are drawn."""

    done: int


class Reply(Record, frozen=True, tag=True):
    """What was measured, and what one should know of it."""

    timings: tuple[Timing, ...]
    threads: int
    """Threads torch used for CPU work."""
    notes: tuple[str, ...]


class Failure(Record, frozen=True, tag=True):
    """An error of ``bench.errors``, by its exit code."""

    exit_code: int
    message: str
    hint: str


Message = Tick | Reply | Failure


def encode(message: Request | Message) -> bytes:
    """Write a request or message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


# --- one request ---------------------------------------------------------------------------


def measure_request(request: Request, stages: Stages, clock: Clock, tick: Callable[[int], None]) -> Reply:
    """Measure one variant in this process: times first, then memory."""
    import torch

    notes = busy_device_notes(request)
    pipe, laps = time_variant(stages, clock, request.shots, request.warmups, tick)
    times = laps_to_timings(laps, variant=request.variant.name, round_number=request.round, process=os.getpid())
    memory, missing = measure_memory(request, lambda: time_image(stages, clock, pipe, request.shots[-1]))
    return Reply(timings=times + memory, threads=torch.get_num_threads(), notes=notes + missing)


def measure_memory(request: Request, draw: Callable[[], object]) -> tuple[tuple[Timing, ...], tuple[str, ...]]:
    """Measure the peaks of memory: of one more image on CUDA, of the whole process for resident memory.

    Returns the records, in bytes, and notes on what could not be read.
    """
    found: list[tuple[TimingName, int]] = []
    notes: tuple[str, ...] = ()
    if is_cuda(request.device):
        meters.reset_device_peaks(request.device)
        draw()
        peaks = meters.device_peaks(request.device)
        booked = meters.device_process_bytes(request.device)
        found += [("peak_allocated", peaks.allocated_bytes), ("peak_reserved", peaks.reserved_bytes)]
        if booked.value is None:
            notes = (f"peak_process was not measured: {booked.reason}.",)
        else:
            found.append(("peak_process", booked.value))
    found.append(("peak_rss", meters.peak_rss_bytes()))
    name, process = request.variant.name, os.getpid()
    records = tuple(timing(name, request.round, process, what, "byte", (float(size),)) for what, size in found)
    return records, notes


def busy_device_notes(request: Request) -> tuple[str, ...]:
    """Say when the CUDA device is at work before this process has given it any."""
    if not is_cuda(request.device):
        return ()
    busy = meters.device_load_percent(request.device)
    if busy.value is None or busy.value <= meters.BUSY_PERCENT:
        return ()
    return (
        f"{request.device} was {busy.value} % busy with other work before {request.variant.name}, "
        f"round {request.round + 1}: its figures are weak.",
    )


def is_cuda(device: str) -> bool:
    """Whether a torch device string names a CUDA device."""
    return device.split(":")[0] == "cuda"


def pipeline_stages(request: Request) -> Stages:
    """Bind ``bench.variants`` to a request, with all imports done that loading would do."""
    from bench.variants import load_pipeline, stages

    import_models(request.settings.sampler)
    settings = request.settings
    weights_dir = None if request.weights_dir is None else Path(request.weights_dir)
    return Stages(
        load=lambda: load_pipeline(request.variant, settings, device=request.device, weights_dir=weights_dir),
        encode=lambda pipe, shot: stages.encode(pipe, [shot.prompt], [shot.negative], settings),
        noise=lambda pipe, shot: stages.noise(pipe, settings, [shot.seed]),
        denoise=lambda pipe, encoded, latents, shot, on_step: stages.denoise(
            pipe, settings, encoded, latents, [shot.seed], on_step
        ),
        decode=lambda pipe, latents: stages.to_uint8(stages.decode(pipe, latents)),
    )


def import_models(sampler: Sampler) -> None:
    """Import the model classes, which diffusers puts off until they are asked for.

    That takes seconds, more than a small model's weights, and would be booked as ``load``.
    """
    import diffusers

    from bench.variants.samplers import SAMPLERS

    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")
    for name in (*pipelines, "AutoencoderKL", "UNet2DConditionModel", SAMPLERS[sampler][0]):
        getattr(diffusers, name)


def answer(request: Request, stages: Stages, clock: Clock, send: Callable[[Message], None]) -> None:
    """Measure and send ticks and the reply; an error the user can meet is sent as a ``Failure``.

    Any other exception ends the process with its traceback on stderr, which the parent quotes.
    """
    import torch

    try:
        send(measure_request(request, stages, clock, lambda done: send(Tick(done=done))))
    except HotartError as error:
        send(Failure(exit_code=error.exit_code, message=error.message, hint=error.hint))
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no memory left"
        send(
            Failure(
                exit_code=MachineError.exit_code,
                message=f"{request.variant.name} does not fit into the memory of {request.device}: {reason}",
                hint="Free memory on it, or take a smaller width and height or dtype in [settings].",
            )
        )


# --- the process ---------------------------------------------------------------------------


def claim_stdout() -> TextIO:
    """Keep the real stdout for messages and send everybody else's prints to stderr, C libraries' too."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _end_with_parent() -> None:
    """Wait for the end of stdin, which the parent holds open, and leave: a killed parent leaves no orphan.

    ``os.read`` and ``os._exit``, because the main thread may be deep in a kernel or hold stdin's lock.
    """
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    """Serve one request."""
    out = claim_stdout()
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Message) -> None:
        out.write(encode(message).decode())
        out.flush()

    answer(request, pipeline_stages(request), device_clock(request.device), send)


if __name__ == "__main__":
    main()
