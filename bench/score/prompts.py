"""The prompts of a tower's pass: each distinct one embedded once, and which of them the tower cuts.

Imports torch; reached from ``bench.score`` only when there is an image to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bench.metrics.registry import LoadedJointTower, LoadedTower, Metric
from bench.score.batch import by_row, checked_embeds
from bench.score.plan import Job


@dataclass(frozen=True)
class Prompts:
    """What a tower makes of the prompts that its metrics read."""

    texts: Mapping[str, torch.Tensor | Exception]
    """Embedding (d,) of each prompt, or why it has none; empty on a joint tower."""
    cut: Mapping[str, bool | Exception]
    """Whether the tower reads only the beginning of it, or why that cannot be told."""

    def of(self, prompt: str, metric: Metric, joint: bool) -> torch.Tensor | Exception | None:
        """The embedding as the metric gets it, an error, or None where it reads no embedding."""
        if not (joint or metric.needs_text):
            return None
        cut = self.cut[prompt]
        return cut if isinstance(cut, Exception) else None if joint else self.texts[prompt]

    def is_cut(self, prompt: str, metric: Metric, joint: bool) -> bool:
        """Whether the metric judges by a part of the prompt."""
        return (joint or metric.needs_text) and self.cut[prompt] is True


def read_prompts(jobs: Sequence[Job], metrics: Iterable[Metric], tower: LoadedTower | LoadedJointTower) -> Prompts:
    """Every distinct prompt that a metric of the tower reads: embedded, at the tower's batch, and measured."""
    joint = isinstance(tower, LoadedJointTower)
    reading = [metric for metric in metrics if joint or metric.needs_text]
    prompts = list(dict.fromkeys(job.prompt for job in jobs if job.lacking(reading)))
    texts: dict[str, torch.Tensor | Exception] = {}
    if not isinstance(tower, LoadedJointTower):
        for start in range(0, len(prompts), tower.batch):
            batch = prompts[start : start + tower.batch]
            texts |= zip(batch, by_row(partial(_embed_texts, tower), batch, tower.batch), strict=True)
    return Prompts(texts, _cut(tower, prompts))


@torch.inference_mode()
def _embed_texts(tower: LoadedTower, rows: list[str]) -> torch.Tensor:
    return checked_embeds(tower.embed_texts(rows), len(rows))


def _cut(tower: LoadedTower | LoadedJointTower, prompts: Sequence[str]) -> dict[str, bool | Exception]:
    """Whether each prompt is cut; where the tower fails, each is tried alone, so that the others are told."""
    if not prompts:
        return {}
    try:
        return dict(zip(prompts, (bool(cut) for cut in tower.truncated(prompts)), strict=True))
    except Exception as error:
        if len(prompts) == 1:
            return {prompts[0]: error}
        return {prompt: cut for each in prompts for prompt, cut in _cut(tower, [each]).items()}
