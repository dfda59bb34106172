"""The pass over an encoder: images and prompts embedded once, for all metrics on it.

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

from bench.metrics.registry import Inputs, LoadedEncoder, LoadedRewardModel, Metric
from bench.records import Score
from bench.score.images import WORKERS, EmbeddingError, by_row, checked_embeds, judge, read_image, result_score, stream
from bench.score.plan import Job

# The prompts of an encoder's pass: each distinct one embedded once, and which of them the encoder cuts.


@dataclass(frozen=True)
class Prompts:
    """What an encoder makes of the prompts that its metrics read."""

    texts: Mapping[str, torch.Tensor | Exception]
    """Embedding (d,) of each prompt, or why it has none; empty on a reward models."""
    cut: Mapping[str, bool | Exception]
    """Whether the encoder reads only the beginning of it, or why that cannot be told."""

    def of(self, prompt: str, metric: Metric, joint: bool) -> torch.Tensor | Exception | None:
        """The embedding as the metric gets it, an error, or None where it reads no embedding."""
        if not (joint or metric.needs_text):
            return None
        cut = self.cut[prompt]
        return cut if isinstance(cut, Exception) else None if joint else self.texts[prompt]

    def is_cut(self, prompt: str, metric: Metric, joint: bool) -> bool:
        """Whether the metric judges by a part of the prompt."""
        return (joint or metric.needs_text) and self.cut[prompt] is True


def read_prompts(jobs: Sequence[Job], metrics: Iterable[Metric], encoder: LoadedEncoder | LoadedRewardModel) -> Prompts:
    """Every distinct prompt that a metric of the encoder reads: embedded, at the encoder's batch, and measured."""
    joint = isinstance(encoder, LoadedRewardModel)
    reading = [metric for metric in metrics if joint or metric.needs_text]
    prompts = list(dict.fromkeys(job.prompt for job in jobs if job.lacking(reading)))
    texts: dict[str, torch.Tensor | Exception] = {}
    if not isinstance(encoder, LoadedRewardModel):
        for start in range(0, len(prompts), encoder.batch):
            batch = prompts[start : start + encoder.batch]
            texts |= zip(batch, by_row(partial(_embed_texts, encoder), batch, encoder.batch), strict=True)
    return Prompts(texts, _cut(encoder, prompts))


@torch.inference_mode()
def _embed_texts(encoder: LoadedEncoder, rows: list[str]) -> torch.Tensor:
    return checked_embeds(encoder.embed_texts(rows), len(rows))


def _cut(encoder: LoadedEncoder | LoadedRewardModel, prompts: Sequence[str]) -> dict[str, bool | Exception]:
    """Whether each prompt is cut; where the encoder fails, each is tried alone, so that the others are told."""
    if not prompts:
        return {}
    try:
        return dict(zip(prompts, (bool(cut) for cut in encoder.truncated(prompts)), strict=True))
    except Exception as error:
        if len(prompts) == 1:
            return {prompts[0]: error}
        return {prompt: cut for each in prompts for prompt, cut in _cut(encoder, [each]).items()}


# The pass over an encoder: images and prompts embedded once, for all metrics on it.


@dataclass(frozen=True)
class Views:
    """An image as an encoder's metrics see it: its distinct preprocessed pixels, and which of them a view is."""

    pixels: tuple[torch.Tensor, ...]
    place: Mapping[str, int | Exception]
    """Where in ``pixels`` the view stands, or why it could not be made."""


@dataclass(frozen=True)
class Judged:
    """One image as a metric of the encoder sees it: its embedding (d,) or joint value (), and its prompt's."""

    job: Job
    image: torch.Tensor
    text: torch.Tensor | None


def encoder_pass(
    jobs: Sequence[Job],
    heads: Mapping[Metric, Any],
    encoder: LoadedEncoder | LoadedRewardModel,
    folder: Path,
    device: str,
) -> Generator[list[Score], None, None]:
    """Scores of the metrics on one encoder, a batch at a time.

    Each image is decoded once, preprocessed once a view and put through the encoder once for all views that
    give the same pixels; each distinct prompt is embedded once.
    """
    prompts = read_prompts(jobs, heads, encoder)

    def load(job: Job) -> Views:
        return _views(job, heads, encoder, folder)

    with closing(stream(jobs, load, encoder.batch + WORKERS)) as images:
        while batch := list(islice(images, encoder.batch)):
            seen = _forward_batch(encoder, device, batch)
            yield [
                score
                for metric, head in heads.items()
                for score in _encoder_scores(metric, head, encoder, _of_view(metric, seen), prompts)
            ]


def _views(job: Job, metrics: Iterable[Metric], encoder: LoadedEncoder | LoadedRewardModel, folder: Path) -> Views:
    """The image's pixels in each view that its metrics ask for; one view that fails leaves the others."""
    image = read_image(folder, job.render)
    pixels: list[torch.Tensor] = []
    place: dict[str, int | Exception] = {}
    for view in dict.fromkeys(metric.view for metric in job.lacking(metrics)):
        try:
            row = encoder.preprocess(image, view)
        except Exception as error:
            place[view] = error
            continue
        place[view] = next((at for at, known in enumerate(pixels) if torch.equal(known, row)), len(pixels))
        if place[view] == len(pixels):
            pixels.append(row)
    return Views(tuple(pixels), place)


def _forward_batch(
    encoder: LoadedEncoder | LoadedRewardModel, device: str, batch: Sequence[tuple[Job, Views | Exception]]
) -> list[tuple[Job, Mapping[str, torch.Tensor | Exception] | Exception]]:
    """What the encoder makes of each view of a batch of images; what could not be loaded is handed on as it is."""
    rows = [(row, job.prompt) for job, views in batch if isinstance(views, Views) for row in views.pixels]
    run = partial(_forward, encoder, device)
    results: list[torch.Tensor | Exception] = []
    for start in range(0, len(rows), encoder.batch):
        results += by_row(run, rows[start : start + encoder.batch], encoder.batch)
    left = iter(results)
    seen: list[tuple[Job, Mapping[str, torch.Tensor | Exception] | Exception]] = []
    for job, views in batch:
        if isinstance(views, Exception):
            seen.append((job, views))
            continue
        own = list(islice(left, len(views.pixels)))
        seen.append((job, {view: at if isinstance(at, Exception) else own[at] for view, at in views.place.items()}))
    return seen


def _of_view(
    metric: Metric, seen: Sequence[tuple[Job, Mapping[str, torch.Tensor | Exception] | Exception]]
) -> list[tuple[Job, torch.Tensor | Exception]]:
    """The images that the metric still has to judge, in its view."""
    wanted = [(job, views) for job, views in seen if metric in job.metrics]
    return [(job, views if isinstance(views, Exception) else views[metric.view]) for job, views in wanted]


@torch.inference_mode()
def _forward(
    encoder: LoadedEncoder | LoadedRewardModel, device: str, rows: list[tuple[torch.Tensor, str]]
) -> torch.Tensor:
    """Embeddings (n, d), or the values (n,) of a reward models, of n preprocessed images with their prompts."""
    pixels = torch.stack([row for row, _ in rows]).to(device)
    if not isinstance(encoder, LoadedRewardModel):
        return checked_embeds(encoder.embed_images(pixels), len(rows))
    values = encoder.score(pixels, [prompt for _, prompt in rows])
    if values.shape != (len(rows),):
        raise EmbeddingError(f"the encoder gave values of shape {tuple(values.shape)}, not ({len(rows)},)")
    return values.float()


def _encoder_scores(
    metric: Metric,
    head: Any,
    encoder: LoadedEncoder | LoadedRewardModel,
    seen: Sequence[tuple[Job, torch.Tensor | Exception]],
    prompts: Prompts,
) -> list[Score]:
    """One metric's scores of a batch of images that the encoder has seen."""
    joint = isinstance(encoder, LoadedRewardModel)
    scores: list[Score] = []
    rows: list[Judged] = []
    for job, image in seen:
        prompt = prompts.of(job.prompt, metric, joint)
        if isinstance(image, Exception):
            scores.append(result_score(job, metric, image))
        elif isinstance(prompt, Exception):
            scores.append(result_score(job, metric, prompt))
        else:
            rows.append(Judged(job, image, prompt))
    scale = 1.0 if isinstance(encoder, LoadedRewardModel) else encoder.logit_scale
    results = by_row(partial(_judge_rows, metric, head, scale, joint), rows, encoder.batch)
    return scores + [
        result_score(row.job, metric, result, prompt_cut=prompts.is_cut(row.job.prompt, metric, joint))
        for row, result in zip(rows, results, strict=True)
    ]


def _judge_rows(metric: Metric, head: Any, logit_scale: float, joint: bool, rows: list[Judged]) -> torch.Tensor:
    texts = [row.text for row in rows if row.text is not None]
    images = torch.stack([row.image for row in rows])
    return judge(
        metric,
        Inputs(
            prompts=tuple(row.job.prompt for row in rows),
            pixels=images.new_empty((0, 3, 0, 0)),
            reference_pixels=None,
            image_embeds=None if joint else images,
            text_embeds=torch.stack(texts) if texts else None,
            logit_scale=logit_scale,
            head=head,
            joint=images if joint else None,
        ),
    )
