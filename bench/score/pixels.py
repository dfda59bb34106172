"""The pass over the pixels: every metric without a tower, one image at a time.

Imports torch; reached from ``bench.score`` only when there is an image to judge.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.metrics.registry import Inputs, Metric
from bench.records import Render, Score
from bench.score.batch import (
    WORKERS,
    by_row,
    describe,
    judge,
    memory_for,
    read_image,
    result_score,
    stream,
)
from bench.score.decode import ImageFileError
from bench.score.plan import Job

JOURNAL_IMAGES = 16
"""Images that are judged between two appends to the journal."""


def pixel_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], folder: Path, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics without a tower, one image at a time; each image is decoded once.

    The reference's image of a cell comes before those that are compared with it and is held until then.
    """
    held: tuple[Render, torch.Tensor | Exception] | None = None
    scores: list[Score] = []

    def load(item: tuple[Render, Job | None]) -> NDArray[np.uint8]:
        return np.array(read_image(folder, item[0]).convert("RGB"))

    with closing(stream(_with_references(jobs, heads), load, 2 * WORKERS)) as images:
        for count, ((render, job), loaded) in enumerate(images, 1):
            with memory_for("moving an image to the device"):
                pixels = loaded if isinstance(loaded, Exception) else to_pixels(loaded, device)
            if job is None or job.reference is render:
                held = render, pixels
            if job is not None:
                partner = held[1] if held is not None and held[0] is job.reference else None
                scores += [
                    _pixel_score(job, metric, pixels, partner if metric.needs_reference else None, heads[metric])
                    for metric in job.lacking(heads)
                ]
            if count % JOURNAL_IMAGES == 0:
                yield scores
                scores = []
    yield scores


def to_pixels(image: NDArray[np.uint8], device: str) -> torch.Tensor:
    """An 8-bit RGB image (H, W, 3) as (1, 3, H, W) float32 in [0, 1] on the device."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1).unsqueeze(0).float().div(255.0)


def _with_references(jobs: Sequence[Job], metrics: Iterable[Metric]) -> Iterator[tuple[Render, Job | None]]:
    """Every image once; a reference that has no job itself goes before the first image compared with it."""
    given: Render | None = None
    for job in jobs:
        compared = any(metric.needs_reference for metric in job.lacking(metrics))
        if compared and job.reference is not None and job.reference is not given:
            yield job.reference, None
        if compared or job.reference is job.render:
            given = job.reference
        yield job.render, job


def _pixel_score(
    job: Job,
    metric: Metric,
    pixels: torch.Tensor | Exception,
    partner: torch.Tensor | Exception | None,
    head: Any,
) -> Score:
    if isinstance(pixels, Exception):
        return result_score(job, metric, pixels)
    if isinstance(partner, Exception):
        return result_score(job, metric, ImageFileError(f"reference: {describe(partner)}"))
    inputs = Inputs(
        prompts=(job.prompt,),
        pixels=pixels.clone(),  # a metric that works in place must not change what the next one sees
        reference_pixels=None if partner is None else partner.clone(),
        image_embeds=None,
        text_embeds=None,
        logit_scale=1.0,
        head=head,
    )
    return result_score(job, metric, by_row(lambda rows: judge(metric, rows[0]), [inputs], 1)[0])
