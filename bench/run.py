"""The stages in order: render, score, measure, report. Imports torch only when there is work for it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.cells import missing_cells
from bench.errors import InvalidError, OutOfMemory, UsageError
from bench.fleet import Fleet, render_on_fleet
from bench.machine import git_state, machine_facts, package_versions, pick_device
from bench.measure import measure, open_jobs, pick_variants
from bench.metrics import facts_for, facts_of_run
from bench.records import (
    SCHEMA,
    Dtype,
    Fingerprint,
    Machine,
    MetricFacts,
    Progress,
    Record,
    Render,
    RunInfo,
    Suite,
    Variant,
)
from bench.score import missing_scores, score
from bench.store import RunFolder, batch_of, forget_empty_run, load_run, run_id
from bench.store.guards import check_same_machine, ground_differences
from bench.suite import protocol_digest
from bench.variants import fingerprint

Stage = Literal["render", "score", "measure", "report"]
STAGES: tuple[Stage, ...] = ("render", "score", "measure", "report")
FUSED = "LoRAs were fused into the weights for the run; a LoRA applied at run time differs slightly in pixels and cost."


class Outcome(Record, frozen=True):
    """What a run folder holds after the work, and whether there was any."""

    path: str
    images: int
    failed: int
    scores: int
    missing: int
    """Images that were asked for and have no record."""
    timings: int
    notes: tuple[str, ...]
    done_before: bool


def run_all(
    suite: Suite,
    path: Path | str,
    *,
    variants: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    fresh: bool = False,
    weights_dir: Path | None = None,
    tower_dtype: Dtype | None = None,
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
        tower_dtype: what the towers of judges compute in; None for what the folder's scores were made with.
        ray: address of a Ray cluster that renders, or ``auto``; all else is done here.
        progress: told how far each stage is.

    Raises:
        UsageError, WeightsError, IncomparableError, MachineError: as the stages do.
        InvalidError: every image failed.
    """
    return _run(STAGES, _Asked(suite, path, variants, metrics, device, fresh, weights_dir, tower_dtype, ray, progress))


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
    tower_dtype: Dtype | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """One stage alone; arguments and errors as ``run_all``.

    Raises:
        InvalidError: the stage needs images and the folder has none.
    """
    return _run(
        (stage,), _Asked(suite, path, variants, metrics, device, fresh, weights_dir, tower_dtype, ray, progress)
    )


class _Asked(NamedTuple):
    """The arguments of ``run_all``."""

    suite: Suite
    path: Path | str
    variants: Sequence[str] | None
    metrics: Sequence[str] | None
    device: str
    fresh: bool
    weights_dir: Path | None
    tower_dtype: Dtype | None
    ray: str | None
    progress: Progress | None


class _Work(NamedTuple):
    """What every stage works on, checked: an open folder, and which variants and metrics of the suite."""

    suite: Suite
    folder: RunFolder
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]
    device: str
    weights_dir: Path | None
    tower_dtype: Dtype | None
    fleet: Fleet | None
    """The workers on Ray; None where this process renders."""
    progress: Progress | None


def _run(stages: tuple[Stage, ...], asked: _Asked) -> Outcome:
    """The stages, with a batch that fits where the suite leaves it open (``batch = "auto"``)."""
    if asked.suite.settings.batch is not None:
        return _run_once(stages, asked)
    batch = _open_batch(asked)
    while True:
        settings = msgspec.structs.replace(asked.suite.settings, batch=batch)
        try:
            return _run_once(stages, asked._replace(suite=msgspec.structs.replace(asked.suite, settings=settings)))
        except OutOfMemory:
            # Images of two batch sizes never meet in one folder.
            if batch == 1 or not forget_empty_run(asked.path):
                raise
            batch //= 2
            if asked.progress is not None:
                asked.progress("render", 0, 1, f"out of memory: going on with batches of {batch}")


def _open_batch(asked: _Asked) -> int:
    """The batch of the run that is continued, or the largest that the device holds."""
    found = None if asked.fresh else batch_of(asked.path)
    if found is not None:
        return found
    from bench.render import largest_batch

    if asked.progress is not None:
        asked.progress("render", 0, 1, "looking for the largest batch that fits")
    return largest_batch(asked.suite, device=pick_device(asked.device), weights_dir=asked.weights_dir)


def _run_once(stages: tuple[Stage, ...], asked: _Asked) -> Outcome:
    suite = asked.suite
    variants = tuple(pick_variants(suite, asked.variants))
    metrics = tuple(asked.metrics) if asked.metrics is not None else suite.metrics
    facts_for(metrics)
    if suite.given is not None and not {"render", "measure"}.isdisjoint(stages):
        raise UsageError(
            f"{asked.path}: its images were given; there is no model to render or to time.",
            f"hotart-bench score {shlex.quote(str(asked.path))}",
        )
    if asked.ray is not None and len(stages) > 1:
        pick_device(asked.device)  # scores and timings are made here: a device that is not here is told at once
    with (
        RunFolder.open(asked.path, suite=suite, protocol_digest=protocol_digest(suite), fresh=asked.fresh) as folder,
        _fleet(asked, folder.info) as fleet,
    ):
        local = (asked.device, asked.weights_dir, asked.tower_dtype, fleet, asked.progress)
        work = _Work(suite, folder, variants, metrics, *local)
        _refuse_empty(stages, folder)
        _adopt(stages, work)
        done = 0
        for stage in stages:
            done += _report(work, done, stages == ("report",)) if stage == "report" else _DO[stage](work)
        outcome = _outcome(work, done_before=done == 0)
    if outcome.images == 0 and outcome.failed:
        raise InvalidError(f"{asked.path}: all {outcome.failed} images failed.", f"see {asked.path}/renders.jsonl")
    return outcome


def _fleet(asked: _Asked, info: RunInfo | None) -> AbstractContextManager[Fleet | None]:
    """The workers on Ray, if they are asked for; none is started before it has something to render."""
    if asked.ray is None:
        return nullcontext()
    # A run on CPUs goes on with the threads that it was begun with, since they change pixels.
    known = info.machine.threads if info is not None and info.machine.device == "cpu" else None
    wished = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = known or (int(wished) if wished.isdecimal() and int(wished) else 1)
    return Fleet(asked.ray, asked.suite, device=asked.device, threads=threads, weights_dir=asked.weights_dir)


def _refuse_empty(stages: tuple[Stage, ...], folder: RunFolder) -> None:
    if stages[0] in ("score", "report") and not folder.renders():
        raise InvalidError(f"{folder.path}: has no images yet.", "hotart-bench render, or hotart-bench run, first")


def _adopt(stages: tuple[Stage, ...], work: _Work) -> None:
    """Bring ``run.json`` to what is asked for now; a variant whose weights changed loses its old results."""
    suite, folder = work.suite, work.folder
    old = folder.info
    prints = {known.name: known for known in old.variants} if old is not None else {}
    if stages != ("report",) and stages != ("score",):
        now = {variant.name: fingerprint(variant, work.weights_dir) for variant in work.variants}
        changed = [name for name in now if name in prints and prints[name].digest != now[name].digest]
        if changed:
            _same_ground(work)  # or the old results would be gone and no new ones allowed
        for name in changed:
            folder.drop_variant(name)
        audits = {name: old.audit for name, old in prints.items() if name not in changed}
        prints |= {name: msgspec.structs.replace(one, audit=audits.get(name)) for name, one in now.items()}
    ordered = tuple(prints[variant.name] for variant in suite.variants if variant.name in prints)
    scored = old.metrics if old is not None else ()
    every = tuple(dict.fromkeys((*suite.metrics, *(known.name for known in scored), *work.metrics)))
    facts = facts_of_run(every, scored, work.metrics, work.tower_dtype)
    info = _first_info(suite, ordered, facts, work) if old is None else _next_info(old, suite, ordered, facts)
    if info != old:
        folder.write_info(info)


def _first_info(
    suite: Suite, variants: tuple[Fingerprint, ...], metrics: tuple[MetricFacts, ...], work: _Work
) -> RunInfo:
    machine, packages = _ground(work)
    return RunInfo(
        schema=SCHEMA,
        id=run_id(),
        status="started",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=variants,
        metrics=metrics,
        machine=machine,
        packages=packages,
        git=git_state(Path.cwd()),
        start=_now(),
        end=None,
        settings_notes=(FUSED,) if any(variant.loras for variant in suite.variants) else (),
    )


def _next_info(
    old: RunInfo, suite: Suite, variants: tuple[Fingerprint, ...], metrics: tuple[MetricFacts, ...]
) -> RunInfo:
    return msgspec.structs.replace(old, suite=suite, variants=variants, metrics=metrics)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _render(work: _Work) -> int:
    if not _unrendered(work.suite, work.folder, work.variants):
        return 0
    if work.fleet is not None:
        with work.fleet:  # its devices are free again before scores and timings are made here
            return render_on_fleet(work.suite, work.folder, work.fleet, variants=work.variants, progress=work.progress)
    from bench.render import render

    return render(
        work.suite,
        work.folder,
        variants=work.variants,
        device=_same_ground(work),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )


def _ground(work: _Work) -> tuple[Machine, dict[str, str]]:
    """The machine that renders, and its packages: this one, or the workers'."""
    if work.fleet is not None:
        return work.fleet.ground()
    return machine_facts(pick_device(work.device)), package_versions()


def _same_ground(work: _Work) -> str:
    """The device, once it is sure that what renders may add to the folder."""
    machine, packages = _ground(work)
    if work.folder.info is not None:
        check_same_machine(work.folder.info, machine, packages)
    return machine.device


def _score(work: _Work) -> int:
    if not missing_scores(work.folder, work.metrics):
        return 0
    return score(
        work.folder,
        metrics=work.metrics,
        device=pick_device(work.device),
        weights_dir=work.weights_dir,
        progress=work.progress,
    )


def _measure(work: _Work) -> int:
    known = work.folder.info.machine.device if work.folder.info is not None else work.device
    if not open_jobs(work.suite, work.variants, work.folder.timings(), known):
        return 0
    device = _same_ground(work) if work.fleet is None else _timing_device(work)
    if device is None:
        return 0
    done = measure(
        work.suite,
        work.folder,
        variants=[variant.name for variant in work.variants],
        device=device,
        weights_dir=work.weights_dir,
        progress=work.progress,
    )
    _note(work.folder, done.notes)
    return done.timings


def _timing_device(work: _Work) -> str | None:
    """Where to time a run that Ray renders: here, if this machine is like the workers'; else None, and a note."""
    place = pick_device(work.device)
    info = work.folder.info
    if info is None:
        return place
    here = msgspec.structs.replace(machine_facts(place), threads=info.machine.threads)  # timings say their own
    differences = ground_differences(info, here, package_versions())
    if not differences:
        return place
    _note(work.folder, [f"No timings: the driver's machine is not like the workers' ({'; '.join(differences)})."])
    return None


_DO: dict[Stage, Callable[[_Work], int]] = {"render": _render, "score": _score, "measure": _measure}
"""Each does what of its stage is missing, and returns how much was done."""


def _note(folder: RunFolder, notes: Sequence[str]) -> None:
    if folder.info is not None and notes:
        every = tuple(dict.fromkeys((*folder.info.settings_notes, *notes)))
        folder.write_info(msgspec.structs.replace(folder.info, settings_notes=every))


def _report(work: _Work, done: int, asked_for: bool) -> int:
    """Write the reports where something is new; one that is asked for alone is written anew, and no end of the run."""
    folder, info = work.folder, work.folder.info
    complete = _is_complete(work.suite, folder)
    if info is not None and (done or info.end is None):
        status: Literal["complete", "started"] = "complete" if complete else "started"
        folder.write_info(msgspec.structs.replace(info, status=status, end=_now()))
    if not (done or asked_for) and all((folder.path / name).is_file() for name in ("report.html", "report.md")):
        return 0
    from bench.report import write_report

    if work.progress is not None:
        work.progress("report", 0, 1)
    write_report(folder.path)
    if work.progress is not None:
        work.progress("report", 1, 1)
    return 1


def _unrendered(suite: Suite, folder: RunFolder, chosen: Sequence[Variant]) -> int:
    """How many images of these variants have no record, or have lost their file."""
    renders = folder.renders()
    return sum(len(missing_cells(suite, variant.name, renders, folder.path)) for variant in chosen)


def _is_complete(suite: Suite, folder: RunFolder) -> bool:
    device = folder.info.machine.device if folder.info is not None else "cpu"
    checks: tuple[Callable[[], bool], ...] = (
        lambda: not _unrendered(suite, folder, suite.variants),
        lambda: not missing_scores(folder, suite.metrics),
        lambda: not open_jobs(suite, suite.variants, folder.timings(), device),
    )
    return all(check() for check in checks)


def _outcome(work: _Work, done_before: bool) -> Outcome:
    folder = work.folder
    renders = folder.renders()
    failed = [render for render in renders if render.error is not None]
    return Outcome(
        path=str(folder.path),
        images=len(renders) - len(failed),
        failed=len(failed),
        scores=len(folder.scores()),
        missing=_unrendered(work.suite, folder, work.variants),
        timings=len(folder.timings()),
        notes=_outcome_notes(folder, failed, len(renders)),
        done_before=done_before,
    )


def _outcome_notes(folder: RunFolder, failed: Sequence[Render], images: int) -> tuple[str, ...]:
    """What the user should know of the folder: failed images, cut prompts, prompts that were left out."""
    from bench.report.doubts import cut_notes, left_out_notes

    run = load_run(folder.path)
    one = f"{failed[0].variant}/{failed[0].case}: {failed[0].error}" if failed else ""
    broken = (f"{len(failed)} of {images} images failed, such as {one}.",) if failed else ()
    return (*broken, *cut_notes(run), *left_out_notes(run.info.suite))
