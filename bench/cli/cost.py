"""What a verb would cost, in words, before anything is drawn: images, time, disk."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from bench.cli import options
from bench.cli.printing import say
from bench.cli.targets import default_folder, disk_for, names_run
from bench.documents import exists
from bench.errors import HotartError
from bench.formatting import duration, plural, quantity
from bench.machine import machine_facts, pick_device
from bench.plan.cost import RunCost, drawing_seconds, run_cost
from bench.records import Run, Suite
from bench.store import load_run
from bench.store.journal import INFO, TIMINGS
from bench.store.reading import RUNS


def say_run_cost(
    suite: Suite,
    folder: str | Path,
    *,
    variants: str | None = None,
    device: str = "auto",
    weights_dir: Path | None = None,
    ray: str | None = None,
    fresh: bool = False,
    only: Collection[tuple[str, int]] | None = None,
    on_top: str | None = None,
) -> None:
    """Says what a run of a suite takes of which it has nothing yet, or a part. Nothing is written or downloaded.

    Raises:
        UsageError: a flag that cannot be meant.
        HotartError: a run that is there cannot be read.
    """
    names = options.variants_of(suite, variants)
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    run = load_run(folder) if names_run(str(folder)) and not fresh else None
    cost = run_cost(suite, run, Path(run.path) if run is not None else disk_for(folder), names, only)
    times: list[float | None] = []
    basis = "Not known: the workers' devices are not known here."
    if any(cost.missing.values()) and ray is None:
        timed = run if run is not None and run.timings else timed_run(suite)
        machine = machine_facts(pick_device(device))
        seconds, basis = drawing_seconds(suite, cost.drawn, machine, timed, weights_dir)
        times = [seconds]
    each = cost.images // len(cost.missing)
    say_cost(
        f"{plural(len(cost.missing), 'variant')} x {plural(each, 'image')}",
        [cost],
        times,
        basis,
        on_top or _on_top(suite),
    )


def _on_top(suite: Suite) -> str:
    return "loading, scoring and timing" if suite.measure.rounds else "loading and scoring"


def say_cost(
    what: str,
    costs: Sequence[RunCost],
    seconds: Sequence[float | None],
    basis: str,
    on_top: str = "loading and scoring",
) -> None:
    """Says what runs take together.

    Args:
        what: how many of what there are, such as ``2 variants x 16 images``.
        costs: of each run.
        seconds: of each run, None where it is not known; nothing of time is said where nothing is to be drawn.
        basis: what the time rests on, or why it is not known.
        on_top: what the time leaves out.
    """
    images, missing = sum(cost.images for cost in costs), sum(sum(cost.missing.values()) for cost in costs)
    drawn = sum(sum(cost.drawn.values()) for cost in costs)
    done = f" ({images - missing:,} done already)" if missing < images else ""
    whole = f", with the rest of their batches {drawn:,}" if drawn > missing else ""
    disk = quantity(float(sum(cost.disk_bytes for cost in costs)), "byte")
    say(f"{what}: {plural(images, 'image')}, {missing:,} of them to draw{done}{whole}, at most {disk} on the disk.")
    if not missing:
        return
    known = [time for time in seconds if time is not None]
    say_time(sum(known) if len(known) == len(costs) else None, basis, on_top)


def say_time(seconds: float | None, basis: str, on_top: str, doing: str = "draw") -> None:
    """Says how long it takes and what that rests on, or why that is not known."""
    words = f"{basis[:1].lower()}{basis[1:].rstrip('.')}"
    if seconds is None:
        say(f"Time: {words}.")
    else:
        said = words if words.startswith("by ") else f"({words})"
        say(f"Time: about {duration(seconds)} to {doing} {said}; {on_top} on top.")


def timed_run(suite: Suite) -> Run | None:
    """A run with timings of the suite's reference: its own run, its whole one, or another one among the runs here."""
    for place in (default_folder(suite), RUNS / suite.name):
        if names_run(str(place)):
            run = load_run(place)
            if run.timings:
                return run
    others = [path.parent for path in RUNS.glob(f"*/{TIMINGS}") if path.stat().st_size and exists(path.parent / INFO)]
    reference = suite.variants[0]
    for place in sorted(others):
        with contextlib.suppress(HotartError):  # a damaged run tells no time, and is not what was asked for
            run = load_run(place)
            theirs = run.info.suite.variants[0]
            if run.timings and (theirs.checkpoint, theirs.unet) == (reference.checkpoint, reference.unet):
                return run
    return None
