"""Metrics at a step: what each metric makes of a batch's predicted images, or of its noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.metrics.declare import Inputs, LoadedEncoder, LoadedRewardModel, LoadedStepMetric, Metric, Place, StepMetric
from bench.metrics.registry import Registry
from bench.records import MetricFacts
from bench.score.batches import by_row, describe, metric_values
from bench.score.encoder_pass import compute, cut_prompts, embed_texts, forward, reads_text
from bench.steps.plan import step_metrics_of

KEPT_PROMPTS = 64
"""What an encoder made of so many prompts is kept: those of a batch are asked for at each of its steps."""


class StepBatch(NamedTuple):
    """What is scored of one step of a batch of n images."""

    prompts: tuple[str, ...]
    timestep: float
    latents: Tensor
    """x_t of the variance-preserving process, float32 (n, c, h, w)."""
    decoded: Tensor
    """The predicted images, float32 (n, 3, height, width), about [-1, 1], not clamped."""
    levels: NDArray[np.uint8]
    """The same as a PNG would hold them, (n, height, width, 3)."""


class StepValue(NamedTuple):
    """A metric's value for one image of a batch, or why there is none."""

    facts: MetricFacts
    row: int
    value: float | None
    reason: str | None
    prompt_cut: bool


class Scorer(Protocol):
    """Loaded metrics that read a batch together."""

    def __call__(self, batch: StepBatch) -> list[StepValue]:
        """The values of every image of the batch."""


def open_scorers(
    names: Sequence[str], *, registry: Registry, place: Place, family: str, dtypes: Mapping[str, str] | None = None
) -> tuple[Scorer, ...]:
    """Load the metrics and step metrics named; metrics on one encoder share it.

    Raises:
        UsageError: a name that is neither, one that compares images with each other, or one that was made for
            another family of checkpoints.
        WeightsError, MachineError: weights cannot be loaded.
    """
    metrics = step_metrics_of(names, registry, family)
    groups: dict[str, list[Metric]] = {}
    scorers: list[Scorer] = []
    for metric in metrics:
        if isinstance(metric, StepMetric):
            scorers.append(StepScorer(metric, metric.load(place)))
        elif metric.facts.encoder is None:
            scorers.append(PixelScorer(metric, None if metric.load_head is None else metric.load_head(place)))
        else:
            groups.setdefault(metric.facts.encoder, []).append(metric)
    for encoder, own in groups.items():
        heads = {metric: None if metric.load_head is None else metric.load_head(place) for metric in own}
        scorers.append(EncoderScorer(heads, registry.encoders[encoder].load(place), place.device))
    return tuple(scorers)


class StepScorer:
    """A step metric in memory."""

    def __init__(self, metric: StepMetric, model: LoadedStepMetric) -> None:
        self._metric, self._model = metric, model
        self._cut = lru_cache(KEPT_PROMPTS)(lambda prompt: bool(model.truncated([prompt])[0]))

    def __call__(self, batch: StepBatch) -> list[StepValue]:
        """exp(logit_scale) x cosine or whatever the model gives, each row at one fixed batch shape."""
        seen = batch.decoded if self._metric.reads == "picture" else batch.latents

        def score(rows: list[int]) -> Tensor:
            times = torch.full((len(rows),), batch.timestep, dtype=torch.float32, device=seen.device)
            return self._model.score(seen[rows], times, [batch.prompts[row] for row in rows])

        results = _by_row(score, list(range(len(batch.prompts))), self._model.batch)
        return [
            _value(self._metric.facts, row, result, self._cut(batch.prompts[row])) for row, result in enumerate(results)
        ]


class PixelScorer:
    """A metric that reads pixels, in memory."""

    def __init__(self, metric: Metric, head: Any) -> None:
        self._metric, self._head = metric, head

    def __call__(self, batch: StepBatch) -> list[StepValue]:
        """One image at a time, as ``score`` does."""
        pictures = torch.from_numpy(batch.levels).permute(0, 3, 1, 2).to(batch.decoded.device).float() / 255

        def score(rows: list[int]) -> Tensor:
            inputs = Inputs(prompts=(batch.prompts[rows[0]],), pixels=pictures[rows], head=self._head)
            return metric_values(self._metric, inputs)

        results = [result for row in range(len(pictures)) for result in by_row(score, [row], 1)]
        return [_value(self._metric.facts, row, result, False) for row, result in enumerate(results)]


class EncoderScorer:
    """Metrics on one encoder, in memory."""

    def __init__(self, heads: Mapping[Metric, Any], encoder: LoadedEncoder | LoadedRewardModel, device: str) -> None:
        self._heads, self._encoder, self._device = heads, encoder, device
        self._text = lru_cache(KEPT_PROMPTS)(lambda prompt: embed_texts(encoder, [prompt]).get(prompt))
        self._cut = lru_cache(KEPT_PROMPTS)(lambda prompt: cut_prompts(encoder, [prompt])[prompt])

    def __call__(self, batch: StepBatch) -> list[StepValue]:
        """Each image once through the encoder for each preprocessing, at the encoder's batch."""
        pictures = [Image.fromarray(levels) for levels in batch.levels]
        seen: dict[str, list[Tensor | Exception]] = {}
        values: list[StepValue] = []
        for metric, head in self._heads.items():
            if metric.preprocessing not in seen:
                seen[metric.preprocessing] = self._embed(pictures, batch.prompts, metric.preprocessing)
            values += self._values(metric, head, seen[metric.preprocessing], batch.prompts)
        return values

    def _embed(self, pictures: list[Image.Image], prompts: Sequence[str], name: str) -> list[Tensor | Exception]:
        rows: list[tuple[Tensor, str]] = []
        for picture, prompt in zip(pictures, prompts, strict=True):
            rows.append((self._encoder.preprocess(picture, name), prompt))
        return _by_row(partial(forward, self._encoder, self._device), rows, self._encoder.batch)

    def _values(
        self, metric: Metric, head: Any, images: Sequence[Tensor | Exception], prompts: Sequence[str]
    ) -> list[StepValue]:
        reading = reads_text(metric, self._encoder)
        rows: list[tuple[str, Tensor, Tensor | None]] = []
        kept: list[int] = []
        values: list[StepValue] = []
        for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            text = self._text(prompt) if metric.needs_text else None
            cut = self._cut(prompt) if reading else False
            if faults := [part for part in (image, text, cut) if isinstance(part, Exception)]:
                values.append(_value(metric.facts, number, faults[0], False))
            elif isinstance(image, Tensor) and not isinstance(text, Exception):
                rows.append((prompt, image, text))
                kept.append(number)
        results = _by_row(partial(compute, metric, head, self._encoder), rows, self._encoder.batch)
        return values + [
            _value(metric.facts, number, result, reading and self._cut(prompts[number]) is True)
            for number, result in zip(kept, results, strict=True)
        ]


def _by_row(score: Callable[[list[Any]], Tensor], rows: Sequence[Any], batch: int) -> list[Tensor | Exception]:
    results: list[Tensor | Exception] = []
    for start in range(0, len(rows), batch):
        results += by_row(score, rows[start : start + batch], batch)
    return results


def _value(facts: MetricFacts, row: int, result: Tensor | Exception, cut: bool) -> StepValue:
    if isinstance(result, Exception):
        return StepValue(facts, row, None, describe(result), cut)
    value = float(result)
    if not np.isfinite(value):
        return StepValue(facts, row, None, f"{facts.name} gave {value}", cut)
    return StepValue(facts, row, value, None, cut)
