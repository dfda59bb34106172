"""A run folder on an object store: objects under a URL, the lock object, and a working folder kept in step."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import msgspec
import psutil

from bench.errors import MachineError, UsageError
from bench.formatting import listed
from bench.records import Record
from bench.store.journal import TEMPORARY, record_lines, write_whole, writing
from bench.store.lock import LOCK_NAME
from bench.store.objects import CONNECTIONS, Objects
from bench.store.reading import INFO, RENDERS, SCORES, TIMINGS, read_renders

# The lock object that keeps a second writer away from a run on an object store.

LOCK = ".lock.json"

RENEW_S = 30.0

LEASE_S = 180.0

SETTLE_S = 2.0

"""How long a taker of a void lock waits to see whether another one took it too."""


class Holder(Record, frozen=True):
    """What the lock object holds."""

    token: str
    host: str
    process: int
    process_start: float
    renewed: float
    """Seconds since the epoch, by the holder's clock."""


class ObjectLock:
    """The right to write below a URL, from ``ObjectLock(objects)`` to ``release``; renewed by a thread of its own.

    Raises:
        MachineError: another driver holds it.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._token = secrets.token_hex(8)
        self._lost: MachineError | None = None
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """What tells this holding from all others."""
        return self._token

    def check(self) -> None:
        """Raise MachineError where the lock is not ours any more: nothing may be written."""
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            self._objects.delete([LOCK])

    def _take(self) -> None:
        if self._objects.create(LOCK, self._card()):
            return
        holder = self._holder()
        if holder is not None and not is_void(holder):
            raise MachineError(
                f"{self._objects.url}: in use by process {holder.process} on {holder.host}, "
                f"seen {max(0, round(time.time() - holder.renewed))} s ago.",
                f"wait until it ends, or choose another folder with -o; a driver that died is forgotten "
                f"after {LEASE_S:.0f} s",
            )
        self._objects.put(LOCK, self._card())
        time.sleep(SETTLE_S)
        if not self._is_ours():
            raise MachineError(f"{self._objects.url}: another driver took it at the same moment.", "wait until it ends")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                if not self._is_ours():
                    self._lost = MachineError(
                        f"{self._objects.url}: another driver took over, because this one was silent for too long.",
                        "wait until it ends; then the same command continues",
                    )
                    return
                self._objects.put(LOCK, self._card())
            except MachineError:
                continue  # a store that is away for a moment; whoever writes will be told, and the lock has time

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self._token

    def _holder(self) -> Holder | None:
        data = self._objects.get(LOCK)
        try:
            return None if data is None else msgspec.json.decode(data, type=Holder)
        except msgspec.DecodeError:
            return None  # half a lock of some other program holds nothing

    def _card(self) -> bytes:
        own = psutil.Process()
        return msgspec.json.encode(
            Holder(
                token=self._token,
                host=platform.node(),
                process=os.getpid(),
                process_start=own.create_time(),
                renewed=time.time(),
            )
        )


def is_void(holder: Holder) -> bool:
    """Whether a lock has run out, or its holder was a process of this machine that is no more."""
    if time.time() - holder.renewed > LEASE_S:
        return True
    if holder.host != platform.node():
        return False
    try:
        return abs(psutil.Process(holder.process).create_time() - holder.process_start) > 1
    except psutil.NoSuchProcess:
        return True


# A run folder on an object store: a working folder of this machine, mirrored by objects.

JOURNALS = (RENDERS, SCORES, TIMINGS)

IMAGES = "images/"

SHARDS = "chunks/"

_SHARD = re.compile(r"chunks/(\d{6,})-(renders|scores|timings)-[0-9a-f]+\.jsonl")

_LINK = re.compile(r"[^A-Za-z0-9_.-]+")


class ObjectStoreSync:
    """The objects behind a working folder, held by a lock; ``RunFolder`` tells it what it wrote.

    Raises:
        UsageError: something that is no run lies at the URL.
        MachineError: another driver holds the run, or the store would not.
    """

    def __init__(self, url: str, *, fresh: bool = False) -> None:
        self._objects = Objects(run_url(url))
        self.folder = working_folder(self._objects.url, "run")
        self._lease = ObjectLock(self._objects)
        try:
            names = refuse_foreign(self._objects)
            self._outdated = names if fresh and INFO in names else frozenset[str]()
            names -= self._outdated
            if INFO not in names:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._stored = {
                name: _sha256(data) for name, data in (pull(self._objects, names, self.folder) or {}).items()
            }
        except BaseException:
            self._lease.release()
            raise
        self._shards = {name for name in names if _SHARD.fullmatch(name)}
        self._numbers = count(max((_number(name) for name in self._shards), default=0) + 1)

    def put(self, name: str, data: bytes) -> None:
        """A file was written whole."""
        self._claim()
        self._objects.put(name, data)
        if not name.startswith(IMAGES):
            self._stored[name] = _sha256(data)

    def append(self, journal: str, records: Iterable[Record]) -> None:
        """Records were appended to a journal: they become one chunk, after the images that they speak of."""
        lines = record_lines(records)
        if not lines:
            return
        self._claim()
        name = f"{SHARDS}{next(self._numbers):06d}-{Path(journal).stem}-{self._lease.token}.jsonl"
        self._objects.put(name, lines)
        self._shards.add(name)

    def _claim(self) -> None:
        """Before a write: the lock holds still, and the run that a fresh one takes the place of is moved aside."""
        self._lease.check()
        if self._outdated:
            _move_aside(self._objects, self._outdated)
            self._outdated = frozenset()

    def remove(self, name: str) -> None:
        """A file was taken out."""
        self._lease.check()
        self._objects.delete([name])

    def compact(self) -> None:
        """Put the journals as they are in the working folder in the place of the chunks.

        In this order: the journals first, which hold all that the chunks do; a crash in between repeats nothing.
        """
        self._put_changed(self.folder / journal for journal in JOURNALS)
        self._objects.delete(self._shards)
        self._shards.clear()

    def finish(self) -> None:
        """Compact, and bring over whatever else lies in the working folder: reports, plots."""
        self.compact()
        here = list(plain_files(self.folder))
        self._put_changed(here)
        gone = {name for name in self._stored if is_plain(name)} - {self._name(path) for path in here}
        self._objects.delete(gone)

    def _put_changed(self, paths: Iterable[Path]) -> None:
        for path in paths:
            data = path.read_bytes() if path.exists() else None
            if data is not None and self._stored.get(self._name(path)) != _sha256(data):
                self.put(self._name(path), data)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def release(self) -> None:
        """Let other drivers in; a second call does nothing."""
        self._lease.release()


def read_copy(url: str) -> Path:
    """A folder of this machine that holds what is on the store, without the images: for verbs that only read.

    Raises:
        UsageError: there is no run.
        MachineError: the store would not.
    """
    objects = Objects(run_url(url))
    folder = working_folder(objects.url, "read")
    while True:
        names = objects.names()
        if INFO not in names:
            raise UsageError(f"{objects.url}: there is no run here (no {INFO}).", f"hotart-bench run -o {objects.url}")
        if pull(objects, names, folder, images=False) is not None:
            return folder


def is_run_at(url: str) -> bool:
    """Whether there is a run at a URL; MachineError where the store would not say."""
    return Objects(run_url(url)).exists(INFO)


def forget_empty(url: str) -> bool:
    """Take ``run.json`` out of a run at a URL that holds no image yet; whether that was so."""
    objects = Objects(run_url(url))
    names = objects.names()
    if any(name == RENDERS or (_SHARD.fullmatch(name) and _journal(name) == RENDERS) for name in names):
        return False
    objects.delete([INFO])
    return True


def run_url(place: str) -> str:
    """The URL of the run folder that is meant by its own or by that of its ``run.json``."""
    return place.rstrip("/").removesuffix(f"/{INFO}").rstrip("/")


def put_file(url: str, name: str, data: bytes) -> None:
    """Write one small file into a run on a store, beside its journals."""
    Objects(run_url(url)).put(name, data)


def working_folder(url: str, use: str) -> Path:
    """Where this machine keeps its copy of a run: below ``HOTART_RUNS_CACHE`` or ``~/.cache/hotart-bench/runs``."""
    home = os.environ.get("HOTART_RUNS_CACHE") or Path.home() / ".cache" / "hotart-bench" / "runs"
    name = _LINK.sub("-", url.rpartition("/")[2])[:40]
    return Path(home) / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}" / use


def refuse_foreign(objects: Objects) -> frozenset[str]:
    """The names below a URL; UsageError where they are not those of a run."""
    names = objects.names() - {LOCK}
    if names and INFO not in names:
        raise UsageError(
            f"{objects.url}: is not empty and holds no run (no {INFO}), but {listed(sorted(names), 3)}.",
            "choose another folder with -o",
        )
    return names


def pull(objects: Objects, names: frozenset[str], folder: Path, *, images: bool = True) -> dict[str, bytes] | None:
    """Make a working folder what the store says: journals with their chunks, small files, images by their sha256.

    Returns the small files and journals as they are on the store, or None where a chunk went meanwhile, because the
    run's driver compacted them: look again.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    chunks = sorted((name for name in names if _SHARD.fullmatch(name)), key=_number)
    small = objects.get_all({*chunks, *(name for name in names if name in JOURNALS or is_plain(name))})
    if not small.keys() >= set(chunks):
        return None
    for journal in JOURNALS:
        parts = [small.get(journal, b""), *(small[name] for name in chunks if _journal(name) == journal)]
        _set(folder / journal, b"".join(parts) or None)
    for name in {path.relative_to(folder).as_posix() for path in plain_files(folder)} | small.keys():
        if is_plain(name):
            _set(folder / name, small.get(name))
    if images:
        _pull_images(objects, names, folder)
    return {name: data for name, data in small.items() if name not in chunks}


def is_plain(name: str) -> bool:
    """Whether an object is a small file of the run: no image, journal, chunk or lock."""
    return not name.startswith((IMAGES, SHARDS)) and name not in JOURNALS and name not in (LOCK, LOCK_NAME)


def plain_files(folder: Path) -> Iterator[Path]:
    """The small files of a working folder."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if is_plain(name) and path.is_file() and not name.endswith(TEMPORARY):
            yield path


def _pull_images(objects: Objects, names: frozenset[str], folder: Path) -> None:
    """Each image that a record names, checked against the record; one that cannot be had is not there."""

    def bring(name: str, sha256: str) -> None:
        path = folder / name
        there = name in names
        if there and path.is_file() and _sha256(path.read_bytes()) == sha256:
            return
        data = objects.get(name) if there else None
        _set(path, data if data is not None and _sha256(data) == sha256 else None)

    wanted = [(item.image, item.sha256) for item in read_renders(folder) if item.image and item.sha256]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(lambda pair: bring(*pair), wanted):
            pass


def _set(path: Path, data: bytes | None) -> None:
    """Make a file hold these bytes, or be gone."""
    with writing(path):
        if data is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _move_aside(objects: Objects, names: frozenset[str]) -> None:
    numbers = count(1)
    aside = next(other for other in (Objects(f"{objects.url}.old-{number}") for number in numbers) if not other.names())
    objects.copy_to(aside, names)
    objects.delete(names)


def _number(chunk: str) -> int:
    return int(chunk.removeprefix(SHARDS).partition("-")[0])


def _journal(chunk: str) -> str:
    return f"{chunk.split('-')[1]}.jsonl"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
