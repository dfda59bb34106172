"""The files of a run folder: journals (JSON lines) and whole files, readable after a crash at any moment.

A journal line counts when its newline is there. What stands after the last newline is the torn end of a
write that a crash cut short: reading leaves it out, the next append cuts it off.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from bench import documents
from bench.errors import InvalidError, MachineError, UsageError
from bench.records import Answer, FoundFaces, Record, Render, Score, SetScore, StepScore, Timing, Vote

R = TypeVar("R", bound=Record)

INFO = "run.json"
RENDERS = "renders.jsonl"
SCORES = "scores.jsonl"
TIMINGS = "timings.jsonl"
STEPS = "steps.jsonl"
FACES = "faces.jsonl"
ANSWERS = "answers.jsonl"
SETS = "sets.jsonl"
VOTES = "votes.jsonl"
JOURNALS = (RENDERS, SCORES, TIMINGS, STEPS, FACES, ANSWERS, SETS, VOTES)
IMAGE_SUFFIXES = (".png", ".jpg", ".webp")
"""How the name of an image ends: rendered ones are PNG, external ones keep their format."""
PAGE = "page"
"""The folder of the page, unless it is put elsewhere."""
SMALL = f"{PAGE}/small"
"""Where small copies of the images lie that pages made once; they are no part of the run."""
TEMPORARY = ".tmp"
"""How the name of a file ends that is not whole yet; it begins with a dot."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 1 << 16
_ENCODER = msgspec.json.Encoder()
_LINES = 4_096
"""Lines of a journal that are decoded at once."""

_KEYS: dict[type[Record], Callable[[Record], tuple[object, ...]]] = {
    Score: attrgetter("variant", "prompt_id", "sample", "metric"),
    Render: attrgetter("variant", "prompt_id", "sample"),
    FoundFaces: attrgetter("variant", "prompt_id", "sample"),
    StepScore: attrgetter("variant", "prompt_id", "sample", "step", "metric"),
    SetScore: attrgetter("variant", "prompt_id", "tag", "metric"),
    Timing: attrgetter("variant", "name", "round"),
    Answer: attrgetter("judge", "identity", "image_sha256", "question"),
    Vote: attrgetter("ballot", "voter", "pair"),
}
"""Which records of a journal are of the same thing, so that the newest counts."""


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


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UsageError: a URL, or there is a file or a link that leads nowhere in the place of a folder.
        MachineError: as ``writing``.
    """
    documents.refuse_url(path)
    for place in (path, *path.parents):
        if place.is_symlink() and not documents.exists(place):
            raise UsageError(
                f"{place}: is a link to {place.readlink()}, where there is nothing.",
                "make that folder, take the link away, or choose another place",
            )
        if documents.exists(place):
            if place.is_dir():
                break
            raise UsageError(f"{place}: is a file, and a folder is needed there.", "choose another place")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def image_name(variant: str, prompt_id: str, sample: int, suffix: str = ".png") -> str:
    """Where an image lies, relative to the run folder, with forward slashes."""
    return f"images/{variant}/{prompt_id}-{sample}{suffix}"


class Journal(Generic[R]):
    """A journal of a run folder, of which the newest record of each key counts: read once, then kept in memory.

    One that is not ``kept`` is read each time it is asked for: no memory then grows with what is appended.
    """

    def __init__(self, path: Path, kind: type[R], *, empty: bool = False, kept: bool = True) -> None:
        """A journal at ``path``; with ``empty`` what lies there is of an older run and does not count."""
        self.path, self._kind, self._kept, self._key = path, kind, kept, _KEYS[kind]
        self._newest: dict[tuple[object, ...], R] | None = {} if empty else None

    def records(self) -> tuple[R, ...]:
        """The newest record of each key, in the order in which the keys were first written.

        Raises:
            InvalidError: a damaged line, or a render with neither an image at its place nor an error.
            MachineError: the file cannot be read.
        """
        if self._newest is not None:
            return tuple(self._newest.values())
        newest = self._by_key(read_records(self.path, self._kind))
        if self._kept:
            self._newest = newest
        return tuple(newest.values())

    def append(self, records: Sequence[R]) -> None:
        """Append records; on the disk on return. Raises as ``append_records``."""
        append_records(self.path, records)
        if not self._kept:
            self._newest = None
        elif self._newest is not None:  # as they would be read: a whole number in the place of a float is one
            written = msgspec.convert(msgspec.to_builtins(records), tuple[self._kind, ...])  # type: ignore[name-defined]
            self._newest |= self._by_key(written)

    def drop_variant(self, name: str) -> None:
        """Take a variant's records out, whole or not at all."""
        before = self.records()
        kept = self._by_key([record for record in before if getattr(record, "variant", None) != name])
        if len(kept) < len(before):
            write_whole(self.path, record_lines(kept.values()))
            self._newest = kept if self._kept else None

    def _by_key(self, records: Sequence[R]) -> dict[tuple[object, ...], R]:
        return dict(zip(map(self._key, records), records, strict=True))


def _check_image(path: Path, number: int, record: Render) -> None:
    """Refuse a render whose image is elsewhere: a report embeds these files, and must not read /etc/passwd."""
    if record.image is None and record.error is not None:
        return
    names = [image_name(record.variant, record.prompt_id, record.sample, suffix) for suffix in IMAGE_SUFFIXES]
    if record.image not in names or record.sha256 is None:
        raise InvalidError(
            f"{path}:{number}: the image is {record.image!r}; it must be {names[0]!r} with a sha256, "
            "or null with an error.",
            "take the line out to have its work done again, or start over with --fresh",
        )


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records to a journal, one line each, in one write that is on the disk on return.

    A write that fails leaves at most a torn end, which counts for nothing.

    Raises:
        MachineError: the disk is full, read-only or otherwise unwilling.
        ValueError: a record holds a number that is not finite (an internal error: JSON has none).
    """
    lines = record_lines(records)
    if not lines:
        return
    with writing(path), path.open("ab+") as file:
        _cut_torn_end(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a journal in order; none without a file.

    Raises:
        InvalidError: a line, other than a torn end, that is not such a record, or a render with neither an image at its
            place nor an error.
        MachineError: the file cannot be read.
    """
    try:
        data = documents.read_bytes(path, documents.JOURNAL_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    whole, _, _ = data.rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    decoder = msgspec.json.Decoder(kind)
    found: list[R] = []
    for start in range(0, len(lines), _LINES):
        block = lines[start : start + _LINES]
        for line, record in zip(block, _as_written(block, decoder), strict=True):
            found.append(_read_line(path, len(found) + 1, line, kind) if record is None else record)
    for number, record in enumerate(found, start=1):
        if not isinstance(record, Render):
            break
        _check_image(path, number, record)
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: the old or the new one is there, never half of one.

    Raises:
        UsageError: ``path`` is a URL.
        MachineError: the disk is full, read-only or otherwise unwilling; nothing is left behind.
    """
    documents.refuse_url(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            documents.put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _as_written(lines: Sequence[bytes], decoder: msgspec.json.Decoder[R]) -> list[R | None]:
    """The records of lines that are what this program would write; None for the others, which are read strictly.

    The strict way takes ten times as long. A line that comes out byte for byte as it went in cannot hold what
    it is there to refuse: a doubled key, a number that is not finite, a broken string, another spelling.
    """
    try:
        records = decoder.decode_lines(b"\n".join(lines))
    except ValueError:  # the strict way says what is wrong, and where
        return [None for _ in lines]
    if len(records) != len(lines):
        return [None for _ in lines]
    written = _ENCODER.encode_lines(records).split(b"\n")[:-1]
    return [record if line == again else None for line, record, again in zip(lines, records, written, strict=True)]


def _read_line(path: Path, number: int, line: bytes, kind: type[R]) -> R:
    """The record of a line, read strictly."""
    try:
        return documents.convert(documents.loads(line.decode()), kind)
    except ValueError as error:
        raise InvalidError(
            f"{path}:{number}: is not a {kind.__name__.lower()} record: {error}.",
            "take the line out to have its work done again, or start over with --fresh",
        ) from error


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
