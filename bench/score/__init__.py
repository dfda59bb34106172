"""Renders -> Scores, SetScores: score the images of a run folder; never renders.

Only what is missing is scored, so that a metric added to an old run, a new version of a metric or an image
that was rendered anew costs just that. A score depends on its image and prompt alone: images go through an
encoder at one fixed batch shape, whatever else is scored with them (``bench.score.passes``).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from bench.errors import WeightsError
from bench.machine import release_memory, spare_imports
from bench.metrics.declare import Metric, Place, Scored
from bench.metrics.registry import Registry, metrics_of_run
from bench.questions.registry import identities, registry_of_suite
from bench.records import Dtype, FoundFaces, Progress, Run, Score, SetScore
from bench.score.decoded import DecodedPictures
from bench.score.plan import Job, Plan, looks_at_faces, plan_all, plan_passes
from bench.store import RunFolder

JOURNAL_IMAGES = 16
"""Images that are searched for faces between two appends to the journal."""


def score(
    folder: RunFolder,
    *,
    variants: Collection[str] | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "cpu",
    weights_dir: Path | None = None,
    metric_dtype: Dtype | None = None,
    allow_remote: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> int:
    """Score the images of a run folder that have no score yet; the number of records that were added.

    An image is done when it has a score of the metric's version and dtype and of the image's sha256; a set of images is
    done when its number is of all their sha256. Images that were
    not rendered, that equal another one, or on which a metric fails get a null with the reason and cost no other
    score. Records are appended a batch at a time: what was appended stays when the work is stopped, and the same call
    goes on from there. Ends by writing ``scores.csv``.

    Args:
        folder: an open run folder.
        variants: names of those whose images are scored; by default all.
        metrics: names; by default the suite's.
        device: torch device string of encoders and heads.
        weights_dir: folder of local weights, instead of the cache and the network.
        metric_dtype: what encoders compute in; scores of another dtype are made anew. By default what the run's
            card says of each metric, float32 where it says nothing.
        allow_remote: whether a judge may be an endpoint of another machine, which then sees the images.
        progress: told ``("score", scores done, scores to do, encoder or "pixels")``, and before that, where faces are
            looked for, ``("faces", images done, images to do)``.
        registry: where metrics and encoders are looked up, besides the suite's judges; by default all that are
            installed.

    Raises:
        UsageError: an unknown metric, one named twice, a dtype that no encoder of them has, or a judge on another
            machine without leave.
        WeightsError: weights of an encoder or head cannot be loaded; everything else was scored before.
        MachineError: memory ran out, or the folder cannot be written.
    """
    run, place = folder.run(), Place(device, weights_dir, allow_remote=allow_remote)
    names = tuple(metrics) if metrics is not None else run.info.suite.metrics
    known = _registry(run, names, registry, place)
    plan = plan_all(run, _chosen(run, names, metric_dtype, known), variants, folder.faces())
    total = plan.total
    known_scores, failures = {*run.scores, *run.set_scores}, list[WeightsError]()
    done = added = 0
    with DecodedPictures(folder.path) as pictures:
        plan = plan._replace(jobs=_with_faces(folder, pictures, plan.jobs, failures, progress))
        with closing(_batches(plan, folder, pictures, place, known, failures)) as batches:
            for scores, note in batches:
                new = [record for record in scores if record not in known_scores]
                if of_images := [record for record in new if isinstance(record, Score)]:
                    folder.append_scores(of_images)
                if of_sets := [record for record in new if isinstance(record, SetScore)]:
                    folder.append_set_scores(of_sets)
                done, added = done + len(scores), added + len(new)
                if progress is not None:
                    progress("score", done, total, note)
    folder.write_scores_csv()
    if failures:
        first = failures[0]
        raise WeightsError(" ".join(failure.message for failure in failures), first.hint) from first
    return added


def missing_scores(
    folder: RunFolder,
    metrics: Sequence[str],
    *,
    variants: Collection[str] | None = None,
    metric_dtype: Dtype | None = None,
    registry: Registry | None = None,
) -> int:
    """How many scores ``score`` would have to make; imports no torch."""
    run = folder.run()
    known = registry_of_suite(run.info.suite, registry, recorded=run.info.metrics)
    return plan_all(run, _chosen(run, metrics, metric_dtype, known), variants, folder.faces()).total


def _registry(run: Run, names: Sequence[str], registry: Registry | None, place: Place) -> Registry:
    """The registry with the run's judges, who are as the run's card has them; those that it lacks are asked now."""
    known = registry_of_suite(run.info.suite, registry, recorded=run.info.metrics)
    recorded = {facts.name for facts in run.info.metrics}
    unknown = identities([name for name in names if name not in recorded], known, place)
    return registry_of_suite(run.info.suite, registry, identified=unknown, recorded=run.info.metrics)


def _chosen(run: Run, names: Sequence[str], dtype: Dtype | None, known: Registry) -> tuple[Scored, ...]:
    return metrics_of_run(names, run.info.metrics, names, dtype, known)


def _with_faces(
    folder: RunFolder,
    pictures: DecodedPictures,
    jobs: tuple[Job, ...],
    failures: list[WeightsError],
    progress: Progress | None,
) -> tuple[Job, ...]:
    """The jobs with the faces of their images, each searched once and kept, for all metrics that look at them.

    Where the detector cannot be loaded, these metrics are left out, and the error is added to ``failures``.
    """
    waiting = [job for job in jobs if job.faces is None and any(looks_at_faces(metric) for metric in job.metrics)]
    if not waiting:
        return jobs
    from bench.score.faces import faces_pass  # torch

    found: dict[tuple[str, str, int], Job] = {}
    try:
        with closing(faces_pass(waiting, pictures)) as searched:
            while batch := list(islice(searched, JOURNAL_IMAGES)):
                folder.append_faces([job.faces for job in batch if isinstance(job.faces, FoundFaces)])
                found |= {job.key: job for job in batch}
                if progress is not None:
                    progress("faces", len(found), len(waiting))
    except WeightsError as error:
        failures.append(error)
        return tuple(replace(job, metrics=tuple(one for one in job.metrics if not looks_at_faces(one))) for job in jobs)
    return tuple(found.get(job.key, job) for job in jobs)


def _batches(
    plan: Plan,
    folder: RunFolder,
    pictures: DecodedPictures,
    place: Place,
    known: Registry,
    failures: list[WeightsError],
) -> Generator[tuple[Sequence[Score] | Sequence[SetScore], str], None, None]:
    """Every score of the plan, a batch at a time, with a note of where it is from."""
    if plan.nulls:
        yield plan.nulls, "no image to score"
    if plan.set_nulls:
        yield plan.set_nulls, "no set to score"
    if not plan.jobs:
        return
    # torch, which a run with nothing left to score needs not
    from bench.score.judge_pass import judge_pass
    from bench.score.passes import full_float32, run_pass

    spare_imports()
    passes = plan_passes(plan.jobs)
    weighted = [metrics for metrics in passes if any(_has_weights(metric) for metric in metrics)]
    decoding = [metrics for metrics in passes if not _answered(metrics)]
    for metrics in passes:
        if decoding and metrics is decoding[-1]:
            pictures.keep_no_more()
        answered = _answered(metrics)
        made = (
            judge_pass(answered, plan.jobs, folder, place, known, failures)
            if answered
            else run_pass(metrics, plan, pictures, place, known, failures)
        )
        with full_float32(), closing(made) as batches:
            for scores in batches:
                yield scores, metrics[0].facts.encoder or (answered[0].judge if answered else None) or "pixels"
        if metrics in weighted and (metrics != weighted[-1] or place.device != "cpu"):
            release_memory()


def _answered(metrics: Sequence[Scored]) -> list[Metric]:
    """The metrics of a judge, who opens the files itself."""
    return [metric for metric in metrics if isinstance(metric, Metric) and metric.judge is not None]


def _has_weights(metric: Scored) -> bool:
    own = isinstance(metric, Metric) and (metric.load_head is not None or metric.judge is not None)
    return own or metric.facts.encoder is not None
