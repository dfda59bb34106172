"""The pass over an encoder: images and prompts embedded once, for all metrics on it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from bench.faces.boxes import crop_of, largest
from bench.metrics.declare import Inputs, LoadedEncoder, LoadedRewardModel, Metric, Scored, SetMetric
from bench.records import Score, SetScore
from bench.score.batches import EmbeddingError, by_row, checked_embeds, metric_values, result_score, to_device
from bench.score.decoded import DecodedPictures
from bench.score.images import WORKERS, stream
from bench.score.plan import Job, SetJob, faces_of, looks_at_faces
from bench.score.sets import set_scores

Row = torch.Tensor | Exception
"""What was made of an image or a prompt, or why nothing could be made."""
Preprocessed = Mapping[tuple[str, bool], Row]
"""An image's pixels by the name of the preprocessing and whether it is a face's crop; equal pixels are one tensor."""


def encoder_pass(
    jobs: Sequence[Job],
    heads: Mapping[Metric, Any],
    sets: Sequence[SetJob],
    encoder: LoadedEncoder | LoadedRewardModel,
    pictures: DecodedPictures,
    device: str,
) -> Generator[list[Score] | list[SetScore], None, None]:
    """Scores of the metrics on one encoder, a batch at a time, then those of the sets.

    Each image is preprocessed once in each preprocessing that its metrics name, and put through the
    encoder once for all of these that give the same pixels; each distinct prompt is embedded once. Embeddings of images
    in a set are kept until the sets are scored, 3 kB each.
    """
    set_metrics = list(dict.fromkeys(one.metric for one in sets))
    kept: dict[tuple[str, tuple[str, str, int]], NDArray[np.float32] | Exception] = {}
    reading = [metric for metric in heads if reads_text(metric, encoder)]
    prompts = list(dict.fromkeys(job.prompt for job in jobs if job.lacking(reading)))

    def load(job: Job) -> Preprocessed:
        return _preprocessed(job, (*heads, *set_metrics), encoder, pictures)

    def pixels(job: Job) -> int:
        return pictures.pixels(job.render)

    with closing(stream(jobs, load, encoder.batch + WORKERS, pixels)) as loading:
        first = list(islice(loading, 1))  # the threads go on with the others while prompts are embedded
        texts, cut = embed_texts(encoder, prompts), cut_prompts(encoder, prompts)
        images = chain(first, loading)
        while batch := list(islice(images, encoder.batch)):
            seen = _forward_batch(encoder, device, batch)
            yield [
                score
                for metric, head in heads.items()
                for score in _metric_scores(metric, head, encoder, seen, texts, cut)
            ]
            kept |= _embeddings(seen, set_metrics, encoder)
    yield from set_scores(sets, kept)


def reads_text(metric: Metric, encoder: LoadedEncoder | LoadedRewardModel) -> bool:
    """Whether a metric on an encoder reads the prompt."""
    return metric.needs_text or isinstance(encoder, LoadedRewardModel)


def embed_texts(encoder: LoadedEncoder | LoadedRewardModel, prompts: Sequence[str]) -> dict[str, Row]:
    """Each prompt's embedding (d,), at the encoder's batch; empty on a reward model."""
    texts: dict[str, Row] = {}
    if not isinstance(encoder, LoadedRewardModel):
        for start in range(0, len(prompts), encoder.batch):
            batch = prompts[start : start + encoder.batch]
            texts |= zip(batch, by_row(partial(_embed_texts, encoder), batch, encoder.batch), strict=True)
    return texts


@torch.inference_mode()
def _embed_texts(encoder: LoadedEncoder, rows: list[str]) -> torch.Tensor:
    return checked_embeds(encoder.embed_texts(rows), len(rows))


def cut_prompts(encoder: LoadedEncoder | LoadedRewardModel, prompts: Sequence[str]) -> dict[str, bool | Exception]:
    """Whether the encoder reads only the beginning of each prompt.

    Where the encoder fails, each prompt is tried alone, so that the error stays with the one that causes it.
    """
    if not prompts:
        return {}
    try:
        return dict(zip(prompts, (bool(cut) for cut in encoder.truncated(prompts)), strict=True))
    except Exception as error:
        if len(prompts) == 1:
            return {prompts[0]: error}
        return {prompt: cut for each in prompts for prompt, cut in cut_prompts(encoder, [each]).items()}


def _preprocessed(
    job: Job, metrics: Iterable[Scored], encoder: LoadedEncoder | LoadedRewardModel, pictures: DecodedPictures
) -> Preprocessed:
    """The image in each preprocessing that its metrics name; one that fails leaves the others."""
    image = pictures.read(job.render)
    made: dict[tuple[str, bool], Row] = {}
    for name, of_face in dict.fromkeys(_view(metric) for metric in job.lacking(metrics)):
        try:
            pixels = encoder.preprocess(_face_crop(image, job) if of_face else image, name)
        except Exception as error:
            made[name, of_face] = error
            continue
        known = (other for other in made.values() if isinstance(other, torch.Tensor) and torch.equal(other, pixels))
        made[name, of_face] = next(known, pixels)
    return made


def _view(metric: Scored) -> tuple[str, bool]:
    return metric.preprocessing, looks_at_faces(metric)


def _face_crop(image: Image, job: Job) -> Image:
    """The largest face of an image, in RGB."""
    found = faces_of(job)
    if isinstance(found, Exception):
        raise found
    return image.convert("RGB").crop(crop_of(largest(found.faces), image.width, image.height))


def _forward_batch(
    encoder: LoadedEncoder | LoadedRewardModel, device: str, batch: Sequence[tuple[Job, Preprocessed | Exception]]
) -> list[tuple[Job, Preprocessed | Exception]]:
    """What the encoder makes of a batch of images, by preprocessing: embeddings (d,), or values () of a reward model.

    What could not be loaded is handed on as it is.
    """
    rows = {
        (number, id(pixels)): (pixels, job.prompt)
        for number, (job, made) in enumerate(batch)
        if not isinstance(made, Exception)
        for pixels in made.values()
        if isinstance(pixels, torch.Tensor)
    }
    distinct, results = list(rows.values()), list[Row]()
    for start in range(0, len(rows), encoder.batch):
        part = distinct[start : start + encoder.batch]
        results += by_row(partial(forward, encoder, device), part, encoder.batch)
    outputs = dict(zip(rows, results, strict=True))
    seen: list[tuple[Job, Preprocessed | Exception]] = []
    for number, (job, made) in enumerate(batch):
        if not isinstance(made, Exception):
            made = {name: outputs.get((number, id(pixels)), pixels) for name, pixels in made.items()}
        seen.append((job, made))
    return seen


@torch.inference_mode()
def forward(
    encoder: LoadedEncoder | LoadedRewardModel, device: str, rows: list[tuple[torch.Tensor, str]]
) -> torch.Tensor:
    """Embeddings (n, d), or the values (n,) of a reward model, of n preprocessed images with their prompts."""
    pixels = to_device([row for row, _ in rows], device)
    if not isinstance(encoder, LoadedRewardModel):
        return checked_embeds(encoder.embed_images(pixels), len(rows))
    values = encoder.score(pixels, [prompt for _, prompt in rows])
    if values.shape != (len(rows),):
        raise EmbeddingError(f"the encoder gave values of shape {tuple(values.shape)}, not ({len(rows)},)")
    return values.float()


def _embeddings(
    seen: Sequence[tuple[Job, Preprocessed | Exception]],
    metrics: Sequence[SetMetric],
    encoder: LoadedEncoder | LoadedRewardModel,
) -> dict[tuple[str, tuple[str, str, int]], NDArray[np.float32] | Exception]:
    """What is kept of a batch for set metrics: embeddings on the CPU, by preprocessing and image."""
    found: dict[tuple[str, tuple[str, str, int]], NDArray[np.float32] | Exception] = {}
    for job, made in seen:
        render = job.render
        for metric in job.lacking(metrics):
            row: Row = made if isinstance(made, Exception) else made[_view(metric)]
            if isinstance(encoder, LoadedRewardModel) and isinstance(row, torch.Tensor):
                row = EmbeddingError("the encoder reads images and prompts together and gives no embeddings")
            key = (metric.preprocessing, (render.variant, render.prompt_id, render.sample))
            found[key] = row if isinstance(row, Exception) else row.float().cpu().numpy()
    return found


def _metric_scores(
    metric: Metric,
    head: Any,
    encoder: LoadedEncoder | LoadedRewardModel,
    seen: Sequence[tuple[Job, Preprocessed | Exception]],
    texts: Mapping[str, Row],
    cut: Mapping[str, bool | Exception],
) -> list[Score]:
    """One metric's scores of a batch of images that the encoder has seen."""
    reading = reads_text(metric, encoder)
    scores: list[Score] = []
    kept: list[Job] = []
    rows: list[tuple[str, torch.Tensor, torch.Tensor | None]] = []
    for job, made in seen:
        if metric not in job.metrics:
            continue
        image = made if isinstance(made, Exception) else made[_view(metric)]
        text = texts.get(job.prompt) if metric.needs_text else None
        parts = (image, cut[job.prompt] if reading else None, text)
        if faults := [part for part in parts if isinstance(part, Exception)]:
            scores.append(result_score(job, metric, faults[0]))
        elif isinstance(image, torch.Tensor) and not isinstance(text, Exception):
            kept.append(job)
            rows.append((job.prompt, image, text))
    results = by_row(partial(compute, metric, head, encoder), rows, encoder.batch)
    return scores + [
        result_score(job, metric, result, prompt_cut=reading and cut[job.prompt] is True)
        for job, result in zip(kept, results, strict=True)
    ]


def compute(
    metric: Metric,
    head: Any,
    encoder: LoadedEncoder | LoadedRewardModel,
    rows: list[tuple[str, torch.Tensor, torch.Tensor | None]],
) -> torch.Tensor:
    """The metric's values (n,) of n rows: prompt, the image's embedding or reward, the prompt's embedding."""
    images = torch.stack([image for _, image, _ in rows])
    texts = [text for _, _, text in rows if text is not None]
    is_reward = isinstance(encoder, LoadedRewardModel)
    inputs = Inputs(
        prompts=tuple(prompt for prompt, _, _ in rows),
        pixels=images.new_empty((0, 3, 0, 0)),
        image_embeds=None if is_reward else images,
        text_embeds=torch.stack(texts) if texts else None,
        logit_scale=1.0 if isinstance(encoder, LoadedRewardModel) else encoder.logit_scale,
        head=head,
        reward=images if is_reward else None,
    )
    return metric_values(metric, inputs)
