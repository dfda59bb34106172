"""The folder before a run is in it: whether it may be used, cleared of leftovers, or moved aside for a fresh one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import MachineError, UsageError
from bench.names import listed
from bench.store.journal import TEMPORARY, writing
from bench.store.lock import LOCK_NAME, lock_folder, unlock_folder
from bench.store.reading import INFO


def refuse_foreign(path: Path) -> None:
    """Refuse a place with anything but a run in it."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(f"{path}: is a file; a run needs a folder.", "choose another one with -o") from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    foreign = [name for name in names if name != LOCK_NAME and not name.endswith(TEMPORARY)]
    if foreign and INFO not in names:
        raise UsageError(
            f"{path}: is not empty and holds no run (no {INFO}), but {listed(foreign, 3)}.",
            "choose another folder with -o",
        )


def make_folders(path: Path) -> tuple[Path, ...]:
    """Make a folder and those above it that are missing; those that were made, the lowest first."""
    missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
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
