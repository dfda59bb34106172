"""What a grid costs before it starts: the images that are missing, their time, their disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.checkpoints.fingerprint import weights_needed
from bench.documents import exists
from bench.measure import pick_variants
from bench.plan.memory import most_disk_bytes, parts_of
from bench.plan.time import estimate_time, scaled_seconds
from bench.records import Grid, GridMember, Machine, Run
from bench.store import load_run
from bench.store.journal import INFO
from bench.suite.grid import member_suite
from bench.suite.planned_images import missing_images, with_batch


class MemberCost(NamedTuple):
    """What one setting takes."""

    member: GridMember
    images: int
    """Of all chosen variants."""
    missing: dict[str, int]
    """By variant, how many of its images are not there."""
    seconds: float | None
    """To draw the missing ones; None where it is not known. Loading and scoring come on top."""
    disk_bytes: int
    """At most, for the PNG files of the missing ones."""


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
        suite = with_batch(member_suite(grid.suite, member.setting))
        chosen = [variant.name for variant in pick_variants(suite, variants)]
        renders = run.renders if run is not None else ()
        missing = {name: len(missing_images(suite, name, renders, place)) for name in chosen}
        images = len(chosen) * len(suite.prompts) * suite.samples
        disk = most_disk_bytes(sum(missing.values()), suite.settings)
        found.append(MemberCost(member, images, missing, None, disk))
    return tuple(found)


def with_seconds(
    costs: Sequence[MemberCost], grid: Grid, machine: Machine, timed: Run | None, weights_dir: Path | None
) -> tuple[tuple[MemberCost, ...], str]:
    """The costs with their time, and what that rests on, in a sentence.

    Args:
        costs: of ``grid_cost``.
        grid: the same.
        machine: this one.
        timed: a run of the suite's variants with timings; None where there is none.
        weights_dir: local weights instead of downloads.
    """
    if timed is not None and timed.info.machine.device_name == machine.device_name:
        found = []
        for cost in costs:
            seconds = scaled_seconds(member_suite(grid.suite, cost.member.setting), timed)
            known = all(name in seconds for name, count in cost.missing.items() if count)
            total = sum(count * seconds[name] for name, count in cost.missing.items() if count) if known else None
            found.append(cost._replace(seconds=total))
        if any(cost.seconds is not None for cost in found):
            return tuple(found), f"by the timings in {timed.path}, of one image at a time, scaled by steps and pixels"
    parts = parts_of(grid.suite.variants[0], weights_needed(grid.suite, weights_dir))
    found, basis = [], ""
    for cost in costs:
        suite = member_suite(grid.suite, cost.member.setting)
        estimate = estimate_time(suite, machine, None, parts)
        images, basis = len(suite.variants) * len(suite.prompts) * suite.samples, estimate.basis
        share = sum(cost.missing.values()) / images
        found.append(cost._replace(seconds=None if estimate.render_s is None else estimate.render_s * share))
    return tuple(found), basis
