"""The runs of a calibration: each an ordinary run folder that differs from the first in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.calibrate.child import Order, render_in_child
from bench.records import NoiseSource, Progress, Suite
from bench.run import run_stage
from bench.suite.file import MAX_SEED

FIRST = "first"


class Part(NamedTuple):
    """One run folder of a calibration, by name below its folder."""

    name: str
    source: NoiseSource | None
    """What differs from the first run; None for that one and for sessions."""
    suite: Suite
    device: str
    is_session: bool = False
    """Timed and not rendered."""


def plan_parts(suite: Suite, device: str, beside: str | None, seeds: int, sessions: int) -> tuple[Part, ...]:
    """The parts in the order of work; sessions stand between the others, so that time passes from one to the next.

    Args:
        suite: with the variants and metrics that are calibrated.
        device: where all parts are rendered but one.
        beside: the device of that one; None for no such part.
        seeds: runs with other seeds.
        sessions: runs that are timed.
    """
    batch = msgspec.structs.replace(suite.settings, batch=other_batch(suite))
    rendered = [
        Part(FIRST, None, suite, device),
        Part("process", "process", suite, device),
        Part("batch", "batch", msgspec.structs.replace(suite, settings=batch), device),
    ]
    if beside is not None:
        rendered.append(Part("device", "device", suite, beside))
    for number in range(1, seeds + 1):
        other = msgspec.structs.replace(suite, seed=(suite.seed + number) % (MAX_SEED + 1))
        rendered.append(Part(f"seed-{number}", "seed", other, device))
    timed = [Part(f"session-{number}", None, suite, device, True) for number in range(1, sessions + 1)]
    return tuple(part for part in chain(*zip_longest(timed, rendered)) if part is not None)


def other_batch(suite: Suite) -> int:
    """Half the batch size that the suite really renders with, or 2 where that is 1."""
    now = min(suite.settings.batch or 1, len(suite.cases) * suite.samples)
    return now // 2 if now > 1 else 2


def run_part(
    part: Part,
    folder: Path,
    metrics: Sequence[str],
    *,
    fresh: bool,
    weights_dir: Path | None,
    progress: Progress | None,
) -> None:
    """Do what the part's run folder still lacks: timings of a session, else images and their scores.

    Raises:
        HotartError: as ``bench.run.run_stage``.
    """
    path, told = folder / part.name, _told_as(part.name, progress)
    if part.is_session:
        run_stage(
            "measure",
            part.suite,
            path,
            device=part.device,
            fresh=fresh,
            weights_dir=weights_dir,
            progress=told,
        )
        return
    if part.source == "process":
        render_in_child(Order(part.suite, path, part.device, fresh, weights_dir), told)
    else:
        run_stage(
            "render",
            part.suite,
            path,
            device=part.device,
            fresh=fresh,
            weights_dir=weights_dir,
            progress=told,
        )
    run_stage("score", part.suite, path, metrics=metrics, device=part.device, progress=told)


def _told_as(part: str, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        progress(f"{part}: {stage}", done, total, note)

    return tell
