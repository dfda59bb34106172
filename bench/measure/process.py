"""Timing processes: the messages to and from them, starting some together, and what became of each.

Imports take longer than many an image, so processes that are measured one after another are started together: each
imports, says that it is ready, and waits for its turn. No turn begins before all are ready, so that nothing is timed
while another process imports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import psutil

from bench.errors import HotartError, IncomparableError, InvalidError, MachineError, UsageError, WeightsError
from bench.machine import usable_cores
from bench.measure.stopwatch import Shot
from bench.records import Record, Settings, Timing, Variant

WORKER = (sys.executable, "-P", "-m", "bench.measure.worker")
"""``-P``: a folder ``bench/`` in the working directory is never taken for this package."""
IMPORTED_BYTES = 2**30
"""More than a process has when its imports are done (0.6 GB on a CPU)."""
WAITING_SHARE = 4
"""Processes that wait for their turn may take a quarter of the memory that is free."""
QUOTED_LINES = 5
"""How many last lines of a dead child's stderr an error quotes."""
_ERRORS: dict[int, type[HotartError]] = {
    kind.exit_code: kind for kind in (UsageError, WeightsError, IncomparableError, InvalidError, MachineError)
}


# --- the messages, one JSON line each ------------------------------------------------------


class Request(Record, frozen=True):
    """What a child is to measure."""

    variant: Variant
    settings: Settings
    device: str
    """torch device string, such as ``cpu`` or ``cuda:0``."""
    weights_dir: str | None
    round: int
    warmups: int
    shots: tuple[Shot, ...]
    """In order: the first image, ``warmups`` warm-ups, the timed images."""
    batches: tuple[tuple[Shot, ...], ...] = ()
    """Drawn after that, each at once; the first is not timed."""
    parents: int = 0
    """Other processes of this program that the driver lists too: 1 where the parent rendered before."""


class Ready(Record, frozen=True, tag=True):
    """All imports are done; the process waits for its turn, and has not touched the device."""


class Reply(Record, frozen=True, tag=True):
    """What was measured, and what one should know of it."""

    timings: tuple[Timing, ...]
    threads: int
    """Threads torch used for CPU work."""
    notes: tuple[str, ...]


class Failure(Record, frozen=True, tag=True):
    """An error of ``bench.errors``, by its exit code."""

    exit_code: int
    message: str
    hint: str


Message = int | Ready | Reply | Failure
"""A number is how many images are drawn so far."""


GO = b"\n"
"""What a child waits for that is ready."""


def encode(message: Request | Message) -> bytes:
    """Write a request or message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


# --- the processes -------------------------------------------------------------------------


class Child(NamedTuple):
    """A started process and what it was asked."""

    process: subprocess.Popen[bytes]
    request: Request
    stderr: IO[bytes]
    first: bytes = b""
    """Its first message: ``Ready``, why it cannot be, or nothing where it has ended."""


def children_at_once() -> int:
    """How many processes are started together: as many as import at once, and as wait in memory that is free."""
    free = psutil.virtual_memory().available // WAITING_SHARE // IMPORTED_BYTES
    return max(1, min(usable_cores(), free))


@contextmanager
def start_children(command: Sequence[str], requests: Sequence[Request]) -> Iterator[list[Child]]:
    """Start a child a request, and give them once each is ready or has ended, which is said when it has its turn.

    Each leads a process group of its own, so that whatever happens here, Ctrl-C too, ends all of it: none is left when
    the block is. Their stdin stays open as long as this process lives, which is how they learn that it was killed.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(_started(command, request)) for request in requests]
        for child in children:
            _send(child, encode(child.request))
        yield [child._replace(first=_pipe(child.process.stdout).readline()) for child in children]


@contextmanager
def _started(command: Sequence[str], request: Request) -> Iterator[Child]:
    # An empty cache for each child: what one has compiled would make the next one's compilation look short.
    with tempfile.TemporaryFile() as stderr, tempfile.TemporaryDirectory() as compiled:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=child_environment() | {"TORCHINDUCTOR_CACHE_DIR": compiled},
            start_new_session=True,
        )
        try:
            yield Child(process, request, stderr)
        finally:
            _end(process)


def run_child(child: Child, on_image: Callable[[int], None]) -> Reply:
    """Give a child that is ready its turn, and return its reply; ``on_image`` is told how many images it has drawn.

    Raises:
        HotartError: what the child sent as its ``Failure``, by class; or, where it ended without a message, a
            ``MachineError`` for a signal, and else an internal error with the last lines of its stderr.
    """
    _send(child, GO)
    reply = _listen(child, on_image)
    child.process.wait()
    if reply is None:
        raise silent_death(child.request, child.process.returncode, _last_lines(child.stderr))
    return reply


def _send(child: Child, line: bytes) -> None:
    # A child that died before it read a line is told by its exit, not by the broken pipe.
    with contextlib.suppress(BrokenPipeError):
        _pipe(child.process.stdin).write(line)
        _pipe(child.process.stdin).flush()


def _listen(child: Child, on_image: Callable[[int], None]) -> Reply | None:
    """Read the child's messages to their end; returns its reply, or None when there was none."""
    reply = None
    for line in chain([child.first] if child.first else [], _pipe(child.process.stdout)):
        try:
            message = msgspec.json.decode(line, type=Message)
        except msgspec.DecodeError as error:
            said = f"wrote a line that is not a message: {line[:200]!r} ({error})."
            raise HotartError(f"{_label(child.request)} {said}") from error
        match message:
            case int():
                on_image(message)
            case Reply():
                reply = message
            case Ready():
                pass
            case Failure():
                raise _ERRORS.get(message.exit_code, HotartError)(message.message, message.hint)
    return reply


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a child behind: neither processes nor open pipes."""
    if child.poll() is None:  # asked first, because the number of a group that is gone may be another's
        if sys.platform != "win32":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()  # Windows, which has no process groups
        child.wait()
    _pipe(child.stdout).close()
    with contextlib.suppress(BrokenPipeError):  # the rest of a request that nobody read
        _pipe(child.stdin).close()


def silent_death(request: Request, returncode: int, last_lines: str) -> HotartError:
    """Return the error for a child that ended without a reply: by a signal, or with a traceback."""
    said = f" Its last words:\n{last_lines}" if last_lines else ""
    if returncode >= 0:
        return HotartError(f"{_label(request)} ended with exit code {returncode} and no reply.{said}")
    name = signal.Signals(-returncode).name
    why = ", most often because memory ran out" if name == "SIGKILL" else ""
    return MachineError(
        f"{_label(request)} was ended by {name}{why}.{said}",
        "Free memory or take a smaller size in [settings]; the same command continues.",
    )


def child_environment() -> dict[str, str]:
    """Return the environment in which a child finds the very ``bench`` that runs here.

    ``-P`` keeps the working directory off the child's path; so a ``bench`` that was not installed, but is run
    from its source folder, must be named. An installed one must not be: site-packages would come before the
    standard library.
    """
    home = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        paths = (home, *environment.get("PYTHONPATH", "").split(os.pathsep))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def _last_lines(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-QUOTED_LINES:])


def _label(request: Request) -> str:
    return f"The timing process of {request.variant.name}, round {request.round + 1},"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Tell the type checker what ``subprocess.PIPE`` guarantees."""
    if stream is None:
        raise ValueError("the child was started without this pipe")
    return stream
