"""Objects under a URL, such as ``s3://bucket/run``: whole ones are put, read, listed and deleted, and one is the lock.

Any store that fsspec has a file system for will do. Append and rename, which an object store does not have, are not
used.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec
import psutil

from bench.errors import MachineError, UsageError
from bench.records import Record

T = TypeVar("T")
CONNECTIONS = 16
"""How many objects are read or deleted at once."""
LOCK = ".lock.json"
RENEW_S = 30.0
LEASE_S = 180.0
"""After so long without a renewal a lock is void."""
SETTLE_S = 2.0
"""How long a taker of a void lock waits to see whether another one took it too."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")


def is_url(place: object) -> bool:
    """Whether a run folder is named by a URL and not by a path of this machine."""
    return isinstance(place, str) and _URL.match(place) is not None


class Objects:
    """The objects below one URL, named relative to it with forward slashes.

    Raises:
        UsageError: no installed package reads such URLs.
        MachineError: from every method, where the store fails.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            raise UsageError(
                f"{url}: no package that is installed here reads {scheme}:// ({error}).",
                "pip install 'hotart-bench[s3]', or the package of fsspec for such URLs",
            ) from error
        self._root = str(root).rstrip("/")

    def names(self) -> frozenset[str]:
        """Every object below the URL."""

        def find() -> list[str]:
            self._fs.invalidate_cache()
            return list(self._fs.find(self._root))

        return frozenset(path[len(self._root) + 1 :] for path in self._try("list", find))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._try(f"look for {name}", lambda: bool(self._fs.exists(self._path(name))))

    def get(self, name: str) -> bytes | None:
        """The bytes of an object, None where there is none."""

        def read() -> bytes | None:
            with suppress(FileNotFoundError):
                return bytes(self._fs.cat_file(self._path(name)))
            return None

        return self._try(f"read {name}", read)

    def get_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of several objects, some at a time; those that are gone meanwhile are left out."""
        wanted = sorted(names)
        found = zip(wanted, at_once(self.get, wanted), strict=True)
        return {name: data for name, data in found if data is not None}

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole, in the place of an earlier one."""
        self._try(f"write {name}", lambda: self._write(name, data, "overwrite"))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of the name; whether it was written. The store decides, not we."""

        def write() -> bool:
            with suppress(FileExistsError):
                self._write(name, data, "create")
                return True
            return False

        return self._try(f"write {name}", write)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already are fine."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

        at_once(lambda name: self._try(f"delete {name}", lambda: remove(name)), sorted(names))

    def copy_to(self, other: Objects, names: Iterable[str]) -> None:
        """Copy objects to another URL of the same store, within the store."""

        def copy(name: str) -> None:
            other._make_parent(name)
            self._fs.cp_file(self._path(name), other._path(name))

        at_once(lambda name: self._try(f"copy {name}", lambda: copy(name)), sorted(names))

    def _write(self, name: str, data: bytes, mode: str) -> None:
        self._make_parent(name)
        self._fs.pipe_file(self._path(name), data, mode=mode)

    def _make_parent(self, name: str) -> None:
        protocols = self._fs.protocol
        if "file" in ((protocols,) if isinstance(protocols, str) else protocols):  # object stores have no folders
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _try(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except Exception as error:  # the store's client, its transport and the store each have errors of their own
            reason = next(iter(str(error).strip().splitlines()), "no reason given")
            raise MachineError(
                f"{self.url}: the store would not {what} ({type(error).__name__}: {reason}).",
                "see that the bucket is there and that this machine may write to it; then the same command continues",
            ) from error


def at_once(action: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """``action`` of each name, in their order, some at a time."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(action, names))


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
        self.token = secrets.token_hex(8)
        """What tells this holding from all others."""
        self._lost: MachineError | None = None
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

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
        url = self._objects.url
        if self._objects.create(LOCK, self._content()):
            return
        holder = self._holder()
        if holder is not None and not _is_void(holder):
            raise MachineError(
                f"{url}: in use by process {holder.process} on {holder.host}, "
                f"seen {max(0, round(time.time() - holder.renewed))} s ago.",
                f"wait until it ends, or choose another folder with -o; a driver that died is forgotten "
                f"after {LEASE_S:.0f} s",
            )
        self._objects.put(LOCK, self._content())
        time.sleep(SETTLE_S)
        if not self._is_ours():
            raise MachineError(f"{url}: another driver took it at the same moment.", "wait until it ends")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(MachineError):  # a store that is away for a moment; whoever writes is told
                if not self._is_ours():
                    self._lost = MachineError(
                        f"{self._objects.url}: another driver took over, because this one was silent for too long.",
                        "wait until it ends; then the same command continues",
                    )
                    return
                self._objects.put(LOCK, self._content())

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self.token

    def _holder(self) -> Holder | None:
        data = self._objects.get(LOCK)
        with suppress(msgspec.DecodeError):  # half a lock of some other program holds nothing
            return None if data is None else msgspec.json.decode(data, type=Holder)
        return None

    def _content(self) -> bytes:
        start = psutil.Process().create_time()
        host, process = platform.node(), os.getpid()
        return msgspec.json.encode(
            Holder(token=self.token, host=host, process=process, process_start=start, renewed=time.time())
        )


def _is_void(holder: Holder) -> bool:
    """Whether a lock has run out, or its holder was a process of this machine that has ended."""
    if time.time() - holder.renewed > LEASE_S:
        return True
    if holder.host != platform.node():
        return False
    try:
        return abs(psutil.Process(holder.process).create_time() - holder.process_start) > 1
    except psutil.NoSuchProcess:
        return True
