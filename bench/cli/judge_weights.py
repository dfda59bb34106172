"""Which weights the metrics of a suite need, and how they stand: for ``doctor`` and ``fetch``."""

from __future__ import annotations

from collections.abc import Sequence

from bench.cli.printing import Column, print_table
from bench.records import Record
from bench.weights import Stored
from bench.wording import quantity

TRUST = {
    "pinned": "pinned",
    "locked": "recorded here",
    "unpinned": "unpinned: will be recorded",
}


class JudgeFile(Record, frozen=True):
    """One weight file of a judge, and the metrics that need it."""

    metrics: tuple[str, ...]
    file: Stored


def entries_needed(metrics: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The entries of the catalogue that the metrics and their towers ask for, each with those metrics."""
    from bench.metrics import installed

    registry = installed()
    needed: dict[str, list[str]] = {}
    for name in metrics:
        metric = registry.metrics[name]
        tower = registry.towers[metric.facts.tower].weights if metric.facts.tower is not None else ()
        for entry in (*tower, *metric.weights):
            needed.setdefault(entry, []).append(name)
    return {entry: tuple(names) for entry, names in needed.items()}


def print_judges(judges: Sequence[JudgeFile], lock: str) -> None:
    """The files as a table, and where their hashes are recorded."""
    rows = [
        [
            judge.file.what,
            ", ".join(judge.metrics),
            "there" if judge.file.path is not None else "missing",
            "" if judge.file.size_bytes is None else quantity(judge.file.size_bytes, "byte"),
            TRUST[judge.file.trust],
        ]
        for judge in judges
    ]
    columns = [Column("weights of judges", text=True), Column("of", text=True), Column("state")]
    print_table([*columns, Column("size", number=True), Column("sha256")], rows)
    print(f"\nHashes of unpinned weights are recorded in {lock}.")
