"""What in a process's conditions makes its times and its energy weak, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records import Conditions, Run, Timing
from bench.wording import plural

BUSY_PERCENT = 25.0
"""From this share of all cores, or of the device's time, on, other programs are taken to disturb a timing."""
TRANSIENT = frozenset({"hardware slowdown", "heat (software slowdown)", "heat (hardware slowdown)", "power brake"})
"""Slowdowns that come and go. A power limit or set clocks are the card's own steady state: they are recorded."""


def conditions_by_process(run: Run) -> dict[tuple[str, int, int], Conditions]:
    """The conditions that a run recorded, by variant, round and process."""
    return {_place(timing): timing.conditions for timing in run.timings if timing.conditions is not None}


def doubts(timings: Sequence[Timing], known: dict[tuple[str, int, int], Conditions]) -> tuple[str, ...]:
    """Why times or energies of these processes are weak, a sentence a reason; processes that told nothing count not."""
    places = dict.fromkeys(_place(timing) for timing in timings)
    found = [known[place] for place in places if place in known]
    busy = [one for one in found if one.cpu_percent > BUSY_PERCENT]
    shared = [one for one in found if (one.device_percent or 0) > BUSY_PERCENT]
    crowded = [one for one in found if one.other_processes]
    slowed = [{slow.reason for slow in one.slowdowns} & TRANSIENT for one in found]
    said = []
    if busy:
        most = max(one.cpu_percent for one in busy)
        said.append(
            f"Others kept up to {most:.0f}% of the CPU busy before {_of(busy, found)}; measure on a quiet machine."
        )
    if shared:
        most = max(one.device_percent or 0 for one in shared)
        said.append(
            f"Others kept the device busy for up to {most}% of the time before {_of(shared, found)}; "
            "measure while it is idle."
        )
    if crowded:
        most = max(one.other_processes or 0 for one in crowded)
        others = plural(most, "other process", "other processes")
        said.append(f"Up to {others} had the device in {_of(crowded, found)}; measure while it is free.")
    if any(slowed):
        why = ", ".join(sorted(set().union(*slowed)))
        hit = [reasons for reasons in slowed if reasons]
        said.append(f"The device slowed down ({why}) in {_of(hit, found)}; let it cool, or set lower clocks.")
    return tuple(said)


def _of(some: Sequence[object], every: Sequence[object]) -> str:
    return f"{len(some)} of {plural(len(every), 'process', 'processes')}"


def _place(timing: Timing) -> tuple[str, int, int]:
    return timing.variant, timing.round, timing.process
