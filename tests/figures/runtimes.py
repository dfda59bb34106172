"""``..._over_plain``: what drawing a batch takes with each runtime, over the same model as it is written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from bench.pipeline.switch import load_pipeline
from bench.records import Suite
from bench.render import draw_batch, encode_prompts
from bench.suite import load_suite

from .figure import Figure, plain_figure
from .full_script import one_batch
from .rendering import batches

ON_CPU = ("deepcache:2", "deepcache:3", "torchao-int8", "torchao-int8-weights")
ON_GPU = ("deepcache:3", "compile", "torchao-int8+compile", "torchao-fp8+compile")
REPEATS = 3
Clock = Callable[[Callable[[], Any]], float]
"""Seconds of a call, until the device has done it."""


def figure_runtimes() -> Iterator[Figure]:
    """Processor time of drawing 4 pictures of the embedded family at once, 3 times in turns."""
    suite = load_suite("mini")
    suite = msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=4))
    return runtime_figures(suite, ON_CPU, "cpu", REPEATS, processor_s)


def runtime_figures(suite: Suite, runtimes: Sequence[str], device: str, turns: int, clock: Clock) -> Iterator[Figure]:
    """A figure a runtime: the median of its turns' ratios, from encoded prompts to pixels in host memory.

    The first turn, within which torch compiles, is not counted. Nothing of the plain model is compiled.
    """
    suite = one_batch(msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, compile=False)))
    base = suite.variants[0]
    load = partial(load_pipeline, settings=suite.settings, device=device)
    plain, images = load(base), next(batches(suite))
    encoded = encode_prompts(plain, suite, [images])

    def drawn(pipe: Any) -> float:
        return clock(partial(draw_batch, pipe, suite.settings, images, encoded))

    for runtime in runtimes:
        fast = load(msgspec.structs.replace(base, name="fast", runtime=runtime))
        pairs = [(drawn(fast), drawn(plain)) for _ in range(turns + 1)][1:]
        name = f"{re.sub('[-:+]', '_', runtime)}_over_plain"
        yield plain_figure(name, [one / other for one, other in pairs])


def processor_s(work: Callable[[], Any]) -> float:
    """Processor seconds of all threads, which other programs of the machine change little."""
    start = time.process_time()
    work()
    return time.process_time() - start
