"""Objects under a URL, such as ``s3://bucket/run``: whole ones are put, read, listed and deleted, and no more.

Whatever fsspec has a file system for will do. What an object store has not, append and rename, is not asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bench.errors import MachineError, UsageError

T = TypeVar("T")

CONNECTIONS = 16

"""How many objects are read or deleted at once."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")


def is_url(place: object) -> bool:
    """Whether a run folder is named by a URL and not by a path of this machine."""
    return isinstance(place, str) and _URL.match(place) is not None


class Objects:
    """The objects below one URL, named relative to it with forward slashes.

    Raises:
        UsageError: no package here knows such URLs.
        MachineError: from every method, where the store would not.
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

        def listed() -> list[str]:
            self._fs.invalidate_cache()
            return list(self._fs.find(self._root))

        return frozenset(path[len(self._root) + 1 :] for path in self._asked("list", listed))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._asked(f"look for {name}", lambda: bool(self._fs.exists(self._path(name))))

    def get(self, name: str) -> bytes | None:
        """The bytes of an object, None where there is none."""

        def read() -> bytes | None:
            try:
                data: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return data

        return self._asked(f"read {name}", read)

    def get_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of several objects, some at a time; those that are gone meanwhile are left out."""
        wanted = sorted(names)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            found = dict(zip(wanted, pool.map(self.get, wanted), strict=True))
        return {name: data for name, data in found.items() if data is not None}

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole, in the place of an earlier one."""
        self._asked(f"write {name}", lambda: self._write(name, data, "overwrite"))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of the name; whether it was written. The store decides, not we."""

        def write() -> bool:
            try:
                self._write(name, data, "create")
            except FileExistsError:
                return False
            return True

        return self._asked(f"write {name}", write)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already are fine."""

        def remove(name: str) -> None:
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(lambda name: self._asked(f"delete {name}", lambda: remove(name)), sorted(names)):
                pass

    def copy_to(self, other: Objects, names: Iterable[str]) -> None:
        """Copy objects to another URL of the same store, within the store."""

        def copy(name: str) -> None:
            self._asked(f"copy {name}", lambda: self._fs.cp_file(self._path(name), other._path(name)))

        for name in names:
            self._make_parent(other._path(name))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(copy, sorted(names)):
                pass

    def _write(self, name: str, data: bytes, mode: str) -> None:
        self._make_parent(self._path(name))
        self._fs.pipe_file(self._path(name), data, mode=mode)

    def _make_parent(self, path: str) -> None:
        # Only what lies in folders has them: local disks, not object stores.
        if "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except Exception as error:  # the store's client, its transport and the store each have errors of their own
            raise MachineError(
                f"{self.url}: the store would not {what} ({type(error).__name__}: {_first_line(error)}).",
                "see that the bucket is there and that this machine may write to it; then the same command continues",
            ) from error


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
