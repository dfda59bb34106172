"""What a grid costs before it starts, setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.documents import exists
from bench.plan.cost import RunCost, drawing_seconds, run_cost
from bench.records import Grid, GridMember, Machine, Run
from bench.store import load_run
from bench.store.journal import INFO
from bench.suite.grid import member_suite


class MemberCost(NamedTuple):
    """What one setting takes."""

    member: GridMember
    cost: RunCost
    seconds: float | None
    """To draw the missing images; None where it is not known. Loading and scoring come on top."""


def grid_cost(grid: Grid, folder: Path, variants: Sequence[str] | None, *, fresh: bool) -> tuple[MemberCost, ...]:
    """What each setting takes, without its time.

    Args:
        grid: what is to be drawn.
        folder: where it lies, or would lie.
        variants: names; None for all.
        fresh: whether what is there is not counted.

    Raises:
        UsageError: an unknown variant.
        HotartError: a run that is there cannot be read.
    """
    found = []
    for member in grid.members:
        place = folder / member.folder
        run = load_run(place) if exists(place / INFO) and not fresh else None
        found.append(MemberCost(member, run_cost(member_suite(grid.suite, member.setting), run, place, variants), None))
    return tuple(found)


def with_seconds(
    costs: Sequence[MemberCost], grid: Grid, machine: Machine, timed: Run | None, weights_dir: Path | None
) -> tuple[tuple[MemberCost, ...], str]:
    """The costs with their time, and what that rests on, in words.

    Args:
        costs: of ``grid_cost``.
        grid: the same.
        machine: this one.
        timed: a run of the suite's variants with timings; None where there is none.
        weights_dir: local weights instead of downloads.
    """
    found, basis = [], ""
    for cost in costs:
        suite = member_suite(grid.suite, cost.member.setting)
        seconds, basis = drawing_seconds(suite, cost.cost.drawn, machine, timed, weights_dir)
        found.append(cost._replace(seconds=seconds))
    return tuple(found), basis
