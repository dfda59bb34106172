"""One reading of a mutated file, and what is wrong with how it ended."""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import MOST_CHARACTERS, HotartError

from .kinds import Kind
from .mutations import mutate

MOST_SECONDS = 10
MOST_MEMORY_BYTES = 2 * 2**30
"""What reading a small file may take beside what the process has."""


class TooSlowError(BaseException):
    """A reading that took longer than ``MOST_SECONDS``; no ``except Exception`` holds it up."""


def mutated(kind: Kind, number: int) -> bytes:
    """The mutated file of a number, always the same."""
    rng = random.Random(f"{kind.name}:{number}")
    data = mutate(rng, kind.valid, kind.form)
    return kind.finish(rng, data) if kind.finish is not None else data


def try_one(kind: Kind, number: int) -> str:
    """Read one mutated file; what is wrong with how that ended, empty where nothing is."""
    kind.path.write_bytes(mutated(kind, number))
    try:
        return judge(kind)
    finally:
        kind.path.write_bytes(kind.valid)


def judge(kind: Kind) -> str:
    """Read the file as it stands; what is wrong with how that ended, empty where nothing is."""
    start = time.perf_counter()
    try:
        with _within_seconds():
            kind.read(kind.path)
    except HotartError as error:
        if error.exit_code == HotartError.exit_code:
            return f"an internal error: {error}"
        longest = max(error.message, error.hint, key=len)
        if len(longest) > MOST_CHARACTERS:
            return f"a sentence of {len(longest)} characters: {longest[:300]}"
        if not error.message.strip():
            return "an empty sentence"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error, limit=-6))[:6000]
    seconds = time.perf_counter() - start
    return f"it took {seconds:.0f} s" if seconds > MOST_SECONDS else ""


@contextmanager
def _within_seconds() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {MOST_SECONDS} s")

    before: Any = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process grow by ``MOST_MEMORY_BYTES`` at most, so that a reader which fills the memory fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
