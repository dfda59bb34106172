"""What a run costs before it starts: the images that are missing, their time, their disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.checkpoints.fingerprint import weights_needed
from bench.measure import pick_variants
from bench.plan.memory import most_disk_bytes, parts_of
from bench.plan.time import estimate_time, scaled_seconds
from bench.records import Machine, Render, Run, Suite
from bench.suite.planned_images import batches_to_draw, is_wanted, missing_images, with_batch


class RunCost(NamedTuple):
    """What a run takes before it is complete."""

    images: int
    """Of all chosen variants."""
    missing: Mapping[str, int]
    """By variant, how many of its images are not there."""
    drawn: Mapping[str, int]
    """By variant, how many are drawn: those of whole batches, of which some may be there or not be wanted."""
    disk_bytes: int
    """At most, for the PNG files of the missing ones."""


def run_cost(
    suite: Suite,
    run: Run | None,
    place: Path,
    variants: Sequence[str] | None = None,
    only: Collection[tuple[str, int]] | None = None,
) -> RunCost:
    """The images of a suite and those that a run lacks.

    Args:
        suite: what is to be drawn.
        run: what is there; None where there is none, or where it is to begin anew.
        place: its folder, where its images are looked for.
        variants: names; None for all.
        only: prompt and sample of the images that are wanted; None for all.

    Raises:
        UsageError: an unknown variant.
    """
    batch = run.info.suite.settings.batch if run is not None and suite.settings.batch is None else suite.settings.batch
    suite = with_batch(msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=batch)))
    renders: Sequence[Render] = run.renders if run is not None else ()
    if run is not None and run.url:  # its copy is without the images, of which each record tells
        renders = [msgspec.structs.replace(one, image=None) for one in renders]
    chosen = [variant.name for variant in pick_variants(suite, variants)]
    missing, drawn = dict[str, int](), dict[str, int]()
    for name in chosen:
        lacking = [one for one in missing_images(suite, name, renders, place) if is_wanted(one, only)]
        missing[name] = len(lacking)
        drawn[name] = sum(map(len, batches_to_draw(suite, lacking)))
    each = len(suite.prompts) * suite.samples if only is None else len(only)
    return RunCost(len(chosen) * each, missing, drawn, most_disk_bytes(sum(missing.values()), suite.settings))


def drawing_seconds(
    suite: Suite, drawn: Mapping[str, int], machine: Machine, timed: Run | None, weights_dir: Path | None
) -> tuple[float | None, str]:
    """Seconds to draw so many images of each variant, and in words what that rests on; None where it is not known.

    By the timings of a run on such a device, scaled by steps and pixels, where a variant that it has not timed counts
    as its slowest; else by the figures of known cards.

    Args:
        suite: its settings count.
        drawn: how many images, by variant.
        machine: this one.
        timed: a run of the suite's variants with timings; None where there is none.
        weights_dir: local weights instead of downloads.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
    """
    wanted = {name: count for name, count in drawn.items() if count}
    if timed is not None and timed.info.machine.device_name == machine.device_name:
        seconds = scaled_seconds(suite, timed)
        if seconds:
            slowest = max(seconds.values())
            total = sum(count * seconds.get(name, slowest) for name, count in wanted.items())
            others = "" if wanted.keys() <= seconds.keys() else ", its slowest variant for those that it has not"
            return total, f"by the timings in {timed.path}, of one image at a time, scaled by steps and pixels{others}"
    parts = parts_of(suite.variants[0], weights_needed(suite, weights_dir))
    estimate = estimate_time(suite, machine, None, parts)
    if estimate.render_s is None:
        return None, estimate.basis
    images = len(suite.variants) * len(suite.prompts) * suite.samples
    return estimate.render_s * sum(wanted.values()) / images, estimate.basis
