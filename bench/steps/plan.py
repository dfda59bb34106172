"""Which steps and metrics are looked at, what of that a run lacks, and what it costs. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from bench.checkpoints.locate import fetch, find_lora
from bench.errors import UsageError
from bench.formatting import listed
from bench.lora.parse import read_adapter
from bench.merge.load import open_checkpoint
from bench.metrics.declare import Metric, StepMetric
from bench.metrics.registry import Registry
from bench.records import Lora, MetricFacts, PlannedImage, Render, StepScore, Suite, Variant
from bench.suite.planned_images import plan_images

PICTURED_PROMPTS = 4
"""Of so many prompts, the first, small pictures of each step are kept for the page."""


def step_metrics_of(names: Sequence[str], registry: Registry, family: str | None) -> list[Metric | StepMetric]:
    """The metrics named, in that order.

    Args:
        names: of metrics and step metrics.
        registry: where they are looked up.
        family: of the checkpoint; None where it is not known yet.

    Raises:
        UsageError: a name that is neither, one that compares images with each other or asks a judge, or one that
            was made for another family of checkpoints.
    """
    found: list[Metric | StepMetric] = []
    for name in names:
        metric = registry.step_metrics.get(name) or registry.metrics.get(name)
        if name in registry.set_metrics:
            raise UsageError(f"The metric {name} compares images with each other; at a step there is only one.")
        if metric is None:
            known = sorted({*registry.step_metrics, *registry.metrics})
            raise UsageError(
                f"There is no metric {name!r}; there are: {', '.join(known)}.", "hotart-bench list metrics"
            )
        if isinstance(metric, StepMetric):
            if family is not None and metric.families and family not in metric.families:
                raise UsageError(
                    f"The step metric {name} is for {listed(metric.families)}; this checkpoint is {family}."
                )
        elif metric.needs_reference or metric.needs_other_samples:
            raise UsageError(f"The metric {name} compares images with each other; at a step there is only one.")
        elif metric.needs_faces:
            raise UsageError(f"The metric {name} looks at faces, which are found in finished images only.")
        elif metric.judge is not None:
            raise UsageError(f"The metric {name} is made of a judge's answers, who is asked about final images only.")
        found.append(metric)
    return found


def changes_text(lora: Lora, variant: Variant, weights_dir: Path | None) -> bool:
    """Whether a LoRA has keys for the text encoders of a variant's checkpoint; only headers are read.

    Raises:
        WeightsError: a file is missing or damaged, or a key fits no tensor of the checkpoint.
    """
    path = Path(fetch(find_lora(lora.path, weights_dir)).path or "")
    adapter = read_adapter(path, open_checkpoint(variant, weights_dir).tensors, lora.leave_out)
    return any(change.tensor.startswith("text_encoder") for change in adapter.changes)


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
