"""A run folder on this machine: the lock that keeps a second process out, and what may lie there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.documents import NOT_PLAIN, read_bytes
from bench.errors import InUse, MachineError, UsageError
from bench.formatting import listed
from bench.store.journal import INFO, TEMPORARY, make_folder, writing

# The lock that keeps a second process out of a run folder.

LOCK_NAME = ".lock"

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_EVERY_S = 0.05
"""How often a lock that another process holds is asked for again."""


def lock_folder(folder: Path) -> int:
    """Lock a folder for this process and return the open lock file; ``unlock_folder`` gives it back.

    Raises:
        InUse: another process (or another opening in this one) holds it.
        MachineError: the folder cannot be written or locked.
    """
    return _lock_as(folder / LOCK_NAME, folder, "wait until it ends, or choose another folder with -o")


@contextlib.contextmanager
def file_locked(file: Path, wait_s: float) -> Iterator[None]:
    """Keeps every other process that asks for it away from one file, by a lock file beside it; waits for a while.

    Raises:
        InUse: another process still holds it after ``wait_s`` seconds.
        MachineError: its folder cannot be written or locked.
    """
    path, end = file.with_name(f".{file.name}{LOCK_NAME}"), time.monotonic() + wait_s
    while True:
        try:
            lock = _lock_as(path, file, "wait until it ends; then the same command again")
            break
        except InUse:
            if time.monotonic() >= end:
                raise
            time.sleep(_EVERY_S)
    try:
        yield
    finally:
        _unlock_as(path, lock)


def _lock_as(path: Path, what: Path, hint: str) -> int:
    """Lock the file ``path``, which is made; errors name ``what``."""
    while True:
        file = _open(path)
        try:
            _lock(file)
            if _is_current(file, path):
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()}\n".encode())
                return file
        except OSError as error:
            os.close(file)
            if error.errno not in _BUSY:
                raise MachineError(f"{what}: cannot be locked: {error.strerror}.") from error
            raise InUse(f"{what}: in use by {_holder(path)}.", hint) from error
        os.close(file)


def unlock_folder(folder: Path, file: int) -> None:
    """Give back what ``lock_folder`` returned, and take the lock file away."""
    _unlock_as(folder / LOCK_NAME, file)


def _unlock_as(path: Path, file: int) -> None:
    if _is_current(file, path):
        with contextlib.suppress(OSError):  # Windows keeps an open file; left behind, it locks nothing
            path.unlink()
    _unlock(file)
    os.close(file)


def _open(path: Path) -> int:
    # A link is not followed: the folder may be from elsewhere, and what the link names would be overwritten.
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        said = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise MachineError(f"{path}: cannot be opened for writing: {said}.") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise MachineError(f"{path}: cannot be opened for writing: {NOT_PLAIN}.")
    return file


def _is_current(file: int, path: Path) -> bool:
    """Whether the open file still has its name: its last holder may have removed it, or moved its folder."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        text = read_bytes(path).decode("ascii").strip()
    except (OSError, ValueError):  # the holder may be writing it, or be gone by now
        text = ""
    return f"process {text}" if text else "another process"


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows locks bytes against reading too; these are none of the process id's

    def _lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)

    def _unlock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


# The folder before a run is in it: whether it may be used, cleared of leftovers, or moved aside for a fresh one.


def refuse_foreign(path: Path, what: str = "run", document: str = INFO) -> None:
    """Refuse a place with anything in it but a run, or what else has its document there."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(f"{path}: is a file; a {what} needs a folder.", "choose another one with -o") from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    foreign = [name for name in names if name != LOCK_NAME and not name.endswith(TEMPORARY)]
    if foreign and document not in names:
        raise UsageError(
            f"{path}: is not empty and holds no {what} (no {document}), but {listed(foreign, 3)}.",
            "choose another folder with -o",
        )


def make_folders(path: Path) -> tuple[Path, ...]:
    """Make a folder and those above it that are missing; those that were made, the lowest first."""
    missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
    make_folder(path)
    return missing


def remove_folders(made: Sequence[Path]) -> None:
    """Take the folders out that ``make_folders`` made, as far as there is nothing in them."""
    with contextlib.suppress(OSError):  # somebody else may have begun a run in one
        for folder in made:
            folder.rmdir()


def move_aside(path: Path, lock: int) -> int:
    """Rename a folder to ``<name>.old-<n>`` and make an empty one in its place.

    Args:
        path: the folder.
        lock: what ``lock_folder`` returned for it; it is given back, also where the folder cannot be moved.

    Returns:
        The lock of the new folder.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    with contextlib.ExitStack() as stack:
        stack.callback(unlock_folder, aside, lock)
        if sys.platform == "win32":
            stack.close()  # there an open file keeps its folder from being renamed
        with writing(path):
            path.rename(aside)
            path.mkdir()
        return lock_folder(path)


def clear_temporary(path: Path) -> None:
    """Take out what a writer that was killed left half written."""
    with writing(path):
        for leftover in path.rglob(f".*{TEMPORARY}"):
            leftover.unlink()
