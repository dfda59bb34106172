"""Metrics over releases: the baselines, runs and gates of a folder, by time, as far as they can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import documents, stats
from bench.baseline import freeze, read_baseline
from bench.baseline.file import KIND
from bench.errors import HotartError, UsageError
from bench.formatting import argument, listed
from bench.records import Baseline, Gate, Interval, MetricFacts, Outcome, Run
from bench.store import load_run, read_gate, read_gate_file
from bench.store.journal import INFO

MOST_ENTRIES = 1_000
"""Entries of a folder that are looked at; a folder of more is not one of releases."""


@dataclass(frozen=True)
class Value:
    """A variant's mean of one metric in one release, over prompts."""

    mean: float
    interval: Interval | None
    """Student's over prompts; None from a gate, which holds no values of prompts."""
    prompts: int


@dataclass(frozen=True)
class Release:
    """A baseline, a run or a gate, as one point in time."""

    name: str
    """Of its file or folder."""
    kind: str
    """``baseline``, ``run`` or ``gate``."""
    time: str
    """ISO 8601: when it was accepted, made or checked."""
    run_id: str
    protocol: str
    metrics: tuple[MetricFacts, ...]
    """() of a gate."""
    values: dict[tuple[str, str], Value]
    """By variant and metric."""
    outcome: Outcome | None = None
    """Of the last gate on it, where it is known."""


@dataclass(frozen=True)
class History:
    """Releases that can be compared, the oldest first."""

    releases: tuple[Release, ...]
    metrics: tuple[MetricFacts, ...]
    """Of the newest release that has them."""
    variants: tuple[str, ...]
    notes: tuple[str, ...]
    """What was left out, and why."""


def read_history(folder: Path, metrics: Sequence[str] | None = None) -> History:
    """The releases of a folder: baseline files, run folders and files of ``gate --json`` directly in it.

    The newest baseline or run says what is compared: what has another protocol is left out with a note, and so are
    values of another version of a metric. A run that a baseline was frozen from is that baseline.

    Args:
        folder: where they lie.
        metrics: names; None for all that the newest release has.

    Raises:
        UsageError: no such folder, none of these in it, or an unknown metric.
        MachineError: the folder cannot be read.
    """
    documents.refuse_url(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder.", "hotart-bench history --help")
    entries = sorted(folder.iterdir())
    if len(entries) > MOST_ENTRIES:
        raise UsageError(f"{folder}: has {len(entries):,} entries; a folder of releases has up to {MOST_ENTRIES:,}.")
    found, notes = _read_all(entries)
    found = sorted(_without_doubles(found), key=lambda one: (one.time, one.name))
    newest = next((one for one in reversed(found) if one.metrics), None)
    if newest is None:
        raise UsageError(
            f"{folder}: holds no baseline and no run to draw.{' ' + ' '.join(notes) if notes else ''}",
            f"hotart-bench baseline RUN -o {argument(folder / 'v1.json')}",
        )
    others = [one.name for one in found if one.protocol != newest.protocol]
    if others:
        notes.append(f"Left out, since prompts, seeds or settings are not those of {newest.name}: {listed(others)}.")
    chosen = _chosen(newest, metrics)
    releases = tuple(_comparable(one, chosen, notes) for one in found if one.protocol == newest.protocol)
    names = dict.fromkeys(variant for one in releases for variant, _ in one.values)
    return History(releases, chosen, tuple(names), tuple(notes))


def _chosen(newest: Release, metrics: Sequence[str] | None) -> tuple[MetricFacts, ...]:
    known = {facts.name: facts for facts in newest.metrics if any(name == facts.name for _, name in newest.values)}
    for name in metrics or ():
        if name not in known:
            raise UsageError(f"--metrics: {newest.name} has no values of {name!r}; it has {listed(known)}.")
    return tuple(known[name] for name in metrics) if metrics is not None else tuple(known.values())


def _read_all(entries: Iterable[Path]) -> tuple[list[Release], list[str]]:
    """Every release among the entries, and sentences on those that cannot be read."""
    found: list[Release] = []
    notes: list[str] = []
    others: list[str] = []
    for path in entries:
        try:
            one = _read(path)
        except HotartError as error:
            notes.append(f"{path.name} is left out: {error.message}")
        else:
            found += [] if one is None else [one]
            others += [path.name] if one is None and path.suffix == ".json" else []
    if others:
        notes.append(f"No baseline and no gate: {listed(others)}.")
    return found, notes


def _read(path: Path) -> Release | None:
    """The release of a file or folder; None of what is none."""
    if path.is_dir():
        return _of_run(path) if (path / INFO).is_file() else None
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        table = documents.loads(documents.read_bytes(path).decode("utf-8-sig"))
    except (OSError, ValueError):
        table = None
    if not isinstance(table, dict):
        raise UsageError(f"{path.name} is no JSON object.")
    if table.get("kind") == KIND:
        frozen = read_baseline(path)
        return _of_frozen(frozen, path.name, "baseline", frozen.acceptance.time)
    return _of_gate(read_gate_file(path), path.name) if "verdicts" in table else None


def _of_run(path: Path) -> Release:
    run = load_run(path)
    # As its records say: a history reads no image.
    frozen = freeze(run, hashes={str(one.image): one.sha256 for one in run.renders if one.image is not None})
    doubts = [f"{one.fingerprint.name}: {one.doubts[0]}" for one in frozen.variants if one.doubts]
    if doubts:
        raise UsageError(f"{doubts[0]}.")
    return replace(_of_frozen(frozen, path.name, "run", run.info.end or run.info.start), outcome=_last_outcome(run))


def _last_outcome(run: Run) -> Outcome | None:
    gate = read_gate(run.path)
    return gate.outcome if gate is not None and gate.run_id == run.info.id else None


def _of_frozen(frozen: Baseline, name: str, kind: str, time: str) -> Release:
    values = {}
    for variant in frozen.variants:
        for metric, column in variant.values.items():
            known = [one for one in column if one is not None]
            if known:
                values[variant.fingerprint.name, metric] = _value(known)
    outcome = frozen.acceptance.verdict
    return Release(name, kind, time, frozen.run_id, frozen.protocol_digest, frozen.metrics, values, outcome)


def _value(means: Sequence[float]) -> Value:
    found = None
    if len(means) > 1:
        low, high = stats.t_interval(means)
        found = Interval(low=low, high=high, method="t over prompts")
    return Value(stats.mean(means), found, len(means))


def _of_gate(gate: Gate, name: str) -> Release:
    """What a gate says of its candidates: the means of its findings, without values of prompts."""
    values = {
        (finding.candidate, one.metric): Value(one.reference_mean + one.mean, None, one.prompts)
        for finding in gate.findings
        for one in finding.metrics
        if one.mean is not None and one.reference_mean is not None
    }
    return Release(name, "gate", gate.time, gate.run_id, gate.protocol_digest, (), values, gate.outcome)


_RANK = {"gate": 0, "run": 1, "baseline": 2}


def _without_doubles(found: Sequence[Release]) -> list[Release]:
    """Each run once: as the baseline that was frozen from it, else as its folder, else as a gate on it."""
    best: dict[tuple[str, str], Release] = {}
    for one in found:
        # Two baselines of one run may be two releases; a run or a gate beside a baseline is none.
        key = (one.run_id, one.name if one.kind == "baseline" else "")
        if key not in best or _RANK[one.kind] > _RANK[best[key].kind]:
            best[key] = one
    frozen = {one.run_id for one in best.values() if one.kind == "baseline"}
    return [one for one in best.values() if one.kind == "baseline" or one.run_id not in frozen]


def _comparable(one: Release, metrics: Sequence[MetricFacts], notes: list[str]) -> Release:
    """The release with the values of ``metrics`` in their versions; adds a note on those of another version."""
    versions = {facts.name: facts.full_version for facts in one.metrics}
    wanted = {facts.name: facts.full_version for facts in metrics}
    other = [name for name, version in wanted.items() if versions.get(name, version) != version]
    if other:
        notes.append(f"Of {one.name} another version of {listed(other)} is left out.")
    kept = {
        key: value
        for key, value in one.values.items()
        if key[1] in wanted and versions.get(key[1], wanted[key[1]]) == wanted[key[1]]
    }
    return replace(one, values=kept)
