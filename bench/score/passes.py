"""One pass over the images: its weights loaded, every metric of it computed, its memory given back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.errors import HotartError, WeightsError
from bench.metrics.registry import Inputs, Metric, Place, Registry
from bench.records import Render, Score
from bench.score.encoder_pass import encoder_pass
from bench.score.images import (
    WORKERS,
    ImageFileError,
    by_row,
    describe,
    judge,
    memory_for,
    read_image,
    result_score,
    stream,
)
from bench.score.plan import Job, Pass

# The pass over the pixels: every metric without an encoder, one image at a time.

JOURNAL_IMAGES = 16

"""Images that are judged between two appends to the journal."""


def pixel_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], folder: Path, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics without an encoder, one image at a time; each image is decoded once.

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


# The pass over the samples of each prompt: metrics that compare them with each other.

Loaded = Mapping[int, NDArray[np.uint8] | Exception]

"""The images of one prompt and variant by sample, or why one of them could not be read."""


def other_samples_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], folder: Path, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics that compare an image with the other samples of its prompt; each is decoded once."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.render.variant, job.render.prompt_id), []).append(job)

    def load(group: list[Job]) -> Loaded:
        renders = {render.sample: render for job in group for render in (job.render, *job.other_samples)}
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
    for other_sample in job.other_samples:
        other = pixels[other_sample.sample]
        if isinstance(other, Exception):
            why = ImageFileError(f"sample {other_sample.sample} of the prompt: {describe(other)}")
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
        other_sample_pixels=tuple(others),
    )
    return result_score(job, metric, by_row(lambda rows: judge(metric, rows[0]), [inputs], 1)[0])


# One pass: its weights loaded, its images judged, its memory given back.

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

    Where a metric's head cannot be loaded, that metric is left out; where the encoder cannot, all are: the
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
        yield from other_samples_pass(jobs, heads, folder, place.device)
        return
    if judging.encoder is None:
        yield from pixel_pass(jobs, heads, folder, place.device)
        return
    name, there = judging.encoder, replace(place, dtype=judging.dtype)
    try:
        encoder = _load(f"encoder {name!r}", lambda: registry.encoders[name].load(there))
    except WeightsError as error:
        failures.append(error)
        return
    yield from encoder_pass(jobs, heads, encoder, folder, place.device)


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

    Its 10 bits of mantissa would move the patches of every encoder, and the variances of SSIM, which are small
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
