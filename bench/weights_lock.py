"""The user's lock file: hashes that were recorded when weights were first seen, and hashes computed once. No torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from bench import documents
from bench.errors import MachineError, WeightsError
from bench.records import Record


class FileHash(Record, frozen=True, omit_defaults=True):
    """The sha256 of a file, as the lock file holds it."""

    sha256: str
    size_bytes: int
    recorded: str = ""
    """Of an unpinned file: when it was first seen, ISO 8601, UTC."""
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    """Of a file on this machine: while these and its size stay, so does its hash (``documents.FileState``)."""


class PinnedSource(Record, frozen=True):
    """A checkpoint or LoRA of the Hub as ``fetch`` found it."""

    commit: str
    """Of its repository; empty where the files lie in a folder of the user's."""
    files: dict[str, str]
    """sha256 by path in it."""
    recorded: str
    """When, ISO 8601, UTC."""


class Lock(Record, frozen=True):
    """The user's lock file, one JSON document: the sha256 of each unpinned file, checked since it was first seen.

    It also remembers the hash of each file on this machine, so that gigabytes are hashed once and not at every start.
    """

    schema: int = 2
    """2 since it holds ``sources``; 1 is read."""
    files: dict[str, FileHash] = msgspec.field(default_factory=dict)
    """By repository, revision and name."""
    hashed: dict[str, FileHash] = msgspec.field(default_factory=dict)
    """By absolute path."""
    sources: dict[str, PinnedSource] = msgspec.field(default_factory=dict)
    """By repository, revision and, of a single file, its name."""


def lock_path() -> Path:
    """Where the lock file lies: at ``HOTART_WEIGHTS_LOCK`` or ``~/.config/hotart-bench/weights.lock.json``."""
    if named := os.environ.get("HOTART_WEIGHTS_LOCK"):
        documents.refuse_url(named)
        return Path(named).expanduser()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return config / "hotart-bench" / "weights.lock.json"


def read_lock() -> Lock:
    """The lock file; an empty one where there is none yet.

    Raises:
        WeightsError: it is damaged, or newer than this program.
        MachineError: it cannot be read.
    """
    path = lock_path()
    try:
        lock = documents.convert(documents.loads(documents.read_bytes(path).decode()), Lock)
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise WeightsError(
            f"{path}: is not a lock file of weights: {error}.",
            "restore it, or delete it to trust the weights that are there",
        ) from error
    if lock.schema > Lock().schema:
        raise WeightsError(
            f"{path}: has schema {lock.schema}; this hotart-bench knows up to {Lock().schema}.",
            "pip install --upgrade hotart-bench",
        )
    return lock


def hash_once(path: Path) -> str:
    """The file's sha256, 64 lower-case hex digits; computed once while the file stays as it is."""
    path = documents.resolved(path)
    state = documents.file_state(path)
    known = read_lock().hashed.get(str(path))
    if known is not None and all(getattr(known, name) == value for name, value in state._asdict().items()):
        return known.sha256
    digest = documents.sha256_of(path)
    lock = read_lock()  # again: another process may have written while this one hashed
    present = {name: item for name, item in lock.hashed.items() if Path(name).exists()}
    present[str(path)] = FileHash(sha256=digest, **state._asdict())
    write_lock(msgspec.structs.replace(lock, hashed=present))
    return digest


def write_lock(lock: Lock) -> None:
    """Write the lock file, whole or not at all.

    Raises:
        MachineError: it cannot be written.
    """
    path = lock_path()
    lock = msgspec.structs.replace(lock, schema=Lock().schema)
    text = msgspec.json.format(msgspec.json.encode(lock), indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(text + b"\n")
        documents.put_in_place(Path(name), path)
    except OSError as error:
        raise MachineError(
            f"{path}: the hashes of the weights cannot be recorded: {error.strerror}.",
            "name another place in HOTART_WEIGHTS_LOCK",
        ) from error
