"""The lock that keeps a second process out of a run folder.

The operating system holds it, so it ends with the process, however that ends: a file that is left behind
locks nothing. The process id in the file is only for the message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from bench.errors import MachineError

LOCK_NAME = ".lock"

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def lock_folder(folder: Path) -> int:
    """Lock a folder for this process and return the open lock file; ``unlock_folder`` gives it back.

    Raises:
        MachineError: another process (or another opening in this one) holds it, or the folder cannot be
            written or locked.
    """
    path = folder / LOCK_NAME
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
                raise MachineError(f"{folder}: cannot be locked: {error.strerror}.") from error
            raise MachineError(
                f"{folder}: in use by {_holder(path)}.",
                "wait until it ends, or choose another folder with -o",
            ) from error
        os.close(file)


def unlock_folder(folder: Path, file: int) -> None:
    """Give back what ``lock_folder`` returned, and take the lock file away."""
    path = folder / LOCK_NAME
    if _is_current(file, path):
        with contextlib.suppress(OSError):  # Windows keeps an open file; left behind, it locks nothing
            path.unlink()
    _unlock(file)
    os.close(file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MachineError(f"{path}: cannot be opened for writing: {error.strerror}.") from error


def _is_current(file: int, path: Path) -> bool:
    """Whether the open file still has its name: its last holder may have removed it, or moved its folder."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
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
