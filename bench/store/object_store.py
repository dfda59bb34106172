"""A run folder on an object store: a working folder of this machine that is kept in step with objects under a URL."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from bench.documents import sha256_of
from bench.errors import UsageError
from bench.formatting import argument, listed
from bench.records import Record, Render
from bench.store.journal import (
    INFO,
    JOURNALS,
    RENDERS,
    SMALL,
    TEMPORARY,
    Journal,
    make_folder,
    record_lines,
    write_whole,
    writing,
)
from bench.store.lock import LOCK_NAME
from bench.store.objects import LOCK, ObjectLock, Objects, at_once

IMAGES = "images/"
CHUNKS = "chunks/"
_STEMS = "|".join(name.removesuffix(".jsonl") for name in JOURNALS)
_CHUNK = re.compile(rf"chunks/(\d{{6,}})-({_STEMS})-[0-9a-f]+\.jsonl")
_LINK = re.compile(r"[^A-Za-z0-9_.-]+")


class ObjectStoreSync:
    """The objects behind a working folder, held by a lock; ``RunFolder`` tells it what it wrote.

    Raises:
        UsageError: something that is not a run lies at the URL.
        MachineError: another driver holds the run, or the store fails.
    """

    def __init__(self, url: str, *, fresh: bool = False) -> None:
        self._objects = Objects(run_url(url))
        self.folder = working_folder(self._objects.url, "run")
        self._lock = ObjectLock(self._objects)
        try:
            names = _run_names(self._objects)
            self._outdated = names if fresh and INFO in names else frozenset[str]()
            """The objects of an older run, which are moved aside before anything is written."""
            names -= self._outdated
            if INFO not in names:
                shutil.rmtree(self.folder, ignore_errors=True)
            pulled = _pull(self._objects, names, self.folder, images=True) or {}
            self._stored = {name: sha256_of(data) for name, data in pulled.items()}
        except BaseException:
            self._lock.release()
            raise
        self._chunks = {name for name in names if _CHUNK.fullmatch(name)}
        self._numbers = count(max((_number(name) for name in self._chunks), default=0) + 1)

    def put(self, name: str, data: bytes) -> None:
        """A file was written whole."""
        self._before_a_write()
        self._objects.put(name, data)
        if not name.startswith(IMAGES):
            self._stored[name] = sha256_of(data)

    def append(self, journal: str, records: Iterable[Record]) -> None:
        """Records were appended to a journal: they become one chunk, after the images that they name."""
        lines = record_lines(records)
        if not lines:
            return
        self._before_a_write()
        name = f"{CHUNKS}{next(self._numbers):06d}-{Path(journal).stem}-{self._lock.token}.jsonl"
        self._objects.put(name, lines)
        self._chunks.add(name)

    def remove(self, name: str) -> None:
        """A file was taken out."""
        self._lock.check()
        self._objects.delete([name])

    def compact(self) -> None:
        """Put the journals as they are in the working folder in the place of the chunks.

        The journals come first, which hold all that the chunks do: a crash in between repeats nothing.
        """
        self._put_changed(self.folder / journal for journal in JOURNALS)
        self._objects.delete(self._chunks)
        self._chunks.clear()

    def finish(self) -> None:
        """Compact, and bring over whatever else lies in the working folder: reports, plots."""
        self.compact()
        here = list(_plain_files(self.folder))
        self._put_changed(here)
        gone = {name for name in self._stored if _is_plain(name)} - {self._name(path) for path in here}
        self._objects.delete(gone)

    def release(self) -> None:
        """Let other drivers in; a second call does nothing."""
        self._lock.release()

    def _before_a_write(self) -> None:
        self._lock.check()
        if self._outdated:
            olds = (Objects(f"{self._objects.url}.old-{number}") for number in count(1))
            self._objects.copy_to(next(old for old in olds if not old.names()), self._outdated)
            self._objects.delete(self._outdated)
            self._outdated = frozenset()

    def _put_changed(self, paths: Iterable[Path]) -> None:
        for path in paths:
            data = path.read_bytes() if path.exists() else None
            if data is not None and self._stored.get(self._name(path)) != sha256_of(data):
                self.put(self._name(path), data)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def read_copy(url: str) -> Path:
    """A folder of this machine that holds what is on the store, without the images: for verbs that only read.

    Raises:
        UsageError: there is no run.
        MachineError: the store fails.
    """
    objects = Objects(run_url(url))
    folder = working_folder(objects.url, "read")
    while True:
        names = objects.names()
        if INFO not in names:
            raise UsageError(
                f"{objects.url}: there is no run here (no {INFO}).",
                f"hotart-bench run SUITE -o {argument(objects.url)}",
            )
        if _pull(objects, names, folder, images=False) is not None:
            return folder


def is_run_at(url: str) -> bool:
    """Whether there is a run at a URL; MachineError where the store fails."""
    return Objects(run_url(url)).exists(INFO)


def forget_empty(url: str) -> bool:
    """Take ``run.json`` out of a run at a URL that holds no image yet; whether that was so."""
    objects = Objects(run_url(url))
    if any(name == RENDERS or _journal(name) == RENDERS for name in objects.names()):
        return False
    objects.delete([INFO])
    return True


def run_url(place: str) -> str:
    """The URL of the run folder that is meant by its own or by that of its ``run.json``."""
    return place.rstrip("/").removesuffix(f"/{INFO}").rstrip("/")


def working_folder(url: str, use: str) -> Path:
    """Where this machine keeps its copy of a run: below ``HOTART_RUNS_CACHE`` or ``~/.cache/hotart-bench/runs``."""
    home = os.environ.get("HOTART_RUNS_CACHE") or Path.home() / ".cache" / "hotart-bench" / "runs"
    name = _LINK.sub("-", url.rpartition("/")[2])[:40]
    return Path(home) / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}" / use


def _run_names(objects: Objects) -> frozenset[str]:
    """The names below a URL; UsageError where they are not those of a run."""
    names = objects.names() - {LOCK}
    if names and INFO not in names:
        raise UsageError(
            f"{objects.url}: is not empty and holds no run (no {INFO}), but {listed(names, 3)}.",
            "choose another folder with -o",
        )
    return names


def _pull(objects: Objects, names: frozenset[str], folder: Path, *, images: bool) -> dict[str, bytes] | None:
    """Make a working folder what the store says: journals with their chunks, small files, images by their sha256.

    Returns the small files and journals as they are on the store, or None where a chunk went meanwhile, because the
    run's driver compacted them: look again.
    """
    make_folder(folder)
    chunks = sorted((name for name in names if _CHUNK.fullmatch(name)), key=_number)
    small = objects.get_all({*chunks, *(name for name in names if name in JOURNALS or _is_plain(name))})
    if not small.keys() >= set(chunks):
        return None
    for journal in JOURNALS:
        parts = [small.get(journal, b""), *(small[name] for name in chunks if _journal(name) == journal)]
        _set(folder / journal, b"".join(parts) or None)
    here = {path.relative_to(folder).as_posix() for path in _plain_files(folder)}
    for name in here | {name for name in small if _is_plain(name)}:
        _set(folder / name, small.get(name))
    if images:
        _pull_images(objects, names, folder)
    return {name: data for name, data in small.items() if name not in chunks}


def _pull_images(objects: Objects, names: frozenset[str], folder: Path) -> None:
    """Each image that a record names, checked against the record; one that is missing or another is not there."""
    digests = {item.image: item.sha256 for item in Journal(folder / RENDERS, Render).records() if item.image}

    def bring(name: str) -> None:
        path = folder / name
        if name in names and path.is_file() and sha256_of(path) == digests[name]:
            return
        data = objects.get(name) if name in names else None
        _set(path, data if data is not None and sha256_of(data) == digests[name] else None)

    at_once(bring, digests)


def _is_plain(name: str) -> bool:
    """Whether an object is a small file of the run: not an image or its copy, journal, chunk or lock."""
    return not name.startswith((IMAGES, CHUNKS, f"{SMALL}/")) and name not in (*JOURNALS, LOCK, LOCK_NAME)


def _plain_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if _is_plain(name) and path.is_file() and not name.endswith(TEMPORARY):
            yield path


def _set(path: Path, data: bytes | None) -> None:
    """Make a file hold these bytes, or be gone."""
    with writing(path):
        if data is None:
            path.unlink(missing_ok=True)
            return
    make_folder(path.parent)
    write_whole(path, data)


def _number(chunk: str) -> int:
    return int(chunk.removeprefix(CHUNKS).partition("-")[0])


def _journal(name: str) -> str | None:
    """The journal that a chunk is of; None for any other object."""
    found = _CHUNK.fullmatch(name)
    return f"{found[2]}.jsonl" if found else None
