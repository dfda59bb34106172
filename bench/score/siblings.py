"""The pass over the samples of each prompt: metrics that compare them with each other.

Imports torch; reached from ``bench.score`` only when there is an image to judge.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.metrics.registry import Inputs, Metric
from bench.records import Render, Score
from bench.score.batch import by_row, describe, judge, memory_for, read_image, result_score, stream
from bench.score.decode import ImageFileError
from bench.score.pixels import to_pixels
from bench.score.plan import Job

Loaded = Mapping[int, NDArray[np.uint8] | Exception]
"""The images of one prompt and variant by sample, or why one of them could not be read."""


def sibling_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], folder: Path, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics that compare an image with the other samples of its prompt; each is decoded once."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.render.variant, job.render.case), []).append(job)

    def load(group: list[Job]) -> Loaded:
        renders = {render.sample: render for job in group for render in (job.render, *job.siblings)}
        return {sample: _read(folder, render) for sample, render in renders.items()}

    with closing(stream(groups.values(), load, 1)) as loaded:
        for group, images in loaded:
            if isinstance(images, Exception):
                yield [result_score(job, metric, images) for job in group for metric in job.lacking(heads)]
                continue
            with memory_for("moving images to the device"):
                pixels = {
                    sample: image if isinstance(image, Exception) else to_pixels(image, device)
                    for sample, image in images.items()
                }
            yield [_score(job, metric, pixels, heads[metric]) for job in group for metric in job.lacking(heads)]


def _read(folder: Path, render: Render) -> NDArray[np.uint8] | Exception:
    try:
        return np.array(read_image(folder, render).convert("RGB"))
    except Exception as error:  # it is the null's reason, and must not stop the other images
        return error


def _score(job: Job, metric: Metric, pixels: Mapping[int, torch.Tensor | Exception], head: Any) -> Score:
    own = pixels[job.render.sample]
    if isinstance(own, Exception):
        return result_score(job, metric, own)
    others = []
    for sibling in job.siblings:
        other = pixels[sibling.sample]
        if isinstance(other, Exception):
            why = ImageFileError(f"sample {sibling.sample} of the prompt: {describe(other)}")
            return result_score(job, metric, why)
        others.append(other.clone())
    inputs = Inputs(
        prompts=(job.prompt,),
        pixels=own.clone(),  # a metric that works in place must not change what the next one sees
        reference_pixels=None,
        image_embeds=None,
        text_embeds=None,
        logit_scale=1.0,
        head=head,
        sibling_pixels=tuple(others),
    )
    return result_score(job, metric, by_row(lambda rows: judge(metric, rows[0]), [inputs], 1)[0])
