"""One pass over the images: its weights loaded, every metric of it computed, its memory given back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.errors import HotartError, WeightsError
from bench.metrics.declare import Inputs, Metric, Place, Scored, SetMetric
from bench.metrics.registry import Registry
from bench.records import Render, Score, SetScore
from bench.score.batches import by_row, describe, memory_for, metric_values, pair_value, result_score, to_device
from bench.score.decoded import DecodedPictures
from bench.score.encoder_pass import encoder_pass
from bench.score.images import WORKERS, ImageFileError, stream
from bench.score.plan import Job, Plan, faces_of

Weights = TypeVar("Weights")
JOURNAL_IMAGES = 16
"""Images that are scored between two appends to the journal, of metrics without an encoder."""
Pairs = dict[tuple[str, int, int], torch.Tensor | Exception]
"""By metric and two samples of a prompt, the lower first: the metric's value of the pair, or why it has none."""


def run_pass(
    metrics: Sequence[Scored],
    plan: Plan,
    pictures: DecodedPictures,
    place: Place,
    registry: Registry,
    failures: list[WeightsError],
) -> Generator[list[Score] | list[SetScore], None, None]:
    """The scores of one pass, a batch at a time; its weights are in memory only while it runs.

    Where a metric's head cannot be loaded, that metric is left out; where the encoder cannot, all are: the
    error is added to ``failures`` and nothing is recorded, so that the same command scores them later.

    Raises:
        MachineError: memory ran out. What was yielded before holds.
    """
    heads: dict[Metric, Any] = {}
    for metric in metrics:
        if isinstance(metric, SetMetric):
            continue
        try:
            heads[metric] = _load_head(metric, replace(place, dtype="float32"))
        except WeightsError as error:
            failures.append(error)
    sets = [one for one in plan.sets if one.metric in metrics]
    set_metrics = {one.metric for one in sets}
    jobs = [job for job in plan.jobs if any(job.lacking(heads)) or any(job.lacking(set_metrics))]
    name = metrics[0].facts.encoder
    if not jobs:
        return
    if name is None:
        by_pixels = other_samples_pass if any(metric.needs_other_samples for metric in heads) else pixel_pass
        yield from by_pixels(jobs, heads, pictures, place.device)
        return
    there = replace(place, dtype=metrics[0].facts.metric_dtype)
    try:
        encoder = load_part(f"encoder {name!r}", lambda: registry.encoders[name].load(there))
    except WeightsError as error:
        failures.append(error)
        return
    yield from encoder_pass(jobs, heads, sets, encoder, pictures, place.device)


def _load_head(metric: Metric, place: Place) -> Any:
    load = metric.load_head
    return None if load is None else load_part(f"head of metric {metric.facts.name!r}", lambda: load(place))


def load_part(what: str, load: Callable[[], Weights]) -> Weights:
    """What ``load`` gives.

    Raises:
        WeightsError: it cannot be loaded, with the reason.
        MachineError: memory ran out.
    """
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


def pixel_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], pictures: DecodedPictures, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics without an encoder, one image at a time.

    The reference's image comes before those that are compared with it and is held until then.
    """
    held: tuple[Render, torch.Tensor | Exception] | None = None
    scores: list[Score] = []

    def load(item: tuple[Render, Job | None]) -> NDArray[np.uint8]:
        return _read(pictures, item[0])

    def size(item: tuple[Render, Job | None]) -> int:
        return pictures.pixels(item[0])

    with closing(stream(_with_references(jobs, heads), load, 2 * WORKERS, size)) as images:
        for count, ((render, job), loaded) in enumerate(images, 1):
            pixels = _to_pixels(loaded, device)
            if job is None or job.reference is render:
                held = render, pixels
            if job is not None:
                reference = held[1] if held is not None and held[0] is job.reference else None
                for metric in job.lacking(heads):
                    beside = {"reference": reference} if metric.needs_reference else {}
                    scores.append(_pixel_score(job, metric, heads[metric], pixels, beside))
            if count % JOURNAL_IMAGES == 0:
                yield scores
                scores = []
    yield scores


def _with_references(jobs: Sequence[Job], metrics: Iterable[Metric]) -> Iterator[tuple[Render, Job | None]]:
    """Every image once; a reference that has no job itself goes before the first image compared with it."""
    sent: Render | None = None
    for job in jobs:
        compared = any(metric.needs_reference for metric in job.lacking(metrics))
        if compared and job.reference is not None and job.reference is not sent:
            yield job.reference, None
        if compared or job.reference is job.render:
            sent = job.reference
        yield job.render, job


def other_samples_pass(
    jobs: Sequence[Job], heads: Mapping[Metric, Any], pictures: DecodedPictures, device: str
) -> Generator[list[Score], None, None]:
    """Scores of metrics that compare an image with the other samples of its prompt, by ``of_pair`` each pair once."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.render.variant, job.render.prompt_id), []).append(job)

    def load(group: list[Job]) -> dict[int, NDArray[np.uint8] | Exception]:
        images: dict[int, NDArray[np.uint8] | Exception] = {}
        for render in {render.sample: render for job in group for render in (job.render, *job.other_samples)}.values():
            try:
                images[render.sample] = _read(pictures, render)
            except Exception as error:  # it is the null's reason, and must not stop the other images
                images[render.sample] = error
        return images

    with closing(stream(groups.values(), load, 1)) as loaded:
        for group, images in loaded:
            if isinstance(images, Exception):
                yield [result_score(job, metric, images) for job in group for metric in job.lacking(heads)]
                continue
            pixels = {sample: _to_pixels(image, device) for sample, image in images.items()}
            scores: list[Score] = []
            pairs: Pairs = {}
            for job in group:
                beside = {f"sample {other.sample} of the prompt": pixels[other.sample] for other in job.other_samples}
                own = pixels[job.render.sample]
                scores += [
                    _pixel_score(job, metric, heads[metric], own, beside)
                    if metric.of_pair is None
                    else _pair_score(job, metric, pixels, pairs)
                    for metric in job.lacking(heads)
                ]
            yield scores


def _pair_score(job: Job, metric: Metric, pixels: Mapping[int, torch.Tensor | Exception], pairs: Pairs) -> Score:
    """The score of one image from the values of its pairs with the other samples; new values are added to ``pairs``."""
    own, values = pixels[job.render.sample], list[torch.Tensor]()
    if isinstance(own, Exception):
        return result_score(job, metric, own)
    for sample in (other.sample for other in job.other_samples):
        other, first, last = pixels[sample], min(job.render.sample, sample), max(job.render.sample, sample)
        key = (metric.facts.name, first, last)
        if isinstance(other, Exception):
            return result_score(job, metric, ImageFileError(f"sample {sample} of the prompt: {describe(other)}"))
        if key not in pairs:
            pairs[key] = by_row(lambda rows: pair_value(metric, *rows[0]), [(own, other)], 1)[0]
        value = pairs[key]
        if isinstance(value, Exception):
            return result_score(job, metric, value)
        values.append(value.reshape(1))
    inputs = Inputs(prompts=(job.prompt,), pixels=own, pair_values=tuple(values))
    return result_score(job, metric, by_row(lambda rows: metric_values(metric, rows[0]), [inputs], 1)[0])


def _read(pictures: DecodedPictures, render: Render) -> NDArray[np.uint8]:
    return np.array(pictures.read(render).convert("RGB"))


def _to_pixels(image: NDArray[np.uint8] | Exception, device: str) -> torch.Tensor | Exception:
    """An 8-bit RGB image (H, W, 3) as (1, 3, H, W) float32 in [0, 1] on the device; an error as it is."""
    if isinstance(image, Exception):
        return image
    with memory_for("moving an image to the device"):
        return to_device([torch.from_numpy(image)], device)[0].permute(2, 0, 1).unsqueeze(0).float().div(255.0)


def _pixel_score(
    job: Job,
    metric: Metric,
    head: Any,
    pixels: torch.Tensor | Exception,
    compared: Mapping[str, torch.Tensor | Exception | None],
) -> Score:
    """The score of one image; ``compared`` is what the metric compares it with, by what it is."""
    if isinstance(pixels, Exception):
        return result_score(job, metric, pixels)
    faces = faces_of(job) if metric.needs_faces else None
    if isinstance(faces, Exception):
        return result_score(job, metric, faces)
    others: list[torch.Tensor] = []
    for what, other in compared.items():
        if isinstance(other, Exception):
            return result_score(job, metric, ImageFileError(f"{what}: {describe(other)}"))
        if other is not None:
            others.append(other.clone())
    inputs = Inputs(
        prompts=(job.prompt,),
        pixels=pixels.clone(),  # a metric that works in place must not change what the next one sees
        reference_pixels=others[0] if metric.needs_reference and others else None,
        head=head,
        other_sample_pixels=tuple(others) if metric.needs_other_samples else None,
        faces=None if faces is None else (faces,),
    )
    return result_score(job, metric, by_row(lambda rows: metric_values(metric, rows[0]), [inputs], 1)[0])
