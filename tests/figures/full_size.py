"""The figures of a full-size run on a GPU, in one process: random weights of the shapes of SDXL and of the metrics.

    python -m tests.figures.full_size

prints one JSON object a line; on a machine without CUDA it says so and does nothing. One that fails is a line that says
why, and the others are computed all the same; then it ends with 1. The same code runs at the sizes of ``TINY`` on a
CPU, which is how it is tested.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec
import torch

import bench.render
from bench.pipeline.switch import load_pipeline, switch_variant
from bench.records import Variant
from bench.render.encodings import Encodings
from bench.store import RunFolder
from bench.suite import protocol_digest

from .card_edges import COMPILING, EDGES
from .card_memory import CARDS, peak_figure
from .figure import FailedFigure, Figure, figure_of, ratio_figure
from .full_bench import FULL, Bench, Size, device_name, nothing_compiled, set_up, suite_of, timed
from .full_scoring import score_over_encoders
from .full_script import one_batch, script_over_render, script_same_batch_over_render
from .rendering import batches, denoise_and_decode, prepare
from .runtimes import ON_GPU, runtime_figures
from .steps import range_figure
from .switching import figure_switch

Given = TypeVar("Given")


def main() -> None:
    """Print every figure as it is known.

    Raises:
        SystemExit: with 1, after the last one, where any failed.
    """
    if not torch.cuda.is_available():
        sys.stdout.write("There is no CUDA device here: the figures of a full-size run were not computed.\n")
        return
    lost = False
    # Those of memory come first, since the metrics' encoders are in memory for the others.
    cards = chain.from_iterable(attempt(name, partial(one, partial(peak_figure, name), FULL)) for name in CARDS)
    rest = (
        attempt("full_size", partial(figures, FULL)),
        attempt("runtimes", partial(of_runtimes, FULL)),
        attempt("reload_over_switch", figure_switch),
    )
    for found in chain(cards, *rest):
        lost = lost or isinstance(found, FailedFigure)
        sys.stdout.write(found.line() + "\n")
        sys.stdout.flush()
    if lost:
        raise SystemExit(1)


def figures(size: Size) -> Iterator[Figure | FailedFigure]:
    """The figures of one size, one after another."""
    with tempfile.TemporaryDirectory() as place, set_up(size, Path(place)) as bench_:
        yield from figures_of(bench_)


def figures_of(bench_: Bench) -> Iterator[Figure | FailedFigure]:
    """The figures of what was set up."""
    compiling = COMPILING if bench_.size.compile else ()
    scripts = (script_same_batch_over_render, script_over_render)
    for figure in (*compiling, render_over_floor, *EDGES, switch, range_over_plain, score_over_encoders, *scripts):
        for found in attempt(figure.__name__, partial(one, figure, bench_)):
            yield msgspec.structs.replace(found, where=device_name(bench_.size.device))


def of_runtimes(size: Size) -> Iterator[Figure | FailedFigure]:
    """What each runtime takes over the same model as it is written, with a batch of the base variant."""
    with tempfile.TemporaryDirectory() as place, nothing_compiled(Path(place)):
        suite = suite_of(size, Path(place))
        for runtime in ON_GPU:
            compute = partial(runtime_figures, suite, (runtime,), size.device, size.turns, partial(timed, size))
            for found in attempt(runtime, compute):
                yield msgspec.structs.replace(found, where=device_name(size.device))


def one(figure: Callable[[Given], Figure], given: Given) -> tuple[Figure]:
    """A figure alone, as ``attempt`` takes them."""
    return (figure(given),)


def attempt(name: str, compute: Callable[[], Iterable[Figure | FailedFigure]]) -> Iterator[Figure | FailedFigure]:
    """What is computed, and after an error its message; the device's memory is free after it."""
    try:
        yield from compute()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        yield FailedFigure(figure=name, error=" ".join(f"{type(error).__name__}: {error}".split()))
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def render_over_floor(bench_: Bench) -> Figure:
    """Wall of drawing the base variant, prompts encoded and PNGs and journals written, over the bare loop.

    The floor holds the UNet's steps with guidance, the scheduler and the VAE's decoding of the same batches; its
    text embeddings and noise lie ready. Both draw with one pipeline, compiled where the size is. Loading is on neither
    side. In turns, after one of each that is not counted.
    """
    size, suite = bench_.size, bench_.suite
    pipe = load_pipeline(suite.variants[0], suite.settings, device=size.device)
    ready = [prepare(pipe, suite, images, size.device) for images in batches(suite)]

    def drawn(number: int) -> None:
        place = bench_.place / f"floor-{number}"
        with RunFolder.open(place, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
            planned = list(batches(suite))
            for _ in bench.render.render_batches(pipe, suite, "base", planned, folder, Encodings(suite)):
                pass

    def bare() -> None:
        for inputs in ready:
            denoise_and_decode(pipe, suite, **inputs)

    pairs = [(timed(size, partial(drawn, turn)), timed(size, bare)) for turn in range(size.turns + 1)][1:]
    render_s, floor_s = zip(*pairs, strict=True)
    return ratio_figure("render_over_floor", render_s, floor_s, "<=", 1.05)


def switch(bench_: Bench) -> Figure:
    """Seconds of turning the loaded model from one variant with a LoRA into the other, the LoRA's file read anew."""
    size, suite = bench_.size, bench_.suite
    model, _ = switch_variant(None, suite.variants[1], suite.settings, device=size.device, weights_dir=None)

    def turn(variant: Variant) -> None:
        switch_variant(model, variant, suite.settings, device=size.device, weights_dir=None)

    others = [suite.variants[2 - number % 2] for number in range(2 * size.turns)]
    return figure_of("switch_s", [timed(size, partial(turn, variant)) for variant in others], "<=", 0.5)


def range_over_plain(bench_: Bench) -> Figure:
    """Denoising a batch whose LoRA is taken away after two fifths of the steps, over the same LoRA in all of them.

    Both models are on the device, fused, warm, and compiled where the size is.
    """
    size, suite = bench_.size, one_batch(bench_.suite)
    return range_figure(suite, suite.variants[1], size.device, size.turns, 1.02, partial(timed, size))


if __name__ == "__main__":
    main()
