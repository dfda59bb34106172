"""The runs of a calibration: each an ordinary run folder that differs from the first in one condition."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from itertools import chain, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.errors import HotartError, MachineError
from bench.machine import is_out_of_memory, spare_collector
from bench.records import NoiseSource, Progress, RunOptions, Suite
from bench.run import labelled, run_stage
from bench.suite.file import MAX_SEED

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
    """The conditions in the order of work; sessions stand between the others, so that time passes between them.

    Args:
        suite: with the variants and metrics that are calibrated.
        device: where all conditions are rendered but one.
        beside: the device of that one; None for no such condition.
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
    return tuple(one for one in chain(*zip_longest(timed, rendered)) if one is not None)


def other_batch(suite: Suite) -> int:
    """Half the batch size that the suite really renders with, or 2 where that is 1."""
    now = min(suite.settings.batch or 1, len(suite.prompts) * suite.samples)
    return now // 2 if now > 1 else 2


def run_condition(
    condition: Condition,
    folder: Path,
    metrics: Sequence[str],
    *,
    fresh: bool,
    weights_dir: Path | None,
    progress: Progress | None,
) -> None:
    """Do what the condition's run folder still lacks: timings of a session, else images and their scores.

    Raises:
        HotartError: as ``bench.run.run_stage``.
    """
    tell = labelled(progress, condition.name)
    suite, device, path = condition.suite, condition.device, folder / condition.name
    if condition.source == "process":
        render_in_child(condition, path, fresh=fresh, weights_dir=weights_dir, progress=tell)
    else:
        stage: Literal["measure", "render"] = "measure" if condition.is_session else "render"
        options = RunOptions(device=device, fresh=fresh, weights_dir=weights_dir)
        run_stage(stage, suite, path, options, progress=tell)
    if not condition.is_session:
        run_stage("score", suite, path, RunOptions(metrics=metrics, device=device), progress=tell)


# Rendering in a process of its own: what another process does to the pixels is one source of noise.


def render_in_child(
    condition: Condition, path: Path, *, fresh: bool, weights_dir: Path | None, progress: Progress
) -> None:
    """Render what a run folder lacks, in a fresh process that ends with its work or with this one's.

    Raises:
        HotartError: what the process met, by class; a ``MachineError`` where it was killed.
        KeyboardInterrupt: passed on once the process is gone; whole batches are kept.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_render, args=(condition, path, fresh, weights_dir, theirs), daemon=True)
    child.start()
    theirs.close()
    failure: HotartError | None = None
    try:
        while failure is None:
            try:
                message = ours.recv()
            except EOFError:
                break
            if isinstance(message, HotartError):
                failure = message
            else:
                progress(*message)
        child.join()
    finally:
        if child.is_alive():
            child.terminate()
            child.join()
        ours.close()
    if failure is not None:
        raise failure
    if child.exitcode:
        raise _silent_death(path, child.exitcode)


def _silent_death(path: Path, exit_code: int) -> HotartError:
    if exit_code > 0:
        return HotartError(f"The process that rendered {path} ended with exit code {exit_code}.")
    name = signal.Signals(-exit_code).name
    why = ", most often because memory ran out" if name == "SIGKILL" else ""
    return MachineError(
        f"The process that rendered {path} was ended by {name}{why}.",
        "Free memory or take a smaller batch in [settings]; the same command continues.",
    )


def _render(condition: Condition, path: Path, fresh: bool, weights_dir: Path | None, pipe: Connection) -> None:
    """The child's side: errors of ``bench.errors`` go to the parent, any other ends it with a traceback."""
    # Ctrl-C reaches both; the parent ends this process, which a handler of its own would only make noisy.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spare_collector()

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        pipe.send((stage, done, total, note))

    options = RunOptions(device=condition.device, fresh=fresh, weights_dir=weights_dir)
    try:
        run_stage("render", condition.suite, path, options, progress=tell)
    except HotartError as error:
        pipe.send(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "Free memory on it, or take a smaller batch in [settings]; the same command continues."
        pipe.send(MachineError(f"Out of memory on {condition.device} while rendering {path}.", hint))
