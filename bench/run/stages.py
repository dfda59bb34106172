"""Each stage: what of it the run folder lacks is done. Imports torch only when there is work for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from bench.cells import missing_cells
from bench.fleet import render_on_fleet
from bench.machine import pick_device
from bench.measure import measure, open_jobs
from bench.records import Suite, Variant
from bench.run.asked import Stage, Work
from bench.run.ground import same_ground, unlike_workers
from bench.run.info import now
from bench.score import missing_scores, score
from bench.store import RunFolder


def do_stage(stage: Stage, work: Work, done: int, *, alone: bool) -> int:
    """Do what of a stage is missing; returns how much that was.

    Args:
        stage: which.
        work: what it works on.
        done: how much the stages before it did.
        alone: nothing but this stage is asked for.
    """
    match stage:
        case "render":
            return _render(work)
        case "score":
            return _score(work)
        case "measure":
            return _measure(work)
        case "report":
            return _report(work, done, alone)


def _render(work: Work) -> int:
    if not unrendered(work.suite, work.folder, work.variants):
        return 0
    if work.fleet is not None:
        with work.fleet:  # its devices are free again before scores and timings are made here
            return render_on_fleet(work.suite, work.folder, work.fleet, variants=work.variants, progress=work.progress)
    from bench.render import render

    return render(
        work.suite,
        work.folder,
        variants=work.variants,
        device=same_ground(work),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )


def _score(work: Work) -> int:
    if not missing_scores(work.folder, work.metrics):
        return 0
    return score(
        work.folder,
        metrics=work.metrics,
        device=pick_device(work.device),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )


def _measure(work: Work) -> int:
    known = work.folder.info.machine.device if work.folder.info is not None else work.device
    if not open_jobs(work.suite, work.variants, work.folder.timings(), known):
        return 0
    if unlike := unlike_workers(work):
        work.folder.add_notes([f"No timings: the driver's machine is not like the workers' ({'; '.join(unlike)})."])
        return 0
    done = measure(
        work.suite,
        work.folder,
        variants=[variant.name for variant in work.variants],
        device=same_ground(work) if work.fleet is None else pick_device(work.device),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )
    work.folder.add_notes(done.notes)
    return done.timings


def _report(work: Work, done: int, asked_for: bool) -> int:
    """Write the reports where something is new; one that is asked for alone is written anew, and no end of the run."""
    folder, info = work.folder, work.folder.info
    complete = _is_complete(work.suite, folder)
    if info is not None and (done or info.end is None):
        status: Literal["complete", "started"] = "complete" if complete else "started"
        folder.write_info(msgspec.structs.replace(info, status=status, end=now()))
    if not (done or asked_for) and all((folder.path / name).is_file() for name in ("report.html", "report.md")):
        return 0
    from bench.report import write_report

    if work.progress is not None:
        work.progress("report", 0, 1)
    write_report(folder.path)
    if work.progress is not None:
        work.progress("report", 1, 1)
    return 1


def unrendered(suite: Suite, folder: RunFolder, chosen: Sequence[Variant]) -> int:
    """How many images of these variants have no record, or have lost their file."""
    renders = folder.renders()
    return sum(len(missing_cells(suite, variant.name, renders, folder.path)) for variant in chosen)


def _is_complete(suite: Suite, folder: RunFolder) -> bool:
    device = folder.info.machine.device if folder.info is not None else "cpu"
    checks: tuple[Callable[[], bool], ...] = (
        lambda: not unrendered(suite, folder, suite.variants),
        lambda: not missing_scores(folder, suite.metrics),
        lambda: not open_jobs(suite, suite.variants, folder.timings(), device),
    )
    return all(check() for check in checks)
