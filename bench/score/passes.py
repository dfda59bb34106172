"""One pass: its weights loaded, its images judged, its memory given back.

Imports torch; reached from ``bench.score`` only when there is an image to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.errors import HotartError, WeightsError
from bench.metrics.registry import Metric, Place, Registry
from bench.records import Score
from bench.score.batch import describe, memory_for
from bench.score.pixels import pixel_pass
from bench.score.plan import Job, Pass
from bench.score.siblings import sibling_pass
from bench.score.towers import tower_pass

Weights = TypeVar("Weights")


def run_pass(
    judging: Pass,
    jobs: Sequence[Job],
    folder: Path,
    place: Place,
    registry: Registry,
    failures: list[WeightsError],
) -> Generator[list[Score], None, None]:
    """The scores of one pass, a batch at a time; its weights are in memory only while it runs.

    Where a metric's head cannot be loaded, that metric is left out; where the tower cannot, all are: the
    error is added to ``failures`` and nothing is recorded, so that the same command scores them later.

    Raises:
        MachineError: memory ran out. What was given out before holds.
    """
    heads: dict[Metric, Any] = {}
    for metric in judging.metrics:
        try:
            heads[metric] = load_head(metric, replace(place, dtype="float32"))
        except WeightsError as error:
            failures.append(error)
    jobs = [job for job in jobs if job.lacking(heads)]
    if not jobs:
        return
    if judging.compares_samples:
        yield from sibling_pass(jobs, heads, folder, place.device)
        return
    if judging.tower is None:
        yield from pixel_pass(jobs, heads, folder, place.device)
        return
    name, there = judging.tower, replace(place, dtype=judging.dtype)
    try:
        tower = _load(f"tower {name!r}", lambda: registry.towers[name].load(there))
    except WeightsError as error:
        failures.append(error)
        return
    yield from tower_pass(jobs, heads, tower, folder, place.device)


def load_head(metric: Metric, place: Place) -> Any:
    """The metric's own weights at the place, or None when it has none; raises WeightsError."""
    load = metric.load_head
    return None if load is None else _load(f"head of metric {metric.facts.name!r}", lambda: load(place))


def _load(what: str, load: Callable[[], Weights]) -> Weights:
    try:
        with memory_for(f"loading the {what}"):
            return load()
    except HotartError:
        raise
    except Exception as error:
        raise WeightsError(f"The {what} cannot be loaded: {describe(error)}.", hint="hotart-bench doctor") from error


@contextmanager
def full_float32() -> Iterator[None]:
    """No TensorFloat-32 meanwhile, which torch uses on NVIDIA GPUs in the convolutions of float32 by default.

    Its 10 bits of mantissa would move the patches of every tower, and the variances of SSIM, which are small
    differences of convolutions. Restored after, since rendering is as fast as torch makes it.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
