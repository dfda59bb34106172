"""What there is to score: every cell of the run that has no score yet, and those that can have none.

Reads records only; imports no torch, so that a run with nothing left to score is done at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.metrics.image_checks import digest_of, duplicates, other_samples
from bench.metrics.registry import Metric
from bench.records import Dtype, Render, Run, Score


@dataclass(frozen=True)
class Job:
    """An image and the metrics that have to judge it."""

    render: Render
    prompt: str
    reference: Render | None
    """The reference variant's image of the same cell (of the reference itself, the same record), if any."""
    metrics: tuple[Metric, ...]
    other_samples: tuple[Render, ...] = ()
    """The other images that the variant has of the prompt."""

    def lacking(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Those of ``metrics`` that still have to judge the image."""
        return [metric for metric in metrics if metric in self.metrics]


@dataclass(frozen=True)
class Pass:
    """Metrics that are computed together: those of one encoder, or those that read pixels."""

    encoder: str | None
    metrics: tuple[Metric, ...]
    dtype: Dtype = "float32"
    """What the encoder computes in."""

    @property
    def compares_samples(self) -> bool:
        """Whether its metrics compare the samples of a prompt with each other."""
        return any(metric.needs_other_samples for metric in self.metrics)

    @property
    def has_weights(self) -> bool:
        """Whether the pass loads an encoder or a head."""
        return self.encoder is not None or any(metric.load_head is not None for metric in self.metrics)


@dataclass(frozen=True)
class Plan:
    """What ``score`` does: nulls to record at once, and images to judge."""

    nulls: tuple[Score, ...]
    jobs: tuple[Job, ...]
    """In the order of the suite's prompts, the variants of a cell side by side, the reference first."""

    @property
    def total(self) -> int:
        """Number of scores to record."""
        return len(self.nulls) + sum(len(job.metrics) for job in self.jobs)


def plan_scores(run: Run, metrics: Sequence[Metric], variants: Collection[str] | None = None) -> Plan:
    """The cells (variant, prompt, sample, metric) of ``run`` that are not scored yet; of these variants, or of all.

    A cell is scored when its score has the metric's version and the sha256 of the image (and of the
    reference's image, for a metric that compares) as rendered. Cells without an image to judge become
    nulls with the reason; they are recorded once.
    """
    scores = {(s.variant, s.prompt_id, s.sample, s.metric): s for s in run.scores}
    equal = duplicates(run.renders)
    others = other_samples(run.renders)
    nulls: list[Score] = []
    jobs: list[Job] = []
    for render, reference, prompt in _images(run):
        if variants is not None and render.variant not in variants:
            continue
        wanted: list[Metric] = []
        for metric in metrics:
            partner = compared_with(metric, reference, others[render.variant, render.prompt_id, render.sample])
            known = scores.get((render.variant, render.prompt_id, render.sample, metric.facts.name))
            null = _null(render, metric, reference, equal.get((render.variant, render.prompt_id, render.sample)))
            if null is None and not _is_current(known, metric, render, partner):
                wanted.append(metric)
            elif null is not None and null != known:
                nulls.append(null)
        if wanted:
            mates = others[render.variant, render.prompt_id, render.sample]
            jobs.append(Job(render, prompt, reference, tuple(wanted), mates))
    return Plan(tuple(nulls), tuple(jobs))


def plan_passes(jobs: Sequence[Job]) -> tuple[Pass, ...]:
    """The passes over the images: one for all metrics that read pixels and have no weights, one for each
    that reads pixels with weights of its own, one for each encoder in each dtype. Only one pass's weights are
    in memory."""
    groups: dict[str, list[Metric]] = {}
    for metric in dict.fromkeys(metric for job in jobs for metric in job.metrics):
        if metric.facts.encoder is not None:
            key = f"encoder {metric.facts.encoder} {metric.dtype}"
        else:
            key = "pixels" if metric.load_head is None else f"head {metric.facts.name}"
            key = f"samples, {key}" if metric.needs_other_samples else key
        groups.setdefault(key, []).append(metric)
    return tuple(Pass(group[0].facts.encoder, tuple(group), group[0].dtype) for group in groups.values())


def make_score(
    render: Render,
    metric: Metric,
    reference: Render | None,
    *,
    value: float | None = None,
    reason: str | None = None,
    judged: bool = True,
    prompt_cut: bool = False,
    other_samples: Sequence[Render] = (),
) -> Score:
    """The record of one cell; ``judged=False`` leaves the image's sha256 out, so that it is tried again."""
    return Score(
        variant=render.variant,
        prompt_id=render.prompt_id,
        sample=render.sample,
        metric=metric.facts.name,
        version=metric.facts.version,
        image_sha256=render.sha256 if judged else None,
        value=value,
        reason=reason,
        reference_sha256=compared_with(metric, reference, other_samples),
        prompt_cut=prompt_cut,
    )


def compared_with(metric: Metric, reference: Render | None, other_samples: Sequence[Render]) -> str | None:
    """The sha256 of what the metric compares an image with, None where it compares with nothing.

    That of the reference's image, or one over those of the other samples.
    """
    if metric.needs_other_samples:
        return digest_of(item.sha256 for item in other_samples)
    return reference.sha256 if metric.needs_reference and reference is not None else None


def _images(run: Run) -> Iterator[tuple[Render, Render | None, str]]:
    """Every rendered image with its prompt and the reference variant's image of the cell.

    The reference itself comes with itself as its reference.
    """
    renders = {(r.variant, r.prompt_id, r.sample): r for r in run.renders}
    names = [variant.name for variant in run.info.suite.variants]
    for prompt in run.info.suite.prompts:
        for sample in range(run.info.suite.samples):
            reference = renders.get((names[0], prompt.id, sample))
            for name in names:
                if (render := renders.get((name, prompt.id, sample))) is not None:
                    yield render, reference, prompt.text


def _null(render: Render, metric: Metric, reference: Render | None, duplicate: str | None) -> Score | None:
    """The null of a cell that has nothing to judge, or None when there is an image to judge."""
    if render.sha256 is None:
        return make_score(render, metric, None, reason=f"not rendered: {render.error}")
    if duplicate is not None:  # its twin may be rendered anew: not judged, so that it is looked at again
        return make_score(render, metric, None, reason=duplicate, judged=False)
    if not metric.needs_reference:
        return None
    if reference is render:
        return make_score(render, metric, reference, reason="is the reference")
    if reference is None:
        return make_score(render, metric, None, reason="the reference variant has no image of this cell")
    if reference.sha256 is None:
        return make_score(render, metric, None, reason=f"the reference was not rendered: {reference.error}")
    return None


def _is_current(known: Score | None, metric: Metric, render: Render, partner: str | None) -> bool:
    """Whether a score is of this metric's version, of this image and of what it is compared with, by sha256."""
    return (
        known is not None
        and known.version == metric.facts.version
        and known.image_sha256 == render.sha256
        and known.reference_sha256 == partner
    )
