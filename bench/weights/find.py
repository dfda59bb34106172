"""From a name of the catalogue to checked files on this machine. Imports no torch."""

from __future__ import annotations

import json
import os
import shlex
import zipfile
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.documents import utc_now
from bench.errors import WeightsError
from bench.records import Progress, Record
from bench.weights import lock
from bench.weights.catalogue import Entry, File, find_entry

# The tensors of a checked weight file. torch is imported on the call.

FETCH_AGAIN = "delete it and fetch it again: hotart-bench fetch SUITE"

"""The hint beside a file that is not what it should be."""


def read_tensors(path: Path) -> Any:
    """What a weight file holds, on the CPU: a dict of tensors, or for ``.pt`` what it was saved as.

    ``.pt``, ``.pth`` and ``.bin`` are pickles: they are read with ``weights_only=True``, which builds tensors and
    plain containers and nothing else, and only ever after ``find_weights`` has checked their hash.

    Raises:
        WeightsError: a file of another kind, a damaged one, or a pickle with more than tensors in it.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    if path.suffix not in {".pt", ".pth", ".bin"}:
        raise WeightsError(f"{path}: weights are .safetensors, .pt, .pth or .bin files.")
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own for what is damaged
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    why = " ".join(str(error).split())[:120]
    return WeightsError(
        f"{path}: cannot be read as weights ({type(error).__name__}: {why}).",
        FETCH_AGAIN,
    )


# Whether a weight file can be a whole one of its kind, by its first and last bytes. Imports no torch.

PICKLES = frozenset({".pt", ".pth", ".bin"})

PICKLE_START, ZIP_START = b"\x80", b"PK"

"""Of torch's older files and of those since torch 1.6, which end with a directory of what they hold."""


def is_whole(path: Path) -> bool:
    """Whether a ``.safetensors``, ``.pt``, ``.pth``, ``.bin`` or ``.json`` file is of its kind and not cut short.

    An older pickle that is cut short shows no sign of it before it is read. Files of other kinds pass.
    """
    if path.suffix == ".safetensors":
        return _is_whole_safetensors(path)
    if path.suffix in PICKLES:
        with path.open("rb") as file:
            start = file.read(2)
        return zipfile.is_zipfile(path) if start == ZIP_START else start.startswith(PICKLE_START)
    return path.suffix != ".json" or _is_json(path)


def _is_whole_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


# From a name of the catalogue to checked files on this machine. Imports no torch.

Trust = Literal["pinned", "locked", "unpinned"]


class Place(Protocol):
    """What ``find_weights`` reads of a ``bench.metrics.Place``."""

    @property
    def weights_dir(self) -> Path | None:
        """Folder of local weights; None for the cache and the network."""


class Stored(Record, frozen=True):
    """One file of an entry as it stands on this machine."""

    entry: str
    what: str
    """Repository and file."""
    path: str | None
    """None while it is missing."""
    size_bytes: int | None
    """Of the file, or what the download takes, rounded; None where neither is known."""
    trust: Trust
    """Its hash is known to this program, was recorded on this machine, or will be at its first sight."""


def find_weights(name: str, place: Place, progress: Progress | None = None) -> Path:
    """The checked file of an entry, or the folder that holds its checked files; downloaded if need be.

    Args:
        name: as the catalogue has it.
        place: its ``weights_dir`` is asked first and, where it is given, keeps the network out.
        progress: told ``("fetch", bytes, bytes in all, file)`` of a download that is not of the Hub's client.

    Raises:
        UsageError: no such name.
        WeightsError: a file is missing and cannot be had, or its size or sha256 is not the expected one.
        MachineError: the lock file cannot be read or written.
    """
    entry = find_entry(name)
    paths = [_find_file(entry, file, place.weights_dir, progress) for file in entry.files]
    for file, path in zip(entry.files, paths, strict=True):
        check_file(entry, file, path)
    if len(paths) == 1:
        return paths[0]
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        named = ", ".join(sorted(str(folder) for folder in folders))
        raise WeightsError(
            f"{name}: its files lie in several folders: {named}.", f"put all of them into {entry.repository}/ of one"
        )
    return folders.pop()


def fetch_weights(name: str, weights_dir: Path | None, progress: Progress | None = None) -> tuple[Stored, ...]:
    """Download what is missing of an entry and check all of it.

    Raises:
        UsageError, WeightsError, MachineError: as ``find_weights``.
    """
    find_weights(name, _Local(weights_dir=weights_dir), progress)
    return look_up(name, weights_dir)


def look_up(name: str, weights_dir: Path | None) -> tuple[Stored, ...]:
    """Every file of an entry as it stands on this machine; nothing is downloaded, hashed or written.

    Raises:
        UsageError: no such name.
        WeightsError, MachineError: the lock file is damaged or cannot be read.
    """
    entry = find_entry(name)
    return tuple(_stored(entry, file, weights_dir) for file in entry.files)


def check_file(entry: Entry, file: File, path: Path) -> None:
    """Refuse a file that is not the one expected; the hash of an unpinned one is recorded at its first sight.

    Raises:
        WeightsError: another size or sha256, with both; or an unpinned one, never seen before, that is damaged.
        MachineError: the lock file cannot be read or written.
    """
    size = path.stat().st_size
    own = path.name == file.name  # the file that stands in for it has a hash of its own
    if own and file.size_bytes is not None and size != file.size_bytes:
        raise _wrong(path, f"has {size:,} bytes, not {file.size_bytes:,}", "")
    found = lock.sha256_of(path)
    if own and file.sha256 is not None:
        if found != file.sha256:
            raise _wrong(path, f"has sha256 {found}, not {file.sha256}", "")
        return
    key = lock_key(entry, path.name)
    known = lock.read_lock().files.get(key)
    if known is None:
        if not is_whole(path):
            raise _wrong(path, f"is no whole {path.suffix} file", "")
        lock.record(key, lock.Locked(sha256=found, size_bytes=size, recorded=utc_now()))
    elif known.sha256 != found:
        since = f" as it was recorded in {lock.lock_path()} on {known.recorded}"
        raise _wrong(path, f"has sha256 {found}, not {known.sha256}", since)


def lock_key(entry: Entry, name: str) -> str:
    """The name of a file in the lock file."""
    return f"{entry.repository}@{entry.revision or 'unpinned'}/{name}"


class _Local(Record, frozen=True):
    weights_dir: Path | None


def _wrong(path: Path, what: str, since: str) -> WeightsError:
    # In the Hub's cache a file is a link, and what it links to would be taken again without a download.
    places = [path, path.resolve()] if path.is_symlink() else [path]
    return WeightsError(
        f"{path}: {what}{since}. It is another file or a half-downloaded one.",
        f"rm {shlex.join(map(str, places))}, and the same command again"
        + (", or take its entry out of the lock file if the change is meant" if since else ""),
    )


def _find_file(entry: Entry, file: File, weights_dir: Path | None, progress: Progress | None) -> Path:
    present = _present(entry, file, weights_dir)
    if present is not None:
        return present
    if weights_dir is not None:
        raise WeightsError(
            f"{entry.name}: {file.name} is not in {weights_dir}, and with a folder of weights nothing is downloaded.",
            f"put it at {weights_dir / entry.repository / file.name}, or leave out --weights-dir (HOTART_WEIGHTS)",
        )
    from bench.weights.download import download, is_offline

    if is_offline():
        raise WeightsError(
            f"{entry.name}: {file.name} of {entry.repository} is not on this machine, and HF_HUB_OFFLINE is set.",
            "hotart-bench fetch SUITE, or fetch --metrics NAME, where there is a network; or --weights-dir DIR with "
            f"the files in DIR/{entry.repository}/",
        )
    for name in _names(file):
        path = download(entry, name, progress)
        if path is not None:
            return path
    raise WeightsError(f"{entry.name}: {entry.repository} has no file {' or '.join(_names(file))}.")


def _names(file: File) -> tuple[str, ...]:
    return (file.name,) if file.instead is None else (file.name, file.instead)


def _present(entry: Entry, file: File, weights_dir: Path | None) -> Path | None:
    """The file in the user's folder, or else among the downloads; a name that stands in for it comes last."""
    for name in _names(file):
        for folder in _folders(entry, weights_dir):
            if (folder / name).is_file():
                return folder / name
    from bench.weights.download import cached

    return next((path for name in _names(file) if (path := cached(entry, name)) is not None), None)


def _folders(entry: Entry, weights_dir: Path | None) -> tuple[Path, ...]:
    if weights_dir is None:
        return ()
    owned = (weights_dir / entry.repository, weights_dir / entry.repository.split("/")[1])
    return (*owned, weights_dir) if entry.flat else owned


def _stored(entry: Entry, file: File, weights_dir: Path | None) -> Stored:
    path = _present(entry, file, weights_dir)
    name = file.name if path is None else path.name
    trust: Trust = "unpinned"
    if file.sha256 is not None and name == file.name:
        trust = "pinned"
    elif lock_key(entry, name) in lock.read_lock().files:
        trust = "locked"
    size = path.stat().st_size if path is not None else file.size_bytes or file.about_bytes
    return Stored(
        entry=entry.name,
        what=f"{entry.repository}/{name}",
        path=None if path is None else os.fspath(path),
        size_bytes=size,
        trust=trust,
    )
