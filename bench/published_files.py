"""Published files, such as the weights of a metric: found, downloaded, and checked before anything is read from them.

They are looked for in the folder that the user names (``--weights-dir`` or ``HOTART_WEIGHTS``), as
``DIR/owner/name/FILE``, ``DIR/name/FILE`` or, where the name is its own, ``DIR/FILE``; then among earlier downloads;
last on the network, which is not used where a folder is named or ``HF_HUB_OFFLINE`` is set. Imports no torch.
"""

from __future__ import annotations

import json
import os
import shlex
import urllib.parse
import zipfile
from pathlib import Path
from typing import Literal

import huggingface_hub
import msgspec

from bench import documents, downloads
from bench.errors import WeightsError
from bench.records import Record
from bench.weights_lock import FileHash, hash_once, lock_path, read_lock, write_lock


class File(Record, frozen=True):
    """One file of a repository."""

    name: str
    sha256: str | None = None
    """None: trusted at first sight."""
    size_bytes: int | None = None
    """Exact, and checked; None where only ``about_bytes`` is known."""
    about_bytes: int | None = None
    """Rounded, for what a download takes; not checked."""
    instead: str | None = None
    """Another file of the repository with the same contents, taken where this one is missing."""


class Entry(Record, frozen=True):
    """What is asked for by one name: one file, or several of one repository."""

    name: str
    what: str
    """What it is, in a few words."""
    host: Literal["hub", "github"]
    repository: str
    """``owner/name``."""
    files: tuple[File, ...]
    revision: str | None = None
    """Commit; None: unpinned, the newest is taken."""
    flat: bool = True
    """Whether its files may lie directly in a folder of weights: not if many repositories use the same names."""


TRUST = {
    "pinned": "sha256 known",
    "locked": "locked: as first seen here",
    "unpinned": "trusted at first sight, then locked",
}
"""How a file is known to be the right one, in words."""


def find_files(entry: Entry, weights_dir: Path | None = None) -> Path:
    """The checked file of an entry, or the folder that holds its checked files, each by its name in the repository;
    downloaded if need be.

    Args:
        entry: what is looked for.
        weights_dir: folder of local weights; where it is given, nothing is downloaded.

    Raises:
        WeightsError: a file is missing and cannot be downloaded, or its size or sha256 is not the expected one.
        MachineError: the lock file cannot be read or written.
    """
    paths = [_find_file(entry, file, weights_dir) for file in entry.files]
    for file, path in zip(entry.files, paths, strict=True):
        check_file(entry, file, path)
    if len(paths) == 1:
        return paths[0]
    folders = {_folder_of(file, path) for file, path in zip(entry.files, paths, strict=True)}
    if len(folders) > 1:
        named = ", ".join(sorted(str(folder) for folder in folders))
        raise WeightsError(
            f"{entry.name}: its files lie in several folders: {named}.",
            f"put all of them into {entry.repository}/ of one",
        )
    return folders.pop()


class Stored(Record, frozen=True):
    """One file of an entry as it stands on this machine."""

    entry: str
    what: str
    """Repository and file."""
    path: str | None
    """None while it is missing."""
    size_bytes: int | None
    """Of the file, or what the download takes, rounded; None where neither is known."""
    trust: Literal["pinned", "locked", "unpinned"]
    """Its hash is known to this program, was recorded on this machine, or will be when the file is first seen."""


def look_up(entry: Entry, weights_dir: Path | None) -> tuple[Stored, ...]:
    """Every file of an entry as it stands on this machine; nothing is downloaded, hashed or written.

    Raises:
        WeightsError, MachineError: the lock file is damaged or cannot be read.
    """
    locked, found = read_lock().files, []
    for file in entry.files:
        path = present(entry, file, weights_dir)
        there = file.name if path is None else _name_of(file, path)
        pinned = file.sha256 is not None and there == file.name
        found.append(
            Stored(
                entry=entry.name,
                what=f"{entry.repository}/{there}",
                path=None if path is None else str(path),
                size_bytes=path.stat().st_size if path is not None else file.size_bytes or file.about_bytes,
                trust="pinned" if pinned else "locked" if _lock_key(entry, there) in locked else "unpinned",
            )
        )
    return tuple(found)


# Where a file lies: in the user's folder, among the downloads, or on the network.


def _find_file(entry: Entry, file: File, weights_dir: Path | None) -> Path:
    if (found := present(entry, file, weights_dir)) is not None:
        return found
    if weights_dir is not None:
        raise WeightsError(
            f"{entry.name}: {file.name} is not in {weights_dir}, and with a folder of weights nothing is downloaded.",
            f"put it at {weights_dir / entry.repository / file.name}, or leave out --weights-dir (HOTART_WEIGHTS)",
        )
    if (why := downloads.no_connection(_server(entry))) is not None:
        raise WeightsError(f"{entry.repository}/{file.name}: is not on this machine, and {why}.", downloads.ELSEWHERE)
    for name in _names(file):
        path = download(entry, name)
        if path is not None:
            return path
    raise WeightsError(f"{entry.name}: {entry.repository} has no file {' or '.join(_names(file))}.")


def _names(file: File) -> tuple[str, ...]:
    return (file.name,) if file.instead is None else (file.name, file.instead)


def _name_of(file: File, path: Path) -> str:
    """Which of a file's names it has here, whether or not it lies in the folders of its repository."""
    return next((name for name in _names(file) if path.name == Path(name).name), path.name)


def _folder_of(file: File, path: Path) -> Path:
    """Where the repository's own names begin: two steps up from ``unet/config.json``."""
    return path.parents[_name_of(file, path).count("/")]


def present(entry: Entry, file: File, weights_dir: Path | None) -> Path | None:
    """The file in the user's folder, or else among the downloads; the name that may replace it comes last."""
    folders: list[Path] = []
    if weights_dir is not None:
        folders = [weights_dir / entry.repository, weights_dir / entry.repository.split("/")[1]]
        folders += [weights_dir] if entry.flat else []
    for name in _names(file):
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    for name in _names(file):
        if entry.host == "github":
            if _github_path(entry, name).is_file():
                return _github_path(entry, name)
            continue
        found = huggingface_hub.try_to_load_from_cache(entry.repository, name, revision=entry.revision)
        if isinstance(found, str):
            return Path(found)
    return None


GITHUB = "https://raw.githubusercontent.com"


def _server(entry: Entry) -> str:
    return downloads.HUB if entry.host == "hub" else GITHUB


def _github_path(entry: Entry, name: str) -> Path:
    """Where weights that are not on the Hub are kept; the Hub's client has a cache of its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "hotart-bench" / "weights" / entry.repository / (entry.revision or "unpinned") / name


def download(entry: Entry, name: str) -> Path | None:
    """The file, downloaded to the cache; None where the repository has no such file.

    Raises:
        WeightsError: it cannot be downloaded: no such repository or revision, or the connection broke off.
        MachineError: the disk is full, or the cache must not be written.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError  # imports the HTTP client, a tenth of a second

    try:
        if entry.host == "hub":
            return Path(huggingface_hub.hf_hub_download(entry.repository, name, revision=entry.revision))
        target = _github_path(entry, name)
        address = f"{entry.repository}/{entry.revision or 'HEAD'}/{urllib.parse.quote(name)}"
        return target if download_url(f"{GITHUB}/{address}", target) else None
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # the Hub's client, its transport and the disk each have errors of their own
        raise downloads.failed(f"{entry.repository}/{name}", error) from error


def download_url(url: str, target: Path) -> bool:
    """The file behind an address, brought to ``target``; False where the server has none.

    Only a whole file gets the target's name. Raises what ``huggingface_hub`` and the disk raise.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            http_get(url, file, displayed_filename=target.name)
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise
        part.unlink()
        return False
    part.replace(target)
    return True


# Whether a file is the one expected: its size, its sha256, and the lock file that remembers what was first seen.

PICKLES = frozenset({".pt", ".pth", ".bin"})
PICKLE_START, ZIP_START = b"\x80", b"PK"
"""Of torch's older files, and of those since torch 1.6, which end with a directory of what they hold."""


def check_file(entry: Entry, file: File, path: Path) -> None:
    """Refuse a file that is not the one expected; the hash of an unpinned one is recorded when it is first seen.

    Raises:
        WeightsError: another size or sha256, with both; or an unpinned one, never seen before, that is damaged.
        MachineError: the lock file cannot be read or written.
    """
    size = path.stat().st_size
    name = _name_of(file, path)
    own = name == file.name  # the file that may replace it has a hash of its own
    if own and file.size_bytes is not None and size != file.size_bytes:
        raise _wrong(path, f"has {size:,} bytes, not {file.size_bytes:,}")
    found = hash_once(path)
    if own and file.sha256 is not None:
        if found != file.sha256:
            raise _wrong(path, f"has sha256 {found}, not {file.sha256}")
        return
    key, lock = _lock_key(entry, name), read_lock()
    known = lock.files.get(key)
    if known is None:
        if not is_whole(path):
            raise _wrong(path, f"is not a whole {path.suffix} file")
        seen = FileHash(sha256=found, size_bytes=size, recorded=documents.utc_now())
        write_lock(msgspec.structs.replace(lock, files={**lock.files, key: seen}))
    elif known.sha256 != found:
        since = f", as it was recorded in {lock_path()} on {known.recorded}"
        raise _wrong(path, f"has sha256 {found}, not {known.sha256}", since)


def _wrong(path: Path, what: str, since: str = "") -> WeightsError:
    # In the Hub's cache a file is a link, and what it links to would be taken again without a download.
    places = [path, path.resolve()] if path.is_symlink() else [path]
    return WeightsError(
        f"{path}: {what}{since}. It is another file or a half-downloaded one.",
        f"rm {shlex.join(map(str, places))}, and the same command again"
        + (", or take its entry out of the lock file if the change is meant" if since else ""),
    )


def is_whole(path: Path) -> bool:
    """Whether a ``.safetensors``, ``.pt``, ``.pth``, ``.bin`` or ``.json`` file is of its kind and not cut short.

    An older pickle that is cut short shows no sign of it before it is read. Files of other kinds pass.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy"):
                return True
        if path.suffix == ".json":
            json.loads(documents.read_bytes(path))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return False
    if path.suffix not in PICKLES:
        return True
    with path.open("rb") as file:
        start = file.read(2)
    return zipfile.is_zipfile(path) if start == ZIP_START else start.startswith(PICKLE_START)


def _lock_key(entry: Entry, name: str) -> str:
    return f"{entry.repository}@{entry.revision or 'unpinned'}/{name}"
