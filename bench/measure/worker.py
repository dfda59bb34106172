"""The child of ``measure``: one variant in a fresh process. ``python -P -m bench.measure.worker``.

One JSON line on stdin is the ``Request``. Each JSON line on stdout is a message: a ``Tick`` after every
image, at the end a ``Reply``, or a ``Failure`` that the user can do something about. Whatever libraries print
goes to stderr.

Every image is drawn alone, at batch 1: that is the wait a user feels. The order is: load, the first image,
warm-ups at full shape and step count, the timed images, and on a GPU some more for energy and one for memory.
Nothing is shown or saved in between. Imports and the device's start are over before the clock first runs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from bench.errors import HotartError, MachineError
from bench.machine import is_out_of_memory, spare_collector
from bench.measure.meters import arithmetic_note, kind_of, measure_energy, measure_memory, observe
from bench.measure.nvml import find_gpu
from bench.measure.process import Failure, Message, Reply, Request, Tick, encode
from bench.measure.stopwatch import Clock, Stages, device_clock, laps_to_timings, time_image, time_variant, timing
from bench.records import Sampler

# --- one request ---------------------------------------------------------------------------


def measure_request(request: Request, stages: Stages, clock: Clock, tick: Callable[[int], None]) -> Reply:
    """Measure one variant in this process: times first, then energy, then memory, each in a pass of its own."""
    import torch

    gpu, missing = find_gpu(request.device, request.relatives) if kind_of(request.device) == "cuda" else (None, "")
    (pipe, laps), conditions = observe(gpu, lambda: time_variant(stages, clock, request.shots, request.warmups, tick))
    notes = [arithmetic_note(pipe, request.settings, request.device)]
    if missing:
        notes.append(f"Energy, process memory, clocks and heat were not read: {missing}.")
    timed = request.shots[1 + request.warmups :]

    def draw(number: int = 0) -> None:
        time_image(stages, clock, pipe, timed[number % len(timed)])

    found = []
    if gpu is not None:
        found.append(measure_energy(gpu, draw, min(image.end_to_end for image in laps.timed)))
    found.append(measure_memory(request.device, gpu, draw))
    place = (request.variant.name, request.round, os.getpid())
    values = [pair for one in found for pair in one.values]
    return Reply(
        timings=(
            *laps_to_timings(laps, *place, compiled=request.settings.compile, conditions=conditions),
            *(timing(*place, name, "joule" if name == "energy_per_image" else "byte", row) for name, row in values),
        ),
        threads=torch.get_num_threads(),
        notes=(*notes, *(note for one in found for note in one.notes)),
    )


def pipeline_stages(request: Request) -> Stages:
    """Bind the stages of drawing to a request, with all imports done that loading would do."""
    from bench.pipeline import denoise as stages
    from bench.pipeline.switch import load_pipeline

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
        decode=decoded_levels,
    )


def decoded_levels(pipe: Any, latents: Any) -> Any:
    """Decode latents as rendering does: uint8 (n, height, width, 3) in host memory, when it returns."""
    from bench.pipeline import denoise as stages

    decoded = stages.decode_levels(pipe, latents)
    decoded.wait()
    return decoded.levels


def import_models(sampler: Sampler) -> None:
    """Import the model classes, which diffusers puts off until they are asked for.

    That takes seconds, more than a small model's weights, and would be booked as ``load``.
    """
    import diffusers

    from bench.pipeline.schedulers import SAMPLERS

    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")
    for name in (*pipelines, "AutoencoderKL", "UNet2DConditionModel", SAMPLERS[sampler][0]):
        getattr(diffusers, name)


def answer(request: Request, stages: Stages, clock: Clock, send: Callable[[Message], None]) -> None:
    """Measure and send ticks and the reply; an error the user can meet is sent as a ``Failure``.

    Any other exception ends the process with its traceback on stderr, which the parent quotes.
    """
    try:
        send(measure_request(request, stages, clock, lambda done: send(Tick(done=done))))
    except HotartError as error:
        send(Failure(exit_code=error.exit_code, message=error.message, hint=error.hint))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
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
    spare_collector()
    out = claim_stdout()
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Message) -> None:
        out.write(encode(message).decode())
        out.flush()

    answer(request, pipeline_stages(request), device_clock(request.device), send)


if __name__ == "__main__":
    main()
