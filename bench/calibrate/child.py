"""Rendering in a process of its own: what another process does to the pixels is one source of noise."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from bench.errors import HotartError, MachineError
from bench.memory import is_out_of_memory, spare_collector
from bench.records import Progress, Record, Suite


class Order(NamedTuple):
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


def render_in_child(order: Order, progress: Progress | None) -> None:
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


def _silent_death(order: Order, exit_code: int) -> HotartError:
    if exit_code > 0:
        return HotartError(f"The process that rendered {order.folder} ended with exit code {exit_code}.")
    name = signal.Signals(-exit_code).name
    why = ", most often because memory ran out" if name == "SIGKILL" else ""
    return MachineError(
        f"The process that rendered {order.folder} was ended by {name}{why}.",
        "Free memory or take a smaller batch in [settings]; the same command continues.",
    )


def _render(order: Order, pipe: Connection) -> None:
    """The child's side: errors of ``bench.errors`` go to the parent, any other ends it with a traceback."""
    # Ctrl-C reaches both; the parent ends this process, which a handler of its own would only make noisy.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spare_collector()
    from bench.run import run_stage

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        pipe.send(Step(stage=stage, done=done, total=total, note=note))

    try:
        run_stage(
            "render",
            order.suite,
            order.folder,
            device=order.device,
            fresh=order.fresh,
            weights_dir=order.weights_dir,
            progress=tell,
        )
    except HotartError as error:
        pipe.send(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "Free memory on it, or take a smaller batch in [settings]; the same command continues."
        pipe.send(MachineError(f"Out of memory on {order.device} while rendering {order.folder}.", hint))
