"""Which steps and metrics are looked at, what of that a run lacks, and what it costs. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from bench.errors import UsageError
from bench.records import MetricFacts, PlannedImage, Render, StepScore, Suite
from bench.suite.planned_images import plan_images

PICTURED_PROMPTS = 4
"""Of so many prompts, the first, small pictures of each step are kept for the page."""
_EVERY = re.compile(r"every\s+(\d{1,4})")


def parse_steps(at: str | Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps that are meant, counted from 1, rising.

    Args:
        at: ``all``; ``every N``: steps N, 2N, ... and the last; or numbers, as a sequence or as ``1,5,20``.
        steps: of the suite.

    Raises:
        UsageError: another text, a step beyond the last or below 1, or one given twice.
    """
    if at == "all":
        return tuple(range(1, steps + 1))
    if isinstance(at, str) and (found := _EVERY.fullmatch(at.strip())) and int(found[1]):
        return tuple(dict.fromkeys((*range(int(found[1]), steps + 1, int(found[1])), steps)))
    try:
        numbers = [int(part) for part in at.split(",")] if isinstance(at, str) else list(at)
    except ValueError as error:
        raise UsageError(f'{at!r} names no steps; it is "all", "every 2" or numbers such as 1,5,20.') from error
    for number in numbers:
        if not 1 <= number <= steps:
            raise UsageError(f"There is no step {number}; the suite has {steps}, counted from 1.")
        if numbers.count(number) > 1:
            raise UsageError(f"The step {number} is named twice.")
    if not numbers:
        raise UsageError("No step is named.")
    return tuple(sorted(numbers))


class StepJob(NamedTuple):
    """A planned batch of a variant whose path is drawn again, for what is missing of it."""

    variant: str
    images: tuple[PlannedImage, ...]
    steps: tuple[int, ...]
    metrics: tuple[str, ...]


def open_step_jobs(
    suite: Suite,
    variants: Iterable[str],
    facts: Sequence[MetricFacts],
    steps: Sequence[int],
    renders: Iterable[Render],
    known: Iterable[StepScore],
) -> list[StepJob]:
    """The batches of which a step score is missing: of the metric's version and dtype and of the run's image.

    A null that was recorded counts as there: the same path would give it again.
    """
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in renders}
    there = {
        (one.variant, one.prompt_id, one.sample, one.step, one.metric, one.version, one.metric_dtype)
        for one in known
        if images.get((one.variant, one.prompt_id, one.sample)) == one.image_sha256
    }
    jobs = []
    for variant in variants:
        for _, planned in groupby(plan_images(suite), key=lambda image: image.batch):
            batch = tuple(planned)
            missing = [
                (step, one.name)
                for one in facts
                for step in steps
                for image in batch
                if (variant, image.prompt_id, image.sample, step, one.name, one.version, one.metric_dtype) not in there
            ]
            if missing:
                lacking = {name for _, name in missing}
                metrics = tuple(one.name for one in facts if one.name in lacking)
                jobs.append(StepJob(variant, batch, tuple(sorted({step for step, _ in missing})), metrics))
    return jobs


RECORD_BYTES = 330
"""A line of ``steps.jsonl``, about."""
PICTURE_BYTES = 5_000
"""A small picture, about."""


class StepCost(NamedTuple):
    """What scoring steps takes, before it is begun."""

    images: int
    """Whose paths are drawn."""
    decodes: int
    scores: int
    disk_bytes: int
    seconds: float | None
    """Drawing and decoding, by the run's timings; None where it has none. The metrics come on top."""


def step_cost(
    suite: Suite, jobs: Sequence[StepJob], seconds: Mapping[str, tuple[float, float]] | None = None
) -> StepCost:
    """The cost of what is missing.

    Args:
        suite: of the run.
        jobs: what is missing.
        seconds: of each variant, an image from prompt to pixels and one decoding; None where they are not known.
    """
    pictured = {prompt.id for prompt in suite.prompts[:PICTURED_PROMPTS]}
    images = sum(len(job.images) for job in jobs)
    decodes = sum(len(job.images) * len(job.steps) for job in jobs)
    scores = sum(len(job.images) * len(job.steps) * len(job.metrics) for job in jobs)
    pictures = sum(
        len(job.steps) for job in jobs for image in job.images if image.prompt_id in pictured and image.sample == 0
    )
    time = None
    if seconds is not None and all(job.variant in seconds for job in jobs):
        time = sum(
            len(job.images) * (seconds[job.variant][0] + len(job.steps) * seconds[job.variant][1]) for job in jobs
        )
    return StepCost(images, decodes, scores, scores * RECORD_BYTES + pictures * PICTURE_BYTES, time)
