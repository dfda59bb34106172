"""The user's lock file: the sha256 of each weight file at its first sight, checked ever after. Imports no torch.

One JSON file, at ``HOTART_WEIGHTS_LOCK`` or ``~/.config/hotart-bench/weights.lock.json``. It also remembers what
the hash of a file on this machine was, by the file's size, time of change and inode, so that gigabytes are hashed
once and not at every start.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from bench import documents
from bench.errors import MachineError, WeightsError
from bench.records import Record

SCHEMA = 1


class Locked(Record, frozen=True):
    """What an unpinned file was when it was first seen."""

    sha256: str
    size_bytes: int
    recorded: str
    """ISO 8601, UTC."""


class Hashed(Record, frozen=True):
    """What a file on this machine hashes to, while it stays as it is."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    inode: int


class Lock(Record, frozen=True):
    """The whole lock file."""

    schema: int = SCHEMA
    files: dict[str, Locked] = msgspec.field(default_factory=dict)
    """By repository, revision and name."""
    hashed: dict[str, Hashed] = msgspec.field(default_factory=dict)
    """By absolute path."""


def lock_path() -> Path:
    """Where the lock file lies."""
    named = os.environ.get("HOTART_WEIGHTS_LOCK")
    if named:
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
        lock = documents.convert(documents.loads(path.read_text("utf-8")), Lock)
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise WeightsError(
            f"{path}: is no lock file of weights: {error}.", "restore it, or delete it to trust the weights at hand"
        ) from error
    if lock.schema > SCHEMA:
        raise WeightsError(
            f"{path}: has schema {lock.schema}; this hotart-bench knows up to {SCHEMA}.",
            "pip install --upgrade hotart-bench",
        )
    return lock


def record(key: str, locked: Locked) -> None:
    """Add the hash of an unpinned file that was never seen before."""
    lock = read_lock()
    _write(msgspec.structs.replace(lock, files={**lock.files, key: locked}))


def sha256_of(path: Path) -> str:
    """The file's sha256, 64 lower-case hex digits; computed once while the file stays as it is."""
    path = path.resolve()
    state = path.stat()
    known = read_lock().hashed.get(str(path))
    facts = (state.st_size, state.st_mtime_ns, state.st_ino)
    if known is not None and (known.size_bytes, known.mtime_ns, known.inode) == facts:
        return known.sha256
    digest = documents.sha256_of(path)
    lock = read_lock()  # again: another process may have written while this one hashed
    entry = Hashed(sha256=digest, size_bytes=facts[0], mtime_ns=facts[1], inode=facts[2])
    present = {name: item for name, item in lock.hashed.items() if Path(name).exists()}
    _write(msgspec.structs.replace(lock, hashed={**present, str(path): entry}))
    return digest


def _write(lock: Lock) -> None:
    path = lock_path()
    text = msgspec.json.format(msgspec.json.encode(lock), indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(text + b"\n")
        Path(name).replace(path)
    except OSError as error:
        raise MachineError(
            f"{path}: the hashes of the weights cannot be recorded: {error.strerror}.",
            "name another place in HOTART_WEIGHTS_LOCK",
        ) from error
