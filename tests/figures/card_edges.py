"""What the edges of the pipeline cost on a GPU: between two batches, in decoding, in compiling all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import msgspec
import torch
from torch.profiler import ProfilerActivity, profile

from bench.measure.stopwatch import device_clock
from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline
from bench.records import PlannedImage, Settings, Suite
from bench.render import draw_batch, encode_prompts
from bench.render.images import launch

from .figure import Figure, figure_of, plain_figure, ratio_figure
from .full_bench import Bench, Size, settle, timed
from .rendering import batches

STEPS = 2
"""CUDA takes a thousand launches or so in advance: of more steps, the host would wait for its queue to be shorter."""
DECODED = 4
"""Images that are decoded at once, over one."""


def issue_over_draw(bench_: Bench) -> Figure:
    """Seconds until the host has issued a batch of two steps and its decoding, over those until it is drawn.

    1 where anything in it waits for the device.
    """
    size, suite = bench_.size, short(bench_.suite)
    pipe, images, encoded = ready(size, suite)
    issued, drawn = [], []
    for _ in range(size.turns + 1):
        whole = partial(settled_after, size, partial(launch, pipe, suite.settings, images, encoded), issued)
        drawn.append(timed(size, whole))
    return ratio_figure("issue_over_draw", issued[1:], drawn[1:], "<=", 0.6)


def settled_after(size: Size, work: Callable[[], object], issued: list[float]) -> None:
    """Note the host's seconds for some work, then wait until the device has done it."""
    clock = device_clock("cpu")
    start = clock.mark()
    work()
    issued.append(clock.seconds(start, clock.mark()))
    settle(size)


def gap_between_batches_s(bench_: Bench) -> Figure:
    """Seconds of the device between the end of a batch and the beginning of the next, its conditions copied.

    By marks in the device's own queue. What the host does meanwhile (noise, prompts, launching) is no part of it where
    the host runs ahead.
    """
    size, suite = bench_.size, short(bench_.suite)
    pipe, images, encoded = ready(size, suite)
    clock, marks = device_clock(size.device), []

    def mark(*_: object) -> None:
        marks.append(clock.mark())

    begun = pipe.unet.register_forward_pre_hook(mark)
    for _ in range(size.turns + 1):
        launch(pipe, suite.settings, images, encoded)
        mark()
    begun.remove()
    settle(size)
    # Of a batch: the beginning of each step, and its end.
    ends, beginnings = marks[STEPS :: STEPS + 1], marks[STEPS + 1 :: STEPS + 1]
    gaps = [clock.seconds(end, beginning) for end, beginning in zip(ends, beginnings, strict=False)]
    return figure_of("gap_between_batches_s", gaps, "<=", 0.005)


def short(suite: Suite) -> Suite:
    """The suite with two steps and nothing compiled."""
    return msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, steps=STEPS, compile=False))


def ready(size: Size, suite: Suite) -> tuple[Any, tuple[PlannedImage, ...], dict[str, stages.Encoded]]:
    """The first variant, and the suite's first batch with its prompts encoded."""
    pipe = load_pipeline(suite.variants[0], suite.settings, device=size.device)
    images = next(batches(suite))
    return pipe, images, encode_prompts(pipe, suite, [images])


# Decoding.


def vae_peak_4_over_1(bench_: Bench) -> Figure:
    """Peak of what decoding four images allocates, one by one (``vae_slicing``), over that of decoding one."""
    pipe, latents = decoder(bench_, vae_slicing=True)
    peaks = [allocated_peak(bench_.size.device, partial(stages.decode_levels, pipe, latents[:n])) for n in (DECODED, 1)]
    return ratio_figure("vae_peak_4_over_1", peaks[:1], peaks[1:], "<=", 1.05)


def vae_sliced_over_batched(bench_: Bench) -> Figure:
    """Seconds of decoding four images one by one, over those of decoding them at once; in turns."""
    size = bench_.size
    kinds = [partial(stages.decode_levels, *decoder(bench_, vae_slicing=sliced)) for sliced in (True, False)]
    pairs = [[timed(size, decode) for decode in kinds] for _ in range(size.turns + 1)][1:]
    sliced_s, batched_s = zip(*pairs, strict=True)
    return ratio_figure("vae_sliced_over_batched", sliced_s, batched_s, "<=", 1.05)


def decoder(bench_: Bench, **changes: object) -> tuple[Any, torch.Tensor]:
    """A pipeline with changed settings and nothing compiled, and latents on its device."""
    size = bench_.size
    settings: Settings = msgspec.structs.replace(bench_.suite.settings, compile=False, **changes)
    pipe = load_pipeline(bench_.suite.variants[0], settings, device=size.device)
    return pipe, stages.noise(pipe, settings, list(range(DECODED))).to(size.device, pipe.unet.dtype)


def allocated_peak(device: str, work: Callable[[], object]) -> float:
    """The most bytes that some work allocated at once, beside what there was: on CUDA, else by torch's profiler."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    results: Any = seen.profiler
    events = [one for one in results.kineto_results.events() if one.name() == "[memory]"]
    return float(max(accumulate(one.nbytes() for one in sorted(events, key=lambda one: one.start_ns()))))


# Compiling.


def compile_s(bench_: Bench) -> Figure:
    """Seconds that torch takes to compile the blocks of the UNet: a first batch, less the same batch once more.

    Once a process and shape: what is drawn after it, also with other networks of this shape, is compiled already.
    """
    draw = drawing(bench_, compile=True)
    return plain_figure("compile_s", [timed(bench_.size, draw) - timed(bench_.size, draw)])


def whole_compile_s(bench_: Bench) -> Figure:
    """The same of the whole UNet and the VAE's decoder (``compile = "whole"``)."""
    draw = drawing(bench_, compile="whole")
    return plain_figure("whole_compile_s", [timed(bench_.size, draw) - timed(bench_.size, draw)])


def whole_over_blocks(bench_: Bench) -> Figure:
    """Seconds of a batch with all compiled whole over those with compiled blocks, in turns after one of each."""
    size, kinds = bench_.size, [drawing(bench_, compile=kind) for kind in ("whole", True)]
    pairs = [[timed(size, draw) for draw in kinds] for _ in range(size.turns + 1)][1:]
    whole_s, blocks_s = zip(*pairs, strict=True)
    return ratio_figure("whole_over_blocks", whole_s, blocks_s, "<=", 1.0)


def drawing(bench_: Bench, **changes: object) -> Callable[[], object]:
    """Drawing the suite's first batch with changed settings, its prompts encoded."""
    settings = msgspec.structs.replace(bench_.suite.settings, **changes)
    pipe, images, encoded = ready(bench_.size, msgspec.structs.replace(bench_.suite, settings=settings))
    return partial(draw_batch, pipe, settings, images, encoded)


EDGES = (issue_over_draw, gap_between_batches_s, vae_peak_4_over_1, vae_sliced_over_batched)
COMPILING = (compile_s, whole_compile_s, whole_over_blocks)
"""In this order, and before all other figures, which find everything compiled."""
