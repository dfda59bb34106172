"""The stages in order: render, score, measure, report. Imports torch only when there is work for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.errors import InvalidError, UsageError
from bench.machine import pick_device
from bench.measure import pick_variants
from bench.metrics import facts_for
from bench.records import Dtype, Progress, Suite
from bench.run.stages import do_stage, with_batch
from bench.run.status import STAGES, Asked, Outcome, Stage, Work, adopt, mark_failed, outcome_of, pool_for
from bench.store import RunFolder
from bench.suite import protocol_digest

__all__ = ["STAGES", "Outcome", "Stage", "run_all", "run_stage"]


def run_all(
    suite: Suite,
    path: Path | str,
    *,
    variants: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    fresh: bool = False,
    weights_dir: Path | None = None,
    metric_dtype: Dtype | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """The main job: every stage that the run folder still lacks.

    Args:
        suite: what is to be run.
        path: the run folder, or the URL of one on an object store; made where it is missing, continued where it
            holds the same protocol.
        variants: names of the variants to work on; None for all.
        metrics: names of the metrics to score; None for the suite's.
        device: as ``bench.machine.pick_device`` takes it.
        fresh: start over; the old folder is kept beside it.
        weights_dir: local weights instead of downloads.
        metric_dtype: what the encoders of judges compute in; None for what the folder's scores were made with.
        ray: address of a Ray cluster that renders, or ``auto``; all else is done here.
        progress: told how far each stage is.

    Raises:
        UsageError, WeightsError, IncomparableError, MachineError: as the stages do.
        InvalidError: every image failed.
    """
    asked = Asked(suite, path, variants, metrics, device, fresh, weights_dir, metric_dtype, ray, progress)
    return with_batch(asked, partial(_run, STAGES))


def run_stage(
    stage: Stage,
    suite: Suite,
    path: Path | str,
    *,
    variants: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    fresh: bool = False,
    weights_dir: Path | None = None,
    metric_dtype: Dtype | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """One stage alone; arguments and errors as ``run_all``.

    Raises:
        InvalidError: the stage needs images and the folder has none.
    """
    asked = Asked(suite, path, variants, metrics, device, fresh, weights_dir, metric_dtype, ray, progress)
    return with_batch(asked, partial(_run, (stage,)))


def _run(stages: tuple[Stage, ...], asked: Asked) -> Outcome:
    suite = asked.suite
    variants = tuple(pick_variants(suite, asked.variants))
    metrics = tuple(asked.metrics) if asked.metrics is not None else suite.metrics
    facts_for(metrics)
    if suite.external_images is not None and not {"render", "measure"}.isdisjoint(stages):
        raise UsageError(
            f"{asked.path}: its images were given; there is no model to render or to time.",
            f"hotart-bench score {shlex.quote(str(asked.path))}",
        )
    if asked.ray is not None and len(stages) > 1:
        pick_device(asked.device)  # scores and timings are made here: a device that is not here is told at once
    with (
        RunFolder.open(asked.path, suite=suite, protocol_digest=protocol_digest(suite), fresh=asked.fresh) as folder,
        pool_for(asked, folder.info) as pool,
    ):
        local = (asked.device, asked.weights_dir, asked.metric_dtype, pool, asked.progress)
        work = Work(suite, folder, variants, metrics, *local)
        _refuse_empty(stages, folder)
        adopt(stages, work)
        folder.add_notes(asked.notes)
        try:
            done = 0
            for stage in stages:
                done += do_stage(stage, work, done, alone=len(stages) == 1)
        except Exception:
            mark_failed(folder)
            raise
        outcome = outcome_of(work, done_before=done == 0)
    if outcome.images == 0 and outcome.failed:
        raise InvalidError(f"{asked.path}: all {outcome.failed} images failed.", f"see {asked.path}/renders.jsonl")
    return outcome


def _refuse_empty(stages: tuple[Stage, ...], folder: RunFolder) -> None:
    if stages[0] in ("score", "report") and not folder.renders():
        raise InvalidError(f"{folder.path}: has no images yet.", "hotart-bench render, or hotart-bench run, first")
