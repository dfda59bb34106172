"""``run.json``: brought to what is asked for now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.machine import git_state
from bench.metrics import facts_of_run
from bench.records import SCHEMA, Fingerprint, MetricFacts, RunInfo, Suite
from bench.run.asked import Stage, Work
from bench.run.ground import ground_of, same_ground
from bench.run.standing import is_complete, unrendered
from bench.store import RunFolder, run_id
from bench.suite import protocol_digest
from bench.variants import fingerprint
from bench.wording import listed

FUSED = "LoRAs were fused into the weights for the run; a LoRA applied at run time differs slightly in pixels and cost."
BESIDE = (
    "LoRAs were computed beside the weights in every step (fuse = false), and no block compiled there; fused into the "
    "weights they differ slightly in pixels and cost."
)


def adopt(stages: tuple[Stage, ...], work: Work) -> None:
    """Bring ``run.json`` to what is asked for now; a variant whose weights changed loses its old results.

    It says ``started`` from here on, until all that it asks for is there, or the work ends with an error.
    """
    folder, old = work.folder, work.folder.info
    found: dict[str, Fingerprint] = {}
    if stages != ("report",) and stages != ("score",):
        found = {variant.name: fingerprint(variant, work.weights_dir) for variant in work.variants}
    prints = _prints(old, found)
    suite = _suite_of(work.suite, old, found)
    ordered = tuple(prints[variant.name] for variant in suite.variants if variant.name in prints)
    scored = old.metrics if old is not None else ()
    every = tuple(dict.fromkeys((*suite.metrics, *(known.name for known in scored), *work.metrics)))
    facts = facts_of_run(every, scored, work.metrics, work.tower_dtype)
    if old is None:
        folder.write_info(_first_info(suite, ordered, facts, work))
        return
    changed = _changed(folder, old, found)
    if changed or _renders_here(stages, work):
        same_ground(work)  # or the old results would be gone and no new ones allowed
    new = _next_info(old, suite, ordered, facts)
    if stages != ("report",) and old.status != "started" and (new != old or not is_complete(folder)):
        folder.write_info(msgspec.structs.replace(old, status="started"))
        new = msgspec.structs.replace(new, status="started")
    for name in changed:
        folder.drop_variant(name)
    if new != folder.info:
        folder.write_info(new)


def _renders_here(stages: tuple[Stage, ...], work: Work) -> bool:
    return "render" in stages and work.fleet is None and unrendered(work.suite, work.folder, work.variants) > 0


def _changed(folder: RunFolder, old: RunInfo, found: dict[str, Fingerprint]) -> list[str]:
    """The variants of which the folder holds results of other weights, or of weights that it does not know."""
    known = {one.name: one.digest for one in old.variants}
    held = {one.variant for one in folder.renders()} | {one.variant for one in folder.timings()}
    return [name for name in found if known.get(name) != found[name].digest and (name in known or name in held)]


def _prints(old: RunInfo | None, found: dict[str, Fingerprint]) -> dict[str, Fingerprint]:
    """What each variant is: as it was found now, with the audit of the same weights, or as it was before."""
    known = {one.name: one for one in old.variants} if old is not None else {}
    audits = {name: one.audit for name, one in known.items() if name in found and one.digest == found[name].digest}
    return known | {name: msgspec.structs.replace(one, audit=audits.get(name)) for name, one in found.items()}


def _suite_of(suite: Suite, old: RunInfo | None, found: dict[str, Fingerprint]) -> Suite:
    """The suite as ``run.json`` keeps it: a variant that was not looked at now stays what its images were made of."""
    made = {one.name for one in old.variants} - found.keys() if old is not None else set()
    kept = {variant.name: variant for variant in old.suite.variants if variant.name in made} if old is not None else {}
    return msgspec.structs.replace(suite, variants=tuple(kept.get(variant.name, variant) for variant in suite.variants))


def _first_info(
    suite: Suite, variants: tuple[Fingerprint, ...], metrics: tuple[MetricFacts, ...], work: Work
) -> RunInfo:
    machine, packages = ground_of(work)
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
        start=now(),
        end=None,
        settings_notes=lora_notes(variants),
    )


def _next_info(
    old: RunInfo, suite: Suite, variants: tuple[Fingerprint, ...], metrics: tuple[MetricFacts, ...]
) -> RunInfo:
    outdated = {FUSED, *lora_notes(old.variants)}
    others = tuple(note for note in old.settings_notes if note not in outdated)
    notes = (*lora_notes(variants), *others)
    return msgspec.structs.replace(old, suite=suite, variants=variants, metrics=metrics, settings_notes=notes)


def lora_notes(variants: Sequence[Fingerprint]) -> tuple[str, ...]:
    """How the LoRAs of these variants were applied, in a sentence for each way; none where there are none."""
    ways = {mode: [one.name for one in variants if one.lora_mode == mode] for mode in ("fused", "unfused")}
    said = [(names, sentence) for names, sentence in ((ways["fused"], FUSED), (ways["unfused"], BESIDE)) if names]
    if len(said) == 1:
        return (said[0][1],)
    return tuple(sentence.replace("LoRAs", f"LoRAs of {listed(names)}", 1) for names, sentence in said)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
