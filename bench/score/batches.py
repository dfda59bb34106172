"""Results row by row at one fixed batch shape, and the score that comes of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from bench.errors import MachineError
from bench.machine import is_out_of_memory
from bench.metrics.declare import Inputs, JudgeError, Metric, NoScoreError
from bench.records import Score
from bench.score.images import ImageFileError
from bench.score.plan import Job, make_score

REASON_LENGTH = 300
"""Longest reason in characters; a plug-in's error may hold a whole tensor."""
NORM_TOLERANCE = 1e-3
"""How far from 1 the L2 norm of an encoder's embedding may be; half precision in an encoder stays within."""
Row = TypeVar("Row")


class EmbeddingError(Exception):
    """What an encoder returned is not an embedding, as a sentence."""


def by_row(
    compute: Callable[[list[Row]], torch.Tensor], rows: Sequence[Row], batch: int
) -> list[torch.Tensor | Exception]:
    """One result a row, computed always on exactly ``batch`` rows, so that no row depends on the others.

    At most ``batch`` rows; the last is repeated to fill up. When ``compute`` raises, every row is tried in a
    batch of its own, so that the error stays with the row that causes it.
    """
    if not rows:
        return []
    try:
        with memory_for(f"scoring a batch of {batch}"):
            return list(compute([*rows, *[rows[-1]] * (batch - len(rows))])[: len(rows)])
    except MachineError:
        raise
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [result for row in rows for result in by_row(compute, [row], batch)]


def to_device(rows: Sequence[torch.Tensor], device: str) -> torch.Tensor:
    """Tensors of one shape as a batch on the device; the host does not wait for a copy to an NVIDIA GPU."""
    if not device.startswith("cuda"):
        return torch.stack(list(rows)).to(device)
    # torch keeps the pinned memory until the copy is done, and then gives it to the next batch.
    pinned = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, pin_memory=True)
    return torch.stack(list(rows), out=pinned).to(device, non_blocking=True)


def checked_embeds(embeds: torch.Tensor, n: int) -> torch.Tensor:
    """Refuse what is not (n, d) with unit L2 norm: heads give absurd scores on it, without an error."""
    if embeds.ndim != 2 or len(embeds) != n:
        raise EmbeddingError(f"the encoder gave embeddings of shape {tuple(embeds.shape)}, not ({n}, d)")
    norms = embeds.float().norm(dim=1)
    worst = float(norms[(norms - 1.0).abs().argmax()])
    if not abs(worst - 1.0) <= NORM_TOLERANCE:
        raise EmbeddingError(f"the encoder gave an embedding of L2 norm {worst:.4g}, not 1")
    return embeds.float()


@torch.inference_mode()
def metric_values(metric: Metric, inputs: Inputs) -> torch.Tensor:
    """The metric's values: (n,) float32 on the CPU; raises ValueError when there are not n of them."""
    values = metric.compute(inputs)
    wanted = (len(inputs.prompts),)
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"it returned {type(values).__name__}, not a tensor of shape {wanted}")
    if values.shape != wanted:
        raise ValueError(f"it returned shape {tuple(values.shape)}, not {wanted}")
    return values.float().cpu()


@torch.inference_mode()
def pair_value(metric: Metric, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The metric's value of two samples (1, 3, H, W): (1,), on their device; raises ValueError for another shape."""
    if metric.of_pair is None:
        raise ValueError(f"{metric.facts.name} has no value of a pair")
    value = metric.of_pair(image.clone(), other.clone())  # what it does in place must not reach the next pair
    if value.shape != (1,):
        raise ValueError(f"it returned shape {tuple(value.shape)} of a pair, not (1,)")
    return value


def result_score(job: Job, metric: Metric, result: torch.Tensor | Exception, *, prompt_cut: bool = False) -> Score:
    """The record of a result: a finite value, or a null with the reason.

    A null by the metric's definition is final; any other is tried again by the next ``score``.
    """
    make = partial(
        make_score, job.render, metric, job.reference, prompt_cut=prompt_cut, other_samples=job.other_samples
    )
    if isinstance(result, Exception):
        return make(reason=describe(result), final=isinstance(result, NoScoreError))
    value = float(result)
    if not math.isfinite(value):
        return make(reason=f"{metric.facts.name} gave {value}", final=False)
    return make(value=value)


def describe(error: Exception) -> str:
    """The error in one line; our own ones without the name of their class."""
    message = " ".join(str(error).split())[:REASON_LENGTH]
    own = isinstance(error, NoScoreError | JudgeError | ImageFileError | EmbeddingError)
    return message if own and message else f"{type(error).__name__}: {message}"


@contextmanager
def memory_for(doing: str) -> Iterator[None]:
    """Turn running out of memory into MachineError: no fault of an image, so no null is recorded."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(
            f"Out of memory while {doing}.",
            hint="the same command again continues; --device cpu needs no GPU memory",
        ) from error
