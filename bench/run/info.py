"""``run.json``: brought to what is asked for now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.machine import git_state
from bench.metrics import facts_of_run
from bench.records import SCHEMA, Fingerprint, MetricFacts, RunInfo, Suite
from bench.run.asked import Stage, Work
from bench.run.ground import ground_of, same_ground
from bench.store import run_id
from bench.suite import protocol_digest
from bench.variants import fingerprint

FUSED = "LoRAs were fused into the weights for the run; a LoRA applied at run time differs slightly in pixels and cost."


def adopt(stages: tuple[Stage, ...], work: Work) -> None:
    """Bring ``run.json`` to what is asked for now; a variant whose weights changed loses its old results."""
    suite, folder = work.suite, work.folder
    old = folder.info
    prints = {known.name: known for known in old.variants} if old is not None else {}
    if stages != ("report",) and stages != ("score",):
        now = {variant.name: fingerprint(variant, work.weights_dir) for variant in work.variants}
        changed = [name for name in now if name in prints and prints[name].digest != now[name].digest]
        if changed:
            same_ground(work)  # or the old results would be gone and no new ones allowed
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
        settings_notes=(FUSED,) if any(variant.loras for variant in suite.variants) else (),
    )


def _next_info(
    old: RunInfo, suite: Suite, variants: tuple[Fingerprint, ...], metrics: tuple[MetricFacts, ...]
) -> RunInfo:
    return msgspec.structs.replace(old, suite=suite, variants=variants, metrics=metrics)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
