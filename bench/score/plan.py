"""What there is to score: every image and metric of the run that has no score yet, and those that can have none.

Reads records only; imports no torch, so that a run with nothing left to score is done at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from bench.faces.asked import NOT_ASKED, faces_asked
from bench.faces.boxes import DETECTOR
from bench.formatting import listed, plural
from bench.metrics.declare import Metric, NoScoreError, Scored, SetMetric
from bench.metrics.image_checks import digest_of, duplicates, other_samples
from bench.metrics.image_sets import ImageSet, Usable, is_current_set, sets_of, usable_images
from bench.records import FacesAsked, FoundFaces, Prompt, Question, Render, Run, Score, SetScore, Suite
from bench.suite.prompt_syntax import plain_text

AnyMetric = TypeVar("AnyMetric", Metric, SetMetric, Scored)


@dataclass(frozen=True)
class Job:
    """An image and the metrics that still have to score it."""

    render: Render
    prompt: str
    reference: Render | None
    """The reference variant's image of the same prompt and sample, if any; of the reference itself, the same record."""
    metrics: tuple[Scored, ...]
    """A set metric is among them where a set that it has to score holds the image."""
    other_samples: tuple[Render, ...] = ()
    """The other images that the variant has of the prompt."""
    questions: tuple[Question, ...] = ()
    """Of the prompt."""
    faces_asked: FacesAsked | None = None
    """How many faces the prompt asks for; None where it asks for none."""
    faces: FoundFaces | Exception | None = None
    """What was found of them; why the image could not be searched; None where it was not searched yet."""

    @property
    def key(self) -> tuple[str, str, int]:
        """(variant, prompt, sample) of the image."""
        return self.render.variant, self.render.prompt_id, self.render.sample

    def lacking(self, metrics: Iterable[AnyMetric]) -> list[AnyMetric]:
        """Those of ``metrics`` that still have to score the image, or a set with it."""
        return [metric for metric in metrics if metric in self.metrics]


class SetJob(NamedTuple):
    """A set of images and the set metric that still has to score it."""

    metric: SetMetric
    images: ImageSet
    reference: str | None
    """The reference variant, where the metric compares with its images."""


class Plan(NamedTuple):
    """What there is to score: nulls to record at once, images to look at, and sets of them."""

    nulls: tuple[Score, ...]
    set_nulls: tuple[SetScore, ...]
    jobs: tuple[Job, ...]
    sets: tuple[SetJob, ...]

    @property
    def total(self) -> int:
        """Scores and set scores that come of it."""
        scores = sum(isinstance(metric, Metric) for job in self.jobs for metric in job.metrics)
        return len(self.nulls) + len(self.set_nulls) + scores + len(self.sets)


def plan_all(
    run: Run, metrics: Sequence[Scored], variants: Collection[str] | None = None, faces: Iterable[FoundFaces] = ()
) -> Plan:
    """What is not scored yet of ``run``, by metrics and set metrics, of these variants or of all."""
    nulls, jobs = plan_scores(run, [metric for metric in metrics if isinstance(metric, Metric)], variants, faces)
    set_nulls, sets = plan_sets(run, [metric for metric in metrics if isinstance(metric, SetMetric)], variants)
    return Plan(nulls, set_nulls, _with_sets(run, jobs, sets), sets)


def plan_scores(
    run: Run, metrics: Sequence[Metric], variants: Collection[str] | None = None, faces: Iterable[FoundFaces] = ()
) -> tuple[tuple[Score, ...], tuple[Job, ...]]:
    """What is not scored yet of ``run``, of these variants or of all: nulls to record at once, and images to score.

    Done is what has a score of the metric's version and dtype and of the sha256 of the image (and of what a metric
    that compares compares it with) as rendered; of a metric of faces also those of ``faces`` must be current. Where
    there is no image to score, or no face is asked for, that becomes a null with the reason, which is recorded once.
    The jobs come in the order of the suite's prompts, the variants of a sample one after the other, the reference
    first.
    """
    scores = {(score.variant, score.prompt_id, score.sample, score.metric): score for score in run.scores}
    equal, others = duplicates(run.renders), other_samples(run.renders)
    searched = {(found.variant, found.prompt_id, found.sample): found for found in faces}
    settings = run.info.suite.settings
    nulls: list[Score] = []
    jobs: list[Job] = []
    for render, reference, prompt in _images(run):
        if variants is not None and render.variant not in variants:
            continue
        key = (render.variant, render.prompt_id, render.sample)
        asked = faces_asked(prompt.tags)
        found = current_faces(searched.get(key), render, asked)
        wanted: list[Scored] = []
        for metric in metrics:
            known = scores.get((*key, metric.facts.name))
            null = _null(render, metric, prompt, reference, equal.get(key), asked)
            compared = compared_with(metric, reference, others[key])
            done = _is_current(known, render, metric, compared)
            if metric.needs_faces and known is not None:
                done = done and found is not None and known.reason != NOT_ASKED  # the prompt had other tags then
            if null is None and not done:
                wanted.append(metric)
            elif null is not None and null != known:
                nulls.append(null)
        if wanted:
            words = plain_text(prompt.text, settings)
            jobs.append(Job(render, words, reference, tuple(wanted), others[key], prompt.questions, asked, found))
    return tuple(nulls), tuple(jobs)


def faces_of(job: Job) -> FoundFaces | Exception:
    """What a metric of faces is given of an image, or why it has no score."""
    if job.faces is None:
        return ValueError("its faces were not looked for")
    if isinstance(job.faces, FoundFaces) and job.faces.reason is not None:
        return NoScoreError(job.faces.reason)
    return job.faces


def looks_at_faces(metric: Scored) -> bool:
    """Whether a metric is given the faces of an image."""
    return isinstance(metric, Metric) and metric.needs_faces


def set_notes(suite: Suite, metrics: Sequence[Scored]) -> tuple[str, ...]:
    """What can be told before scoring of set metrics that will have no number, a sentence for each reason."""
    sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    few = [one.facts.name for one in sets if one.min_samples > suite.samples]
    alone = [one.facts.name for one in sets if one.needs_reference and len(suite.variants) < 2]
    one_prompt = [one.facts.name for one in sets if one.facts.over != "prompt" and len(suite.prompts) < 2]
    found = (
        (few, f"the suite has {plural(suite.samples, 'sample')} of each prompt, and several are needed"),
        (alone, "there is no variant but the reference to compare with it"),
        (one_prompt, "the suite has one prompt, and 2 are needed"),
    )
    return tuple(f"No number of {listed(names)}: {why}." for names, why in found if names)


def plan_sets(
    run: Run, metrics: Sequence[SetMetric], variants: Collection[str] | None = None
) -> tuple[tuple[SetScore, ...], tuple[SetJob, ...]]:
    """As ``plan_scores``, of sets: done is what has a number of the metric's version and of the images there are."""
    known = {(one.variant, one.prompt_id, one.tag, one.metric): one for one in run.set_scores}
    usable = usable_images(run) if metrics else Usable({}, {}, {})
    reference = run.info.suite.variants[0].name
    nulls: list[SetScore] = []
    jobs: list[SetJob] = []
    for metric in metrics:
        facts = metric.facts
        for found in sets_of(run, usable, facts, min_samples=metric.min_samples, variants=variants):
            score = known.get((*found.key, facts.name))
            if is_current_set(score, found, facts):
                continue
            if found.reason is not None:
                nulls.append(make_set_score(metric, found, reason=found.reason))
            else:
                jobs.append(SetJob(metric, found, reference if metric.needs_reference else None))
    return tuple(nulls), tuple(jobs)


def _with_sets(run: Run, jobs: Sequence[Job], sets: Sequence[SetJob]) -> tuple[Job, ...]:
    """The jobs, and those of the images that only a set needs, in the order of ``plan_scores``."""
    if not sets:
        return tuple(jobs)
    wanted: dict[tuple[str, str, int], dict[SetMetric, None]] = {}
    for one in sets:
        for member in one.images.members:
            for variant in (one.images.variant, *([one.reference] if one.reference else [])):
                wanted.setdefault((variant, *member), {})[one.metric] = None
    known = {job.key: job for job in jobs}
    found = []
    for render, reference, prompt in _images(run):
        key = render.variant, render.prompt_id, render.sample
        job = known.get(key) or Job(render, plain_text(prompt.text, run.info.suite.settings), reference, ())
        job = replace(job, metrics=(*job.metrics, *wanted.get(key, ())))
        found += [job] if job.metrics else []
    return tuple(found)


def plan_passes(jobs: Sequence[Job]) -> tuple[tuple[Scored, ...], ...]:
    """The metrics that are computed together, in one pass over the images each.

    One pass for all metrics that read pixels and have no weights, one for all that compare samples and have none, one
    for each of these with weights of its own, and one for each encoder and each judge in each dtype, so that only one
    pass's weights are in memory.
    """
    groups: dict[tuple[object, ...], list[Scored]] = {}
    for metric in dict.fromkeys(metric for job in jobs for metric in job.metrics):
        facts = metric.facts
        key: tuple[object, ...]
        if isinstance(metric, SetMetric) or facts.encoder is not None:
            key = (facts.encoder, facts.metric_dtype)
        elif metric.judge is not None:
            key = ("judge", metric.judge, facts.metric_dtype)
        else:
            key = (None, metric.needs_other_samples, None if metric.load_head is None else facts.name)
        groups.setdefault(key, []).append(metric)
    return tuple(tuple(group) for group in groups.values())


def make_score(
    render: Render,
    metric: Metric,
    reference: Render | None,
    *,
    value: float | None = None,
    reason: str | None = None,
    final: bool = True,
    prompt_cut: bool = False,
    other_samples: Sequence[Render] = (),
) -> Score:
    """The record of one image and metric; ``final=False`` leaves the image's sha256 out, so that it is tried again."""
    return Score(
        variant=render.variant,
        prompt_id=render.prompt_id,
        sample=render.sample,
        metric=metric.facts.name,
        version=metric.facts.version,
        image_sha256=render.sha256 if final else None,
        value=value,
        reason=reason,
        reference_sha256=compared_with(metric, reference, other_samples),
        prompt_cut=prompt_cut,
        metric_dtype=metric.facts.metric_dtype,
    )


def make_set_score(metric: SetMetric, found: ImageSet, *, reason: str | None = None, final: bool = True) -> SetScore:
    """The record of one set and metric without its number; ``final=False`` has it tried again."""
    return SetScore(
        variant=found.variant,
        prompt_id=found.prompt_id,
        tag=found.tag,
        metric=metric.facts.name,
        version=metric.facts.version,
        prompts=len(found.prompts),
        images=len(found.members),
        images_sha256=found.digest if final else None,
        value=None,
        reason=reason,
        metric_dtype=metric.facts.metric_dtype,
    )


def compared_with(metric: Metric, reference: Render | None, other_samples: Sequence[Render]) -> str | None:
    """The sha256 of what the metric compares an image with, None where it compares with nothing.

    That of the reference's image, or one over those of the other samples.
    """
    if metric.needs_other_samples:
        return digest_of(item.sha256 for item in other_samples)
    return reference.sha256 if metric.needs_reference and reference is not None else None


def _images(run: Run) -> Iterator[tuple[Render, Render | None, Prompt]]:
    """Every rendered image with the reference variant's image of the same prompt and sample, and the prompt.

    The reference itself comes with itself as its reference.
    """
    renders = {(render.variant, render.prompt_id, render.sample): render for render in run.renders}
    names = [variant.name for variant in run.info.suite.variants]
    for prompt in run.info.suite.prompts:
        for sample in range(run.info.suite.samples):
            reference = renders.get((names[0], prompt.id, sample))
            for name in names:
                if (render := renders.get((name, prompt.id, sample))) is not None:
                    yield render, reference, prompt


def current_faces(found: FoundFaces | None, render: Render, asked: FacesAsked | None) -> FoundFaces | None:
    """What was found of faces, if it was by this detector, in this image and for what the prompt asks now."""
    wanted = (render.sha256, DETECTOR, asked)
    return found if found is not None and (found.image_sha256, found.detector, found.asked) == wanted else None


def _null(
    render: Render,
    metric: Metric,
    prompt: Prompt,
    reference: Render | None,
    duplicate: str | None,
    asked: FacesAsked | None,
) -> Score | None:
    """The null of an image that cannot be scored, or None where it can."""
    if render.sha256 is None:
        return make_score(render, metric, None, reason=f"not rendered: {render.error}")
    if duplicate is not None:  # the equal image may be rendered anew, so this one is tried again
        return make_score(render, metric, None, reason=duplicate, final=False)
    if metric.needs_faces and asked is None:
        return make_score(render, metric, None, reason=NOT_ASKED)
    if metric.judge is not None and not prompt.questions:
        return make_score(render, metric, None, reason="the prompt has no questions")
    if not metric.needs_reference:
        return None
    if reference is render:
        return make_score(render, metric, reference, reason="is the reference")
    if reference is None:
        return make_score(render, metric, None, reason="the reference variant has no image of this prompt and sample")
    if reference.sha256 is None:
        return make_score(render, metric, None, reason=f"the reference was not rendered: {reference.error}")
    return None


def _is_current(known: Score | None, render: Render, metric: Metric, compared: str | None) -> bool:
    """Whether a score is of this metric's version and dtype, of this image and of what it is compared with."""
    return (
        known is not None
        and known.full_version == metric.facts.full_version
        and known.image_sha256 == render.sha256
        and known.reference_sha256 == compared
    )
