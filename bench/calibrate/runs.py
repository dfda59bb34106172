"""The runs of a calibration: each an ordinary run folder that differs from the first in one thing."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from itertools import chain, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.errors import HotartError, MachineError
from bench.machine import is_out_of_memory, spare_collector
from bench.records import NoiseSource, Progress, Record, RunOptions, Suite
from bench.run import run_stage
from bench.suite.file import MAX_SEED

# Rendering in a process of its own: what another process does to the pixels is one source of noise.


class RenderJob(NamedTuple):
    """What a process is to render."""

    suite: Suite
    folder: Path
    device: str
    fresh: bool
    weights_dir: Path | None


class Step(Record, frozen=True):
    """Progress, as ``bench.records.Progress`` takes it."""

    stage: str
    done: int
    total: int
    note: str


def render_in_child(order: RenderJob, progress: Progress | None) -> None:
    """Render what a run folder lacks, in a fresh process that ends with its work or with this one's.

    Raises:
        HotartError: what the process met, by class; a ``MachineError`` where it was killed.
        KeyboardInterrupt: passed on once the process is gone; whole batches are kept.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_render, args=(order, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        failure = _listen(ours, progress)
        child.join()
    finally:
        if child.is_alive():
            child.terminate()
            child.join()
        ours.close()
    if failure is not None:
        raise failure
    if child.exitcode:
        raise _silent_death(order, child.exitcode)


def _listen(pipe: Connection, progress: Progress | None) -> HotartError | None:
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return None
        if isinstance(message, HotartError):
            return message
        if progress is not None:
            progress(message.stage, message.done, message.total, message.note)


def _silent_death(order: RenderJob, exit_code: int) -> HotartError:
    if exit_code > 0:
        return HotartError(f"The process that rendered {order.folder} ended with exit code {exit_code}.")
    name = signal.Signals(-exit_code).name
    why = ", most often because memory ran out" if name == "SIGKILL" else ""
    return MachineError(
        f"The process that rendered {order.folder} was ended by {name}{why}.",
        "Free memory or take a smaller batch in [settings]; the same command continues.",
    )


def _render(order: RenderJob, pipe: Connection) -> None:
    """The child's side: errors of ``bench.errors`` go to the parent, any other ends it with a traceback."""
    # Ctrl-C reaches both; the parent ends this process, which a handler of its own would only make noisy.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spare_collector()

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        pipe.send(Step(stage=stage, done=done, total=total, note=note))

    try:
        run_stage(
            "render",
            order.suite,
            order.folder,
            RunOptions(device=order.device, fresh=order.fresh, weights_dir=order.weights_dir),
            progress=tell,
        )
    except HotartError as error:
        pipe.send(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "Free memory on it, or take a smaller batch in [settings]; the same command continues."
        pipe.send(MachineError(f"Out of memory on {order.device} while rendering {order.folder}.", hint))


# The runs of a calibration: each an ordinary run folder that differs from the first in one thing.

FIRST = "first"


class Condition(NamedTuple):
    """One run folder of a calibration, by name below its folder."""

    name: str
    source: NoiseSource | None
    """What differs from the first run; None for that one and for sessions."""
    suite: Suite
    device: str
    is_session: bool = False
    """Timed and not rendered."""


def plan_conditions(suite: Suite, device: str, beside: str | None, seeds: int, sessions: int) -> tuple[Condition, ...]:
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
        Condition(FIRST, None, suite, device),
        Condition("process", "process", suite, device),
        Condition("batch", "batch", msgspec.structs.replace(suite, settings=batch), device),
    ]
    if beside is not None:
        rendered.append(Condition("device", "device", suite, beside))
    for number in range(1, seeds + 1):
        other = msgspec.structs.replace(suite, seed=(suite.seed + number) % (MAX_SEED + 1))
        rendered.append(Condition(f"seed-{number}", "seed", other, device))
    timed = [Condition(f"session-{number}", None, suite, device, True) for number in range(1, sessions + 1)]
    return tuple(part for part in chain(*zip_longest(timed, rendered)) if part is not None)


def other_batch(suite: Suite) -> int:
    """Half the batch size that the suite really renders with, or 2 where that is 1."""
    now = min(suite.settings.batch or 1, len(suite.prompts) * suite.samples)
    return now // 2 if now > 1 else 2


def run_condition(
    part: Condition,
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
    options = RunOptions(device=part.device, fresh=fresh, weights_dir=weights_dir)
    if part.is_session:
        run_stage(
            "measure",
            part.suite,
            path,
            options,
            progress=told,
        )
        return
    if part.source == "process":
        render_in_child(RenderJob(part.suite, path, part.device, fresh, weights_dir), told)
    else:
        run_stage(
            "render",
            part.suite,
            path,
            options,
            progress=told,
        )
    run_stage("score", part.suite, path, RunOptions(metrics=metrics, device=part.device), progress=told)


def _told_as(part: str, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        progress(f"{part}: {stage}", done, total, note)

    return tell
