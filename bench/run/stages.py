"""Each stage: what of it the run folder lacks is done. Imports torch only when there is work for it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.errors import OutOfMemory
from bench.machine import pick_device
from bench.measure import measure, open_jobs
from bench.ray_workers import render_on_workers
from bench.records import Suite
from bench.run.status import (
    Asked,
    Outcome,
    Stage,
    Work,
    now,
    pool_for,
    same_environment,
    settle,
    unrendered,
    worker_differences,
)
from bench.score import missing_scores, score
from bench.store import RunFolder, batch_of, forget_empty_run

# ``batch = "auto"``: a batch that fits is found before the first image, and halved where it did not.


def with_batch(asked: Asked, do: Callable[[Asked], Outcome]) -> Outcome:
    """Do the work with a batch where the suite leaves it open; images of two batch sizes never meet in one folder."""
    if asked.suite.settings.batch is not None:
        return do(asked)
    batch = _open_batch(asked)
    while True:
        try:
            return do(asked._replace(suite=_with(asked.suite, batch)))
        except OutOfMemory:
            if batch == 1 or not forget_empty_run(asked.path):
                raise
        # Out here the error is gone, and what it held of the models.
        _tell(asked, f"out of memory: going on with batches of {batch // 2}")
        asked = asked._replace(notes=(f"Batches are of {batch // 2}: the memory did not hold {batch}.",))
        batch //= 2


def _open_batch(asked: Asked) -> int:
    """The batch of the run that is continued, or the largest that the device holds."""
    found = None if asked.fresh else batch_of(asked.path)
    if found is not None:
        return found
    _tell(asked, "looking for the largest batch that fits")
    with pool_for(asked, None) as pool:
        if pool is not None:
            return pool.largest_batch()
    from bench.render import largest_batch

    return largest_batch(asked.suite, device=pick_device(asked.device), weights_dir=asked.weights_dir)


def _with(suite: Suite, batch: int) -> Suite:
    return msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=batch))


def _tell(asked: Asked, note: str) -> None:
    if asked.progress is not None:
        asked.progress("render", 0, 1, note)


# Each stage: what of it the run folder lacks is done. Imports torch only when there is work for it.


def do_stage(stage: Stage, work: Work, done: int, *, alone: bool) -> int:
    """Do what of a stage is missing; returns how much that was.

    Args:
        stage: which.
        work: what it works on.
        done: how much the stages before it did.
        alone: nothing but this stage is asked for.
    """
    if stage == "report":
        return _report(work, done, alone)
    work_of_stage = {"render": _render, "score": _score, "measure": _measure}[stage]
    found = work_of_stage(work)
    if alone and work.folder.info is not None and work.folder.info.end is not None:
        settle(work.folder, None)  # a run that had ended: what was lost or added since may be all there now
    return found


def _render(work: Work) -> int:
    if not unrendered(work.suite, work.folder, work.variants):
        return 0
    if work.pool is not None:
        with work.pool:  # its devices are free again before scores and timings are made here
            return render_on_workers(work.suite, work.folder, work.pool, variants=work.variants, progress=work.progress)
    from bench.render import render

    return render(
        work.suite,
        work.folder,
        variants=work.variants,
        device=same_environment(work),
        weights_dir=work.weights_dir,
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
        device=pick_device(work.device),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )


def _measure(work: Work) -> int:
    known = work.folder.info.machine.device if work.folder.info is not None else work.device
    if not open_jobs(work.suite, work.variants, work.folder.timings(), known):
        return 0
    if unlike := worker_differences(work):
        work.folder.add_notes([f"No timings: the driver's machine is not like the workers' ({'; '.join(unlike)})."])
        return 0
    done = measure(
        work.suite,
        work.folder,
        variants=[variant.name for variant in work.variants],
        device=same_environment(work) if work.pool is None else pick_device(work.device),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )
    work.folder.add_notes(done.notes)
    return done.timings


def _report(work: Work, done: int, asked_for: bool) -> int:
    """Write the reports where they tell of anything else; one that is asked for alone is no end of the run."""
    folder, info = work.folder, work.folder.info
    settle(folder, now() if done or info is None or info.end is None else None)
    if not done and not asked_for and _reports_are_current(folder):
        return 0
    from bench.report import write_report

    if work.progress is not None:
        work.progress("report", 0, 1)
    write_report(folder.path)
    if work.progress is not None:
        work.progress("report", 1, 1)
    return 1


def _reports_are_current(folder: RunFolder) -> bool:
    from bench.report.facts import is_current

    return is_current(folder.path)
