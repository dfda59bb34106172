"""How far a run has come, what ``run.json`` says of it, and what is told when the work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.checkpoints.fingerprint import fingerprint
from bench.comparability import check_environment
from bench.compare import variant_pairs
from bench.compare.finding import find_in_run
from bench.documents import utc_now
from bench.errors import HotartError, InvalidError
from bench.formatting import argument, joined, listed, making, plural
from bench.machine import git_state, machine_facts, package_versions, pick_device
from bench.metrics import facts_of_run
from bench.metrics.declare import Place
from bench.metrics.image_checks import duplicates
from bench.questions.registry import identities, registry_of_suite, training_for_suite
from bench.ray_workers import WorkerPool
from bench.records import (
    RUN_SCHEMA,
    Fingerprint,
    Machine,
    Progress,
    Record,
    Run,
    RunInfo,
    RunOptions,
    Status,
    Suite,
    Variant,
)
from bench.report.facts import cut_notes, doubled_notes, equal_partner_notes, left_out_notes
from bench.score import missing_scores
from bench.soundness import Hashes, is_finished
from bench.store import RunFolder, run_id
from bench.store.reading import image_hashes
from bench.suite import protocol_digest
from bench.suite.images_table import NOT_GIVEN
from bench.suite.planned_images import is_wanted, missing_batches, missing_images
from bench.trained_on import find_training

Stage = Literal["render", "score", "steps", "measure", "report"]
STAGES: tuple[Stage, ...] = ("render", "score", "measure", "report")
STEPS_TOO: tuple[Stage, ...] = ("render", "score", "steps", "measure", "report")
"""The stages of a suite that says which steps are scored."""


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


def unrendered(
    suite: Suite, folder: RunFolder, chosen: Sequence[Variant], only: Collection[tuple[str, int]] | None = None
) -> int:
    """How many images of these variants, or those of ``only``, have no record, or have lost their file."""
    renders = folder.renders()
    return sum(
        is_wanted(image, only)
        for variant in chosen
        for image in missing_images(suite, variant.name, renders, folder.path)
    )


def is_complete(folder: RunFolder) -> bool:
    """Whether the run in the folder is finished (``bench.soundness``); images are looked for, but not read."""
    if folder.info is None:
        return False
    run = folder.run()
    there = {
        one.image: one.sha256 for one in run.renders if one.image is not None and (folder.path / one.image).is_file()
    }
    return is_finished(run, there, run.info.suite.metrics)


def mark_failed(folder: RunFolder) -> None:
    """Let ``run.json`` say that the run ended with an error, unless it is complete all the same."""
    info = folder.info
    if info is not None and info.status == "started":
        with contextlib.suppress(HotartError, OSError):  # it may be the disk that failed
            status: Status = "complete" if is_complete(folder) else "failed"
            folder.write_info(msgspec.structs.replace(info, status=status))


def settle(folder: RunFolder, end: str | None) -> None:
    """Make the status in ``run.json`` what is true now; the end of the run is ``end``, or stays where it is None.

    A run that failed stays so until it is complete, and one that is complete has an end.
    """
    info = folder.info
    if info is None:
        return
    unfinished: Status = "failed" if info.status == "failed" else "started"
    status = "complete" if is_complete(folder) else unfinished
    ended = end or info.end or (utc_now() if status == "complete" else None)
    new = msgspec.structs.replace(info, status=status, end=ended)
    if new != info:
        folder.write_info(new)


# The environment that renders: this machine, or the Ray workers.


def environment_of(work: Work) -> tuple[Machine, dict[str, str]]:
    """The machine that renders, and its packages."""
    if work.pool is None:
        return machine_facts(pick_device(work.options.device)), package_versions()
    renders, path = work.folder.renders(), work.folder.path
    return work.pool.environment(
        sum(
            len(missing_batches(work.suite, variant.name, renders, path, work.options.only))
            for variant in work.variants
        )
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
NOT_SCORED = "Not scored, since their weights are not here: "
"""Begins the note of a run whose suite leaves metrics out; it holds until the next time."""
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
        settings = work.suite.settings
        found = {variant.name: fingerprint(variant, work.options.weights_dir, settings) for variant in work.variants}
    new = _info(work, old, found, work.metrics if "score" in stages else ())
    if old is None:
        folder.write_info(new)
        return
    # Results of other weights, or of weights that the folder does not know.
    known = {one.name: one.digest for one in old.variants}
    held = known.keys() | {one.variant for one in folder.renders()} | {one.variant for one in folder.timings()}
    changed = [name for name, one in found.items() if known.get(name) != one.digest and name in held]
    lost = unrendered(work.suite, folder, work.variants)
    if changed or (lost and not {"render", "steps"}.isdisjoint(stages) and work.pool is None):
        check_device(work)  # or the old results would be gone and no new ones allowed
    if stages != ("report",) and old.status != "started" and (new != old or lost or not is_complete(folder)):
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
    prints, learnt = dict(found), training_for_suite(suite)
    where = suite.source or suite.name
    trained = {
        one.name: find_training(one, work.options.weights_dir, learnt, where)
        for one in work.variants
        if one.name in found
    }
    if old is not None:
        kept = {one.name: one for one in old.variants}
        same = {name: one.audit for name, one in kept.items() if name in found and one.digest == found[name].digest}
        prints = kept | {name: msgspec.structs.replace(one, audit=same.get(name)) for name, one in found.items()}
        made = {one.name: one for one in old.suite.variants if one.name in kept and one.name not in found}
        suite = msgspec.structs.replace(suite, variants=tuple(made.get(one.name, one) for one in suite.variants))
        trained = {name: one for name, one in old.trained_on.items() if name in kept} | trained
    variants = tuple(prints[variant.name] for variant in suite.variants if variant.name in prints)
    every = tuple(dict.fromkeys((*suite.metrics, *(known.name for known in scored), *work.metrics)))
    facts = {known.name: known for known in scored if known.name not in scoring}
    new = [name for name in every if name not in facts]
    rescored = [name for name in work.metrics if name in new]
    place = Place(weights_dir=work.options.weights_dir, allow_remote=work.options.allow_remote)
    who = identities(scoring, registry_of_suite(suite), place)
    registry = registry_of_suite(suite, identified=who)
    facts |= {known.name: known for known in facts_of_run(new, scored, rescored, work.options.metric_dtype, registry)}
    metrics = tuple(facts[name] for name in every)
    notes = lora_notes(variants)
    if old is not None:
        outdated = {FUSED, *lora_notes(old.variants)}
        still = (note for note in old.settings_notes if note not in outdated and not note.startswith(NOT_SCORED))
        notes = (*notes, *still)
        return msgspec.structs.replace(
            old, suite=suite, variants=variants, metrics=metrics, trained_on=trained, settings_notes=notes
        )
    machine, packages = environment_of(work)
    return RunInfo(
        schema=RUN_SCHEMA,
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
        trained_on=trained,
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
    findings: tuple[str, ...] = ()
    """The first sentence of each finding, where a report was asked for."""


def outcome_of(work: Work, done_before: bool, *, reported: bool) -> Outcome:
    """Count what a run folder holds; ``done_before`` says that there was nothing to do, ``reported`` that the run's
    findings are told."""
    folder, run = work.folder, work.folder.run()
    renders = folder.renders()
    absent = sum(render.error == NOT_GIVEN for render in renders)
    failed = [render for render in renders if render.error not in (None, NOT_GIVEN)]
    notes = (
        *cut_notes(run),
        *left_out_notes(run.info.suite),
        *doubled_notes(run),
        *equal_partner_notes(run),
        *_unscored_note(run),
        *_unscored_sets_note(run),
    )
    if failed:
        one = f"{failed[0].variant}/{failed[0].prompt_id}: {failed[0].error}"
        notes = (f"{len(failed)} of {len(renders) - absent} images failed, such as {one}.", *notes)
    if absent:
        lacking = f"in all {plural(absent, 'image')} fewer"
        notes = (f"Some prompts, or variants of them, have fewer images than the one with most: {lacking}.", *notes)
    pairs = variant_pairs(run.info.suite) if reported else ()
    return Outcome(
        path=str(folder.path),
        images=len(renders) - len(failed) - absent,
        failed=len(failed),
        scores=len(folder.scores()) + len(folder.set_scores()),
        missing=unrendered(work.suite, folder, work.variants),
        timings=len(folder.timings()),
        notes=notes,
        done_before=done_before,
        findings=tuple(one.sentences[0] for one in find_in_run(run, pairs)),
    )


def _unscored_note(run: Run) -> tuple[str, ...]:
    """A sentence on the scores that could not be made and are tried again by the next ``score``.

    Images that equal another one have none on purpose.
    """
    there = {(one.variant, one.prompt_id, one.sample) for one in run.renders if one.sha256 is not None}
    there -= duplicates(run.renders).keys()
    lacking = [
        one
        for one in run.scores
        if one.value is None and one.image_sha256 is None and (one.variant, one.prompt_id, one.sample) in there
    ]
    if not lacking:
        return ()
    first = lacking[0]
    such = f"{first.metric} of {first.variant}/{first.prompt_id}: {first.reason}"
    return (f"{len(lacking)} of {plural(len(run.scores), 'score')} could not be made, such as {such}.",)


def _unscored_sets_note(run: Run) -> tuple[str, ...]:
    """A sentence on the set scores that could not be made and are tried again by the next ``score``."""
    lacking = [one for one in run.set_scores if one.value is None and one.images_sha256 is None]
    if not lacking:
        return ()
    first = lacking[0]
    of = first.prompt_id or (f"tag {first.tag}" if first.tag else "all prompts")
    such = f"{first.metric} of {first.variant}, {of}: {first.reason}"
    return (f"{len(lacking)} of {plural(len(run.set_scores), 'set score')} could not be made, such as {such}.",)


def unfinished(stages: tuple[Stage, ...], work: Work, place: Path | str) -> InvalidError | None:
    """Why work on the run at a path or URL is not done; None where every image is there and is the one on record.

    Where every image of a variant is gone, its folder was pruned: that is no fault as long as its scores are there.
    """
    run, names = work.folder.run(), [variant.name for variant in work.variants]
    needed = [
        name for name in names if "score" in stages and missing_scores(work.folder, work.metrics, variants=[name])
    ]
    lost = lost_images(run, place, image_hashes(run), variants=names, needed=needed)
    if lost is not None:
        return lost
    left = unrendered(work.suite, work.folder, work.variants, work.options.only) if "render" in stages else 0
    if left:
        return InvalidError(f"{place}: {plural(left, 'image')} still to render.", "give the same command again")
    return None


def lost_images(
    run: Run, place: Path | str, hashes: Hashes, *, variants: Collection[str], needed: Collection[str] = ()
) -> InvalidError | None:
    """Which images changed since they were made, or are gone; None where there is no such image.

    Args:
        run: a run as it was read.
        place: its path or URL, for the message.
        hashes: of its images.
        variants: names of those that are looked at. One whose images are all gone was pruned, which is no fault.
        needed: names of those that may not even be pruned.
    """
    renders = [one for one in run.renders if one.variant in variants and one.image is not None]
    changed = [one for one in renders if hashes[str(one.image)] not in (None, one.sha256)]
    gone = [one for one in renders if hashes[str(one.image)] is None]
    kept = {*needed, *(one.variant for one in renders if hashes[str(one.image)] is not None)}
    kinds = (
        ("changed since it was made", "changed since they were made", [str(one.image) for one in changed]),
        ("is gone", "are gone", [str(one.image) for one in gone if one.variant in kept]),
    )
    said = [
        f"{plural(len(images), 'image')} {one if len(images) == 1 else many} ({listed(images, 3)})"
        for one, many, images in kinds
        if images
    ]
    if not said:
        return None
    return InvalidError(
        f"{place}: {joined(said)}; scores are missing, or are of what was there before.",
        _remake(run.info.suite, place, bool(changed)),
    )


def _remake(suite: Suite, place: Path | str, changed: bool) -> str:
    """What makes images again."""
    where, external = argument(place), suite.external_images
    if external is not None:
        return f"{making(suite)} -o {where}"
    first = "delete what changed, then: " if changed else ""
    return f"{first}hotart-bench render {where}, then hotart-bench score {where}"
