"""How far a run has come, what ``run.json`` says of it, and what is told when the work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.checkpoints.fingerprint import fingerprint
from bench.comparability import check_environment
from bench.documents import utc_now
from bench.errors import HotartError
from bench.formatting import joined
from bench.machine import git_state, machine_facts, package_versions, pick_device
from bench.measure import open_jobs
from bench.metrics import all_metrics, facts_of_run
from bench.ray_workers import WorkerPool
from bench.records import (
    SCHEMA,
    Fingerprint,
    Machine,
    Progress,
    Record,
    RunInfo,
    RunOptions,
    Status,
    Suite,
    Variant,
)
from bench.report.facts import cut_notes, left_out_notes
from bench.score import missing_scores
from bench.store import RunFolder, run_id
from bench.suite import protocol_digest
from bench.suite.planned_images import missing_batches, missing_images

Stage = Literal["render", "score", "measure", "report"]
STAGES: tuple[Stage, ...] = ("render", "score", "measure", "report")


class Work(NamedTuple):
    """What every stage works on, checked: an open folder, and which variants and metrics of the suite."""

    suite: Suite
    folder: RunFolder
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]
    options: RunOptions
    pool: WorkerPool | None
    """The Ray workers; None where this process renders."""
    progress: Progress | None


# How far a run has come: what its folder lacks, and whether ``run.json`` may call it complete. Imports no torch.


def unrendered(suite: Suite, folder: RunFolder, chosen: Sequence[Variant]) -> int:
    """How many images of these variants have no record, or have lost their file."""
    renders = folder.renders()
    return sum(len(missing_images(suite, variant.name, renders, folder.path)) for variant in chosen)


def is_complete(folder: RunFolder) -> bool:
    """Whether the folder holds every image, score and timing of the suite in its ``run.json``."""
    info = folder.info
    if info is None:
        return False
    suite = info.suite
    return not (
        unrendered(suite, folder, suite.variants)
        or _unscored(folder, suite.metrics)
        or open_jobs(suite, suite.variants, folder.timings(), info.machine.device)
    )


def _unscored(folder: RunFolder, metrics: Sequence[str]) -> bool:
    """Whether scores are missing; of a metric that is not installed here, every image needs one of any version."""
    here = [name for name in metrics if name in all_metrics()]
    scored = {(one.variant, one.prompt_id, one.sample, one.metric) for one in folder.scores()}
    return missing_scores(folder, here) > 0 or any(
        (one.variant, one.prompt_id, one.sample, name) not in scored
        for name in metrics
        if name not in here
        for one in folder.renders()
    )


def mark_failed(folder: RunFolder) -> None:
    """Let ``run.json`` say that the run ended with an error, unless it is complete all the same."""
    info = folder.info
    if info is not None and info.status == "started":
        with contextlib.suppress(HotartError, OSError):  # it may be the disk that failed
            status: Status = "complete" if is_complete(folder) else "failed"
            folder.write_info(msgspec.structs.replace(info, status=status))


def settle(folder: RunFolder, end: str | None) -> None:
    """Make the status in ``run.json`` what is true now; the end of the run is ``end``, or stays where it is None.

    A run that failed stays so until it is complete.
    """
    info = folder.info
    if info is None:
        return
    unfinished: Status = "failed" if info.status == "failed" else "started"
    status = "complete" if is_complete(folder) else unfinished
    new = msgspec.structs.replace(info, status=status, end=end if end is not None else info.end)
    if new != info:
        folder.write_info(new)


# The environment that renders: this machine, or the Ray workers.


def environment_of(work: Work) -> tuple[Machine, dict[str, str]]:
    """The machine that renders, and its packages."""
    if work.pool is None:
        return machine_facts(pick_device(work.options.device)), package_versions()
    renders, path = work.folder.renders(), work.folder.path
    return work.pool.environment(
        sum(len(missing_batches(work.suite, variant.name, renders, path)) for variant in work.variants)
    )


def check_device(work: Work) -> str:
    """The device that renders, once it is sure that it may add images to the folder.

    Raises:
        IncomparableError: it makes other pixels than the run was begun with; every fact that differs is named.
    """
    machine, packages = environment_of(work)
    if work.folder.info is not None:
        check_environment(work.folder.info, machine, packages)
    return machine.device


# ``run.json``: brought to what is wanted now.

FUSED = "LoRAs were fused into the weights for the run; an unfused LoRA differs slightly in pixels and cost."
UNFUSED = (
    "LoRAs were computed unfused in every step (fuse = false), and no block compiled there; fused into the "
    "weights they differ slightly in pixels and cost."
)


def update_info(stages: tuple[Stage, ...], work: Work) -> None:
    """Bring ``run.json`` to what is wanted now; a variant whose weights changed loses its old results.

    It says ``started`` from here on, until all that it names is there, or the work ends with an error.
    """
    folder, old = work.folder, work.folder.info
    found: dict[str, Fingerprint] = {}
    if stages not in (("report",), ("score",)):
        found = {variant.name: fingerprint(variant, work.options.weights_dir) for variant in work.variants}
    new = _info(work, old, found, work.metrics if "score" in stages else ())
    if old is None:
        folder.write_info(new)
        return
    # Results of other weights, or of weights that the folder does not know.
    known = {one.name: one.digest for one in old.variants}
    held = known.keys() | {one.variant for one in folder.renders()} | {one.variant for one in folder.timings()}
    changed = [name for name, one in found.items() if known.get(name) != one.digest and name in held]
    renders = "render" in stages and work.pool is None and unrendered(work.suite, folder, work.variants)
    if changed or renders:
        check_device(work)  # or the old results would be gone and no new ones allowed
    if stages != ("report",) and old.status != "started" and (new != old or not is_complete(folder)):
        folder.write_info(msgspec.structs.replace(old, status="started"))
        new = msgspec.structs.replace(new, status="started")
    for name in changed:
        folder.drop_variant(name)
    if new != folder.info:
        folder.write_info(new)


def _info(work: Work, old: RunInfo | None, found: dict[str, Fingerprint], scoring: Sequence[str]) -> RunInfo:
    """``run.json`` with the variants as they were ``found`` now; the others stay what their images were made of.

    Metrics that are not among those of ``scoring`` stay as recorded, as their scores do; they need not be installed.
    """
    suite, scored = work.suite, old.metrics if old is not None else ()
    prints = dict(found)
    if old is not None:
        kept = {one.name: one for one in old.variants}
        same = {name: one.audit for name, one in kept.items() if name in found and one.digest == found[name].digest}
        prints = kept | {name: msgspec.structs.replace(one, audit=same.get(name)) for name, one in found.items()}
        made = {one.name: one for one in old.suite.variants if one.name in kept and one.name not in found}
        suite = msgspec.structs.replace(suite, variants=tuple(made.get(one.name, one) for one in suite.variants))
    variants = tuple(prints[variant.name] for variant in suite.variants if variant.name in prints)
    every = tuple(dict.fromkeys((*suite.metrics, *(known.name for known in scored), *work.metrics)))
    facts = {known.name: known for known in scored if known.name not in scoring}
    new = [name for name in every if name not in facts]
    rescored = [name for name in work.metrics if name in new]
    facts |= {known.name: known for known in facts_of_run(new, scored, rescored, work.options.metric_dtype)}
    metrics = tuple(facts[name] for name in every)
    notes = lora_notes(variants)
    if old is not None:
        outdated = {FUSED, *lora_notes(old.variants)}
        notes = (*notes, *(note for note in old.settings_notes if note not in outdated))
        return msgspec.structs.replace(old, suite=suite, variants=variants, metrics=metrics, settings_notes=notes)
    machine, packages = environment_of(work)
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
        start=utc_now(),
        end=None,
        settings_notes=notes,
    )


def lora_notes(variants: Sequence[Fingerprint]) -> tuple[str, ...]:
    """How the LoRAs of these variants were applied, in a sentence for each way; none where there are none."""
    modes = (("fused", FUSED), ("unfused", UNFUSED))
    ways = [([one.name for one in variants if one.lora_mode == mode], sentence) for mode, sentence in modes]
    ways = [(names, sentence) for names, sentence in ways if names]
    if len(ways) == 1:
        return (ways[0][1],)
    return tuple(sentence.replace("LoRAs", f"LoRAs of {joined(names)}", 1) for names, sentence in ways)


# What is told of a run folder when the work is done.


class Outcome(Record, frozen=True):
    """What a run folder holds after the work, and whether there was any."""

    path: str
    images: int
    failed: int
    scores: int
    missing: int
    """Images of the chosen variants that have no record."""
    timings: int
    notes: tuple[str, ...]
    done_before: bool


def outcome_of(work: Work, done_before: bool) -> Outcome:
    """Count what a run folder holds; ``done_before`` says that there was nothing to do."""
    folder, run = work.folder, work.folder.run()
    renders = folder.renders()
    failed = [render for render in renders if render.error is not None]
    notes = (*cut_notes(run), *left_out_notes(run.info.suite))
    if failed:
        one = f"{failed[0].variant}/{failed[0].prompt_id}: {failed[0].error}"
        notes = (f"{len(failed)} of {len(renders)} images failed, such as {one}.", *notes)
    return Outcome(
        path=str(folder.path),
        images=len(renders) - len(failed),
        failed=len(failed),
        scores=len(folder.scores()),
        missing=unrendered(work.suite, folder, work.variants),
        timings=len(folder.timings()),
        notes=notes,
        done_before=done_before,
    )
