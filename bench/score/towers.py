"""The pass over a tower: images and prompts embedded once, for all metrics on it.

Imports torch; reached from ``bench.score`` only when there is an image to judge.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from bench.metrics.registry import Inputs, LoadedTower, Metric
from bench.records import Score
from bench.score.batch import WORKERS, EmbeddingError, by_row, judge, read_image, result_score, stream
from bench.score.plan import Job

NORM_TOLERANCE = 1e-3
"""How far from 1 the L2 norm of a tower's embedding may be; half precision in a tower stays within."""


@dataclass(frozen=True)
class Embedded:
    """One image as the metrics of a tower see it."""

    job: Job
    image: torch.Tensor
    text: torch.Tensor | None


def tower_pass(
    jobs: Sequence[Job],
    heads: Mapping[Metric, Any],
    tower: LoadedTower,
    folder: Path,
    device: str,
) -> Generator[list[Score], None, None]:
    """Scores of the metrics on one tower, a batch at a time.

    Each image is decoded, preprocessed and embedded once, each distinct prompt embedded once.
    """
    texts = embed_prompts(jobs, heads, tower)

    def load(job: Job) -> torch.Tensor:
        return tower.preprocess(read_image(folder, job.render))

    with closing(stream(jobs, load, tower.batch + WORKERS)) as images:
        while batch := list(islice(images, tower.batch)):
            embedded = _embed_batch(tower, device, batch)
            yield [
                score for metric, head in heads.items() for score in _tower_scores(metric, head, tower, embedded, texts)
            ]


def _embed_batch(
    tower: LoadedTower, device: str, batch: Sequence[tuple[Job, torch.Tensor | Exception]]
) -> list[tuple[Job, torch.Tensor | Exception]]:
    """The embeddings of a batch of preprocessed images; what could not be loaded is handed on as it is."""
    loaded = [row for _, row in batch if isinstance(row, torch.Tensor)]
    embeds = iter(by_row(partial(_embed_images, tower, device), loaded, tower.batch))
    return [(job, row if isinstance(row, Exception) else next(embeds)) for job, row in batch]


def embed_prompts(
    jobs: Sequence[Job], metrics: Iterable[Metric], tower: LoadedTower
) -> dict[str, torch.Tensor | Exception]:
    """The embedding of each distinct prompt that a metric of the tower reads, or why it has none."""
    reading = [metric for metric in metrics if metric.needs_text]
    prompts = iter(dict.fromkeys(job.prompt for job in jobs if job.lacking(reading)))
    texts: dict[str, torch.Tensor | Exception] = {}
    while batch := list(islice(prompts, tower.batch)):
        texts |= zip(batch, by_row(partial(_embed_texts, tower), batch, tower.batch), strict=True)
    return texts


@torch.inference_mode()
def _embed_images(tower: LoadedTower, device: str, rows: list[torch.Tensor]) -> torch.Tensor:
    return _checked(tower.embed_images(torch.stack(rows).to(device)), len(rows))


@torch.inference_mode()
def _embed_texts(tower: LoadedTower, rows: list[str]) -> torch.Tensor:
    return _checked(tower.embed_texts(rows), len(rows))


def _checked(embeds: torch.Tensor, n: int) -> torch.Tensor:
    """Refuse what is not (n, d) with unit L2 norm: heads give absurd scores on it, without an error."""
    if embeds.ndim != 2 or len(embeds) != n:
        raise EmbeddingError(f"the tower gave embeddings of shape {tuple(embeds.shape)}, not ({n}, d)")
    norms = embeds.float().norm(dim=1)
    worst = float(norms[(norms - 1.0).abs().argmax()])
    if not abs(worst - 1.0) <= NORM_TOLERANCE:
        raise EmbeddingError(f"the tower gave an embedding of L2 norm {worst:.4g}, not 1")
    return embeds.float()


def _tower_scores(
    metric: Metric,
    head: Any,
    tower: LoadedTower,
    embedded: Sequence[tuple[Job, torch.Tensor | Exception]],
    texts: Mapping[str, torch.Tensor | Exception],
) -> list[Score]:
    """One metric's scores of a batch of embedded images, as far as they lack them."""
    scores: list[Score] = []
    rows: list[Embedded] = []
    for job, image in embedded:
        if metric not in job.metrics:
            continue
        text = texts[job.prompt] if metric.needs_text else None
        if isinstance(image, Exception):
            scores.append(result_score(job, metric, image))
        elif isinstance(text, Exception):
            scores.append(result_score(job, metric, text))
        else:
            rows.append(Embedded(job, image, text))
    results = by_row(partial(_judge_embedded, metric, head, tower.logit_scale), rows, tower.batch)
    return scores + [result_score(row.job, metric, result) for row, result in zip(rows, results, strict=True)]


def _judge_embedded(metric: Metric, head: Any, logit_scale: float, rows: list[Embedded]) -> torch.Tensor:
    texts = [row.text for row in rows if row.text is not None]
    return judge(
        metric,
        Inputs(
            prompts=tuple(row.job.prompt for row in rows),
            pixels=rows[0].image.new_empty((0, 3, 0, 0)),
            reference_pixels=None,
            image_embeds=torch.stack([row.image for row in rows]),
            text_embeds=torch.stack(texts) if texts else None,
            logit_scale=logit_scale,
            head=head,
        ),
    )
