"""Step by step: along each image's own path, the predicted image at chosen steps is decoded, scored and journalled.

The path is drawn again with the run's own batches, so that its last image has the pixels that ``render`` gave it; while
a batch is drawn nothing is computed but what ``render`` computes, and the steps are decoded and scored after it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.errors import IncomparableError
from bench.machine import is_out_of_memory, release_memory
from bench.metrics.declare import Place
from bench.metrics.registry import Registry, installed
from bench.pictures.parameters import Captions
from bench.pictures.png import PackedImage, pack, write_picture
from bench.pipeline import denoise as stages
from bench.pipeline.switch import Model, base_of, switch_variant
from bench.records import Progress, Render, StepScore, Suite
from bench.render import is_audited, keep_audit, too_large, with_pixel_difference
from bench.render.images import encode_prompts, launch, settle, settle_again
from bench.steps.plan import PICTURED_PROMPTS, StepJob
from bench.steps.predicted import StepView, view, watched
from bench.steps.scorers import Scorer, StepBatch, open_scorers
from bench.store import RunFolder
from bench.suite.prompt_syntax import plain_text

PICTURE_PX = 192
"""Longest side of these."""
PICTURE_QUALITY = 80
NO_PREDICTION = "at this step the latent is pure noise, and from the noise predicted in it no image follows"


def score_steps(
    suite: Suite,
    folder: RunFolder,
    jobs: Sequence[StepJob],
    *,
    device: str,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> int:
    """Score steps of a run's images that have no score yet; the number of records that were added.

    Images that the run lacks are rendered on the way, with the bytes that ``render`` would give them. Records are
    appended a batch at a time, so that the same call goes on where it was stopped.

    Args:
        suite: of the run, its batch chosen.
        folder: an open run folder.
        jobs: what is missing, of ``open_step_jobs``.
        device: torch device string, of the pipeline and of the metrics.
        weights_dir: folder of local weights.
        progress: told ``("steps", images done, images to do, variant)``.
        registry: where metrics are looked up; by default all that are installed.

    Raises:
        UsageError: a metric is for another family than the checkpoint's.
        WeightsError: a variant or a metric cannot be loaded.
        IncomparableError: a path ends in other pixels than the run's image.
        OutOfMemory: the device cannot hold a batch, or the metrics beside the pipeline.
        MachineError: the folder cannot be written.
    """
    try:
        return _score_steps(suite, folder, jobs, Place(device, weights_dir), progress, registry or installed())
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(suite, suite.settings.batch or 1, device) from error
    finally:
        release_memory()


def _score_steps(
    suite: Suite,
    folder: RunFolder,
    jobs: Sequence[StepJob],
    place: Place,
    progress: Progress | None,
    registry: Registry,
) -> int:
    named = {variant.name: variant for variant in suite.variants}
    variants = [named[name] for name in dict.fromkeys(job.variant for job in jobs)]
    bases = list(dict.fromkeys(map(base_of, variants)))
    metrics = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    total, done, added = sum(len(job.images) for job in jobs), 0, 0
    model: Model | None = None
    painter: StepPainter | None = None

    def tell(note: str) -> None:
        if progress is not None:
            progress("steps", done, total, note)

    for variant in sorted(variants, key=lambda one: bases.index(base_of(one))):  # one load a checkpoint
        tell(f"loading {variant.name}")
        model, audit = switch_variant(
            model, variant, suite.settings, device=place.device, weights_dir=place.weights_dir
        )
        if not is_audited(folder, variant):
            keep_audit(folder, variant, with_pixel_difference(model, variant, suite, audit))
        if painter is None:
            painter = StepPainter(
                suite, open_scorers(metrics, registry=registry, place=place, family=audit.checkpoint.family)
            )
        for job in (job for job in jobs if job.variant == variant.name):
            added += keep(folder, job, painter.paint(model.pipe, job))
            done += len(job.images)
            tell(variant.name)
    return added


class Painted(NamedTuple):
    """A batch whose path was drawn."""

    images: tuple[PackedImage, ...]
    scores: tuple[StepScore, ...]
    """Their final images are not named yet."""
    pictures: tuple[tuple[str, bytes], ...]
    """Small pictures: name in the run folder, and WebP."""


class StepPainter:
    """Draws the paths of batches and scores their steps; it writes nothing.

    Args:
        suite: of the run.
        scorers: the metrics in memory.
    """

    def __init__(self, suite: Suite, scorers: Sequence[Scorer]) -> None:
        self._suite, self._scorers = suite, scorers
        self._texts = {prompt.id: plain_text(prompt.text, suite.settings) for prompt in suite.prompts}
        self._pictured = {prompt.id for prompt in suite.prompts[:PICTURED_PROMPTS]}

    def paint(self, pipe: Any, job: StepJob) -> Painted:
        """Draw one batch as ``render`` does, then decode and score each of its steps, one at a time."""
        settings = self._suite.settings
        encoded = encode_prompts(pipe, self._suite, [job.images])
        with watched(pipe.scheduler, job.steps) as seen:
            launched = launch(pipe, settings, job.images, encoded)
        drawn = settle(launched, settings) or settle_again(pipe, launched, settings)
        images = tuple(pack(*one) for one in drawn)
        scores: list[StepScore] = []
        pictures: list[tuple[str, bytes]] = []
        while seen:
            looked = view(pipe.scheduler, seen.pop(0))  # let go of as soon as it is scored
            batch, faults = self._decoded(pipe, job, looked)
            scores += self._scores(job, looked, batch, faults)
            pictures += self._pictures(job, looked.step, batch)
        return Painted(images, tuple(scores), tuple(pictures))

    @torch.inference_mode()
    def _decoded(self, pipe: Any, job: StepJob, looked: StepView) -> tuple[StepBatch, dict[int, str]]:
        """What the metrics read of a step, and for the images of which they can read nothing the reason, by row."""
        faults: dict[int, str] = {}
        predicted = looked.predicted
        if predicted is None:
            faults = dict.fromkeys(range(len(job.images)), NO_PREDICTION)
            predicted = torch.zeros_like(looked.latents)
        pixels = stages.decode_pixels(pipe, predicted.to(pipe.unet.dtype))
        for row in (~pixels.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist():
            again = stages.decode_pixels(pipe, predicted[row : row + 1].to(pipe.unet.dtype), torch.float32)[0]
            if not bool(again.isfinite().all()):
                faults.setdefault(row, "the predicted image is not finite")
                again = torch.zeros_like(again)
            pixels[row] = again
        for row in (~looked.latents.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist():
            faults.setdefault(row, "the latent is not finite")
        batch = StepBatch(
            prompts=tuple(self._texts[image.prompt_id] for image in job.images),
            timestep=looked.timestep,
            latents=looked.latents,
            decoded=pixels.permute(0, 3, 1, 2) * 2 - 1,
            levels=(pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(),
        )
        return batch, faults

    def _scores(
        self, job: StepJob, looked: StepView, batch: StepBatch, faults: Mapping[int, str]
    ) -> Iterator[StepScore]:
        for value in (value for scorer in self._scorers for value in scorer(batch)):
            if value.facts.name not in job.metrics:
                continue
            image, fault = job.images[value.row], faults.get(value.row)
            yield StepScore(
                variant=job.variant,
                prompt_id=image.prompt_id,
                sample=image.sample,
                step=looked.step,
                timestep=looked.timestep,
                sigma=looked.sigma if math.isfinite(looked.sigma) else None,
                metric=value.facts.name,
                version=value.facts.version,
                image_sha256=None,
                value=None if fault else value.value,
                reason=fault or value.reason,
                prompt_cut=value.prompt_cut,
                metric_dtype=value.facts.metric_dtype,
            )

    def _pictures(self, job: StepJob, step: int, batch: StepBatch) -> Iterator[tuple[str, bytes]]:
        for image, levels in zip(job.images, batch.levels, strict=True):
            if image.prompt_id in self._pictured and image.sample == 0:
                yield picture_name(job.variant, image.prompt_id, step), _small(levels)


def picture_name(variant: str, prompt_id: str, step: int) -> str:
    """Where the small picture of a step lies in a run folder."""
    return f"steps/{variant}/{prompt_id}/{step:03d}.webp"


def _small(levels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(levels)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=PICTURE_QUALITY)
    return buffer.getvalue()


def keep(folder: RunFolder, job: StepJob, painted: Painted) -> int:
    """Write what was painted of a batch; the number of step scores.

    An image that the run lacks is written as ``render`` would write it; one that it has must be the same picture.

    Raises:
        IncomparableError: a path ends in other pixels than the run's image.
        MachineError: the folder cannot be written.
    """
    known = {(one.variant, one.prompt_id, one.sample): one for one in folder.renders()}
    finals: dict[tuple[str, int], str | None] = {}
    new: list[Render] = []
    captions = None if folder.info is None else Captions(folder.info)
    for planned, image in zip(job.images, painted.images, strict=True):
        render = known.get((job.variant, planned.prompt_id, planned.sample))
        if render is None:
            render = write_picture(folder, captions, job.variant, planned, image)
            new.append(render)
        elif render.pixels_sha256 != image.pixels_sha256:
            raise IncomparableError(
                f"{folder.path}: the image {render.image} of variant {job.variant} was drawn again and came out with "
                "other pixels, so that its steps would be those of another picture.",
                "use the machine, torch and diffusers of the run; or start over in another folder with -o",
            )
        finals[planned.prompt_id, planned.sample] = render.sha256
    if new:
        folder.append_renders(new)
    for name, data in painted.pictures:
        folder.write_bytes(name, data)
    folder.append_step_scores(
        msgspec.structs.replace(one, image_sha256=finals[one.prompt_id, one.sample]) for one in painted.scores
    )
    return len(painted.scores)
