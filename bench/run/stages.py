"""The stages in order, each doing what the run folder lacks. Imports torch only when there is work for it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from bench.comparability import check_environment, differences, timing_facts
from bench.documents import utc_now
from bench.errors import InvalidError, OutOfMemory, UsageError
from bench.formatting import argument, continuing
from bench.machine import machine_facts, package_versions, pick_device
from bench.measure import measure, open_jobs, pick_variants
from bench.metrics import facts_for, installed
from bench.questions.registry import registry_of_suite
from bench.ray_workers import WorkerPool, render_on_workers, score_steps_on_workers
from bench.records import Progress, RunInfo, RunOptions, Suite
from bench.report import write_report
from bench.report.facts import is_current
from bench.run.status import (
    Outcome,
    Stage,
    Work,
    check_device,
    mark_failed,
    outcome_of,
    settle,
    unfinished,
    unrendered,
    update_info,
)
from bench.score import missing_scores, score
from bench.steps.plan import open_step_jobs, step_metrics_of
from bench.store import RunFolder, batch_of, forget_empty_run
from bench.suite import protocol_digest


def run_stages(
    stages: tuple[Stage, ...], suite: Suite, path: Path | str, options: RunOptions, progress: Progress | None
) -> Outcome:
    """Do stages in order; where the suite leaves the batch open, find one first, and halve it where memory runs out.

    Images of two batch sizes never meet in one folder: a smaller one begins a folder again that holds no image yet.
    """
    if suite.settings.batch is not None:
        return _run(stages, suite, path, options, progress)
    batch = _open_batch(suite, path, options, progress)
    while True:
        settings = msgspec.structs.replace(suite.settings, batch=batch)
        try:
            return _run(stages, msgspec.structs.replace(suite, settings=settings), path, options, progress)
        except OutOfMemory:
            if batch == 1 or not forget_empty_run(path):
                raise
        # Out here the error is gone, and what it held of the models.
        smaller = f"Batches are of {batch // 2}: the memory did not hold {batch}."
        kept = tuple(note for note in options.notes if not note.startswith("Batches are of "))
        options = msgspec.structs.replace(options, notes=(*kept, smaller))
        batch //= 2
        if progress is not None:
            progress("render", 0, 1, f"out of memory: going on with batches of {batch}")


def _open_batch(suite: Suite, path: Path | str, options: RunOptions, progress: Progress | None) -> int:
    """The batch of the run that is continued, or the largest that the device holds."""
    found = None if options.fresh else batch_of(path)
    if found is not None:
        return found
    if progress is not None:
        progress("render", 0, 1, "looking for the largest batch that fits")
    with _pool_for(suite, options, None) as pool:
        if pool is not None:
            return pool.largest_batch()
    from bench.render import largest_batch  # imports torch

    return largest_batch(suite, device=pick_device(options.device), weights_dir=options.weights_dir)


def _pool_for(suite: Suite, options: RunOptions, info: RunInfo | None) -> AbstractContextManager[WorkerPool | None]:
    """The Ray workers, with ``--ray``; none is started before it has something to render."""
    if options.ray is None:
        return nullcontext()
    # A run on CPUs goes on with the threads that it was begun with, since they change pixels.
    known = info.machine.threads if info is not None and info.machine.device == "cpu" else None
    target = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = known or (int(target) if target.isdecimal() and int(target) else 1)
    return WorkerPool(options.ray, suite, device=options.device, threads=threads, weights_dir=options.weights_dir)


def _run(
    stages: tuple[Stage, ...],
    suite: Suite,
    path: Path | str,
    options: RunOptions,
    progress: Progress | None,
) -> Outcome:
    variants = pick_variants(suite, options.variants)
    metrics = tuple(options.metrics) if options.metrics is not None else suite.metrics
    if "score" in stages or options.metrics is not None:
        facts_for(metrics, registry_of_suite(suite))
    if suite.external_images is not None and not {"render", "steps", "measure"}.isdisjoint(stages):
        raise UsageError(
            f"{path}: its images are external; there is no model to render or to time.",
            f"hotart-bench score {argument(path)}",
        )
    if stages == ("measure",) and suite.measure.rounds == 0:
        raise UsageError(
            f"{path}: its suite leaves timing out ([measure] rounds = 0).",
            "give the suite's [measure] 2 rounds or more",
        )
    if options.ray is not None and len(stages) > 1:
        pick_device(options.device)  # scores and timings are made here: a device that is not here is told at once
    with (
        RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite), fresh=options.fresh) as folder,
        _pool_for(suite, options, folder.info) as pool,
    ):
        work = Work(suite, folder, variants, metrics, options, pool, progress)
        if stages[0] in ("score", "report") and not folder.renders():
            raise InvalidError(f"{folder.path}: has no images yet.", continuing(suite, path))
        update_info(stages, work)
        folder.add_notes(options.notes)
        try:
            done = 0
            for stage in stages:
                done += _do(stage, work, done, alone=len(stages) == 1)
        except Exception:
            mark_failed(folder)
            raise
        outcome = outcome_of(work, done_before=done == 0, reported="report" in stages)
        reason = unfinished(stages, work, path)
    if outcome.images == 0 and outcome.failed:
        raise InvalidError(f"{path}: all {outcome.failed} images failed.", f"see {path}/renders.jsonl")
    if reason is not None:
        raise reason
    return outcome


def _do(stage: Stage, work: Work, done: int, *, alone: bool) -> int:
    """Do what of a stage is missing; how much that was, where the stages before it did ``done``."""
    match stage:
        case "report":
            return _report(work, done, alone)
        case "render":
            found = _render(work)
        case "score":
            found = _score(work)
        case "steps":
            found = _steps(work)
        case "measure":
            found = _measure(work, alone)
    if alone:
        settle(work.folder, None)  # what was lost or added since may be all there now
    return found


def _render(work: Work) -> int:
    if not unrendered(work.suite, work.folder, work.variants, work.options.only):
        return 0
    if work.pool is not None:
        with work.pool:  # its devices are free again before scores and timings are made here
            return render_on_workers(
                work.suite,
                work.folder,
                work.pool,
                variants=work.variants,
                only=work.options.only,
                progress=work.progress,
            )
    from bench.render import render  # imports torch

    return render(
        work.suite,
        work.folder,
        variants=work.variants,
        device=check_device(work),
        weights_dir=work.options.weights_dir,
        only=work.options.only,
        progress=work.progress,
    )


def _score(work: Work) -> int:
    variants = [variant.name for variant in work.variants]
    if not missing_scores(work.folder, work.metrics, variants=variants):
        return 0
    return score(
        work.folder,
        variants=variants,
        metrics=work.metrics,
        device=pick_device(work.options.device),
        weights_dir=work.options.weights_dir,
        allow_remote=work.options.allow_remote,
        progress=work.progress,
    )


def _steps(work: Work) -> int:
    plan = work.options.steps or work.suite.step_metrics
    if plan is None:
        return 0
    facts = [metric.facts for metric in step_metrics_of(plan.metrics, installed(), None)]
    names = [variant.name for variant in work.variants]
    folder = work.folder
    jobs = open_step_jobs(work.suite, names, facts, plan.at, folder.renders(), folder.step_scores())
    if not jobs:
        return 0
    if work.pool is not None:
        with work.pool:
            return score_steps_on_workers(work.suite, folder, work.pool, jobs, progress=work.progress)
    from bench.steps.paths import score_steps  # imports torch

    return score_steps(
        work.suite,
        folder,
        jobs,
        device=check_device(work),
        weights_dir=work.options.weights_dir,
        progress=work.progress,
    )


def _measure(work: Work, alone: bool) -> int:
    folder, info = work.folder, work.folder.info
    known = info.machine.device if info is not None else work.options.device
    if not open_jobs(work.suite, work.variants, folder.timings(), known):
        return 0
    device = check_device(work) if work.pool is None else pick_device(work.options.device)
    here, packages = machine_facts(device), package_versions()
    if info is not None:
        if alone:
            check_environment(info, here, packages, timing_facts)
        ours, theirs = timing_facts(here, packages), timing_facts(info.machine, info.packages)
        if work.pool is not None:
            ours["the number of threads"] = theirs["the number of threads"]  # timings say their own
        if differing := differences(theirs, ours, ("there", "here")):
            folder.add_notes([f"No timings: this machine is not like the one of the run ({'; '.join(differing)})."])
            return 0
    count, notes = measure(
        work.suite,
        folder,
        variants=[variant.name for variant in work.variants],
        device=device,
        weights_dir=work.options.weights_dir,
        progress=work.progress,
    )
    folder.add_notes(notes)
    return count


def _report(work: Work, done: int, alone: bool) -> int:
    """Write the reports where they tell of anything else; one that is wanted alone does not end the run."""
    folder, info = work.folder, work.folder.info
    settle(folder, utc_now() if done or info is None or info.end is None else None)
    if not done and not alone and is_current(folder.run()):
        return 0
    if work.progress is not None:
        work.progress("report", 0, 1)
    write_report(folder.run())
    if work.progress is not None:
        work.progress("report", 1, 1)
    return 1
