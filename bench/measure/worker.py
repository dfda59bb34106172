"""The child of ``measure``: one variant in a fresh process. ``python -P -m bench.measure.worker``.

One JSON line on stdin is the ``Request``. Each JSON line on stdout is a message: ``Ready`` once all is imported, when
the process waits for another line on stdin; then after every image their number so far, at the end a ``Reply``, or a
``Failure`` that the user can do something about. Whatever libraries print goes to stderr; that is why torch and the
pipelines are imported late, once stdout is taken.

Every image is drawn alone, at batch 1: that is the wait a user feels. The order is: load, the first image,
warm-ups at full shape and step count, the timed images, on a GPU some more for energy and one for memory, and last the
batches, where the suite asks for them.
Nothing is shown or saved in between. Imports and the device's start are over before the clock first runs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from bench.errors import HotartError, MachineError
from bench.machine import is_out_of_memory, spare_collector
from bench.measure.meters import arithmetic_note, measure_energy, measure_memory, observe
from bench.measure.nvml import find_gpu
from bench.measure.process import Failure, Message, Ready, Reply, Request, encode
from bench.measure.stopwatch import (
    Clock,
    Shot,
    Stages,
    device_clock,
    device_kind,
    time_batches,
    time_image,
    time_variant,
    timing,
    to_timings,
)
from bench.records import Sampler
from bench.suite.runtimes import runtime_of, told_runtime

# --- one request ---------------------------------------------------------------------------


def measure_request(request: Request, stages: Stages, clock: Clock, tick: Callable[[int], None]) -> Reply:
    """Measure one variant in this process: times, energy, memory and batches, each in a pass of its own."""
    import torch

    gpu, missing = find_gpu(request.device, request.parents) if device_kind(request.device) == "cuda" else (None, "")
    (pipe, load_s, images), conditions = observe(gpu, lambda: time_variant(stages, clock, request.shots, tick))
    told = told_runtime(request.variant)
    of = f" of {request.variant.name}, which runs by {told}" if told else ""
    notes = [arithmetic_note(pipe, request.settings, request.device, of)]
    if missing:
        notes.append(f"Energy, process memory, clocks and heat were not read: {missing}.")
    timed = request.shots[1 + request.warmups :]

    def draw(number: int = 0) -> None:
        time_image(stages, clock, pipe, timed[number % len(timed)])

    measured = []
    if gpu is not None:
        shortest_s = min(image["end_to_end"][0] for image in images[1 + request.warmups :])
        measured.append(measure_energy(gpu, draw, shortest_s))
    measured.append(measure_memory(request.device, gpu, draw))
    measured.append((time_batches(stages, clock, pipe, request.batches), ()))  # after the peaks, which are of one image
    place = (request.variant.name, request.round, os.getpid())
    timings = to_timings(
        load_s,
        images,
        request.warmups,
        *place,
        compiled="whole" if runtime_of(request.variant).compiled else request.settings.compile,
        conditions=conditions,
    )
    return Reply(
        timings=(*timings, *(timing(*place, name, row) for values, _ in measured for name, row in values.items())),
        threads=torch.get_num_threads(),
        notes=(*notes, *(note for _, reasons in measured for note in reasons)),
    )


def pipeline_stages(request: Request) -> Stages:
    """Bind the stages of drawing to a request, with all imports done that loading would do.

    Decoding ends as in rendering: with uint8 (n, height, width, 3) in host memory.
    """
    from bench.pipeline import denoise
    from bench.pipeline.runtimes import import_libraries
    from bench.pipeline.switch import load_pipeline

    import_models(request.settings.sampler)
    import_libraries(runtime_of(request.variant))
    settings = request.settings
    weights_dir = None if request.weights_dir is None else Path(request.weights_dir)

    def decode(pipe: Any, latents: Any) -> Any:
        decoded = denoise.decode_levels(pipe, latents)
        decoded.wait()
        return decoded.levels

    def draw_batch(pipe: Any, shots: Sequence[Shot]) -> Any:
        seeds = [shot.seed for shot in shots]
        encoded = denoise.encode(pipe, [shot.prompt for shot in shots], [shot.negative for shot in shots], settings)
        return decode(pipe, denoise.denoise(pipe, settings, encoded, denoise.noise(pipe, settings, seeds), seeds))

    return Stages(
        load=lambda: load_pipeline(request.variant, settings, device=request.device, weights_dir=weights_dir),
        encode=lambda pipe, shot: denoise.encode(pipe, [shot.prompt], [shot.negative], settings),
        noise=lambda pipe, shot: denoise.noise(pipe, settings, [shot.seed]),
        denoise=lambda pipe, encoded, latents, shot, on_step: denoise.denoise(
            pipe, settings, encoded, latents, [shot.seed], on_step
        ),
        decode=decode,
        draw_batch=draw_batch,
    )


def import_models(sampler: Sampler) -> None:
    """Import the model classes, which diffusers puts off until their first use.

    That takes seconds, longer than reading a small model's weights, and would count as ``load``.
    """
    import diffusers

    from bench.pipeline.schedulers import scheduler_class

    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")
    for name in (*pipelines, "AutoencoderKL", "UNet2DConditionModel"):
        getattr(diffusers, name)
    scheduler_class(sampler)


def answer(request: Request, stages: Stages, clock: Clock, send: Callable[[Message], None]) -> None:
    """Measure, send the count of images as it grows, and the reply; an error of ``bench.errors`` is a ``Failure``.

    Any other exception ends the process with its traceback on stderr, which the parent quotes.
    """
    try:
        send(measure_request(request, stages, clock, send))
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
    """Keep the real stdout for messages and send all other prints to stderr, those of C libraries too."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _follow_parent(turn: threading.Event) -> None:
    """Set ``turn`` at a line of stdin; at its end, which the parent holds open, leave: a killed parent has no orphan.

    ``os.read`` and ``os._exit``, because the main thread may be deep in a kernel or hold stdin's lock.
    """
    while os.read(0, 4096):
        turn.set()
    os._exit(1)


def main() -> None:
    """Serve one request."""
    spare_collector()
    out = claim_stdout()
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    turn = threading.Event()
    threading.Thread(target=_follow_parent, args=(turn,), daemon=True).start()

    def send(message: Message) -> None:
        out.write(encode(message).decode())
        out.flush()

    stages = pipeline_stages(request)
    send(Ready())
    turn.wait()
    answer(request, stages, device_clock(request.device), send)
    sys.stderr.flush()
    os._exit(0)  # taking down torch, module by module, is nobody's gain


if __name__ == "__main__":
    main()
