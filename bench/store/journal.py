"""Journals (JSON lines) and whole files on disk, such that a crash at any moment leaves them readable.

A journal line counts when its newline is there. What stands after the last newline is the torn end of a
write that a crash cut short: reading leaves it out, the next append cuts it off.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from bench import documents
from bench.errors import InvalidError, MachineError
from bench.records import Record

R = TypeVar("R", bound=Record)

TEMPORARY = ".tmp"
"""How the name of a file ends that is not whole yet; it begins with a dot."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 1 << 16


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses while ``path`` is written into a sentence.

    Raises:
        MachineError: disk full, read-only, no permission, or whatever else the system said.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MachineError(
                f"{path}: the disk is full.", "make room and give the same command again: it continues"
            ) from error
        raise MachineError(f"{path}: cannot be written: {error.strerror}.") from error


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records to a journal, one line each, in one write that is on the disk on return.

    A write that fails leaves at most a torn end, which counts for nothing.

    Raises:
        MachineError: the disk is full, read-only or otherwise unwilling.
        ValueError: a record holds a number that is not finite (a bug of the caller: JSON has none).
    """
    lines = record_lines(records)
    if not lines:
        return
    with writing(path), path.open("ab+") as file:
        _cut_torn_end(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path, kind: type[R]) -> Iterator[tuple[str, R]]:
    """The records of a journal in order, each with its place ("renders.jsonl:7"); none without a file.

    Raises:
        InvalidError: a line, other than a torn end, that is no such record.
        MachineError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    whole, _, _ = data.rpartition(b"\n")
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
        try:
            yield f"{path.name}:{number}", _read_line(line, decoder, kind)
        except ValueError as error:
            raise InvalidError(
                f"{path}:{number}: is no {kind.__name__.lower()} record: {error}.",
                "take the line out to have its work done again, or start over with --fresh",
            ) from error


def rewrite_journal(path: Path, records: Iterable[Record]) -> None:
    """Put a journal in the place of another, whole or not at all.

    Raises:
        MachineError, ValueError: as ``append_records``.
    """
    write_whole(path, record_lines(records))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: the old or the new one is there, never half of one.

    Raises:
        MachineError: the disk is full, read-only or otherwise unwilling; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read_line(line: bytes, decoder: msgspec.json.Decoder[R], kind: type[R]) -> R:
    """The record of a line: at once where the line is what this program would write, else by the strict way.

    The strict way takes ten times as long. A line that comes out byte for byte as it went in cannot hold what
    it is there to refuse: a doubled key, a number that is not finite, a broken string, another spelling.
    """
    try:
        record = decoder.decode(line)
    except ValueError:  # the strict way says what is wrong, and where
        return documents.convert(documents.loads(line.decode()), kind)
    if msgspec.json.encode(record) == line:
        return record
    return documents.convert(documents.loads(line.decode()), kind)


def record_lines(records: Iterable[Record]) -> bytes:
    """Records as lines of a journal, in UTF-8.

    Raises:
        ValueError: a record holds a number that is not finite.
    """
    return "".join(documents.dumps(msgspec.to_builtins(record)) + "\n" for record in records).encode()


def _cut_torn_end(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    file.seek(end)
