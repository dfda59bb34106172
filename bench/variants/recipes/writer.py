"""One ``.safetensors`` file, written tensor by tensor, whole or not at all.

The header comes first, made from names, shapes and dtypes alone, so that no more than a few tensors are in memory.
Tensors are ordered as safetensors' own writer orders them, the wider dtypes first and then by name, which keeps
every tensor aligned to its size. Same tensors and metadata, same bytes.
Source of the format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import MachineError
from bench.records import Progress
from bench.store.journal import TEMPORARY, writing
from bench.variants.checkpoint import Shape

if TYPE_CHECKING:
    import torch

WIDTHS = {"int64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
CODES = {"int64": "I64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""As safetensors names them, by torch's names."""
AHEAD = 2
"""How many finished tensors may wait for the disk."""
MAKERS = 2
"""How many tensors are made at a time."""


class Entry(NamedTuple):
    """A tensor of the file to be."""

    key: str
    shape: Shape
    dtype: str
    """As torch names it: one of ``CODES``."""

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


class Written(NamedTuple):
    """A file that is whole and on the disk."""

    sha256: str
    size_bytes: int


def write_tensors(
    file: FileIO,
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    read: Callable[[str], torch.Tensor],
    progress: Progress,
) -> Written:
    """Write header and tensors into a new file, in the order of ``ordered``.

    Args:
        file: what ``replacing`` gave.
        path: what it is to be, for messages.
        entries: its tensors.
        metadata: the header's texts.
        read: the tensor of a key, on the CPU, in its entry's shape and dtype; called from ``MAKERS`` threads. While
            some are made, those before them are hashed and written.
        progress: told of each tensor.

    Raises:
        MachineError: there is no room for it, or the system will not write.
        ValueError: ``read`` gave another shape or dtype (a bug of the caller).
    """
    order = ordered(entries)
    head = header(order, metadata)
    size_bytes = len(head) + sum(entry.size_bytes for entry in order)
    check_room(path, size_bytes)
    digest = hashlib.sha256()

    def put(data: bytes | memoryview) -> None:
        with _writing(path):
            _write_all(file, data)
            _start_writing_out(file, len(data))
        digest.update(data)

    with ThreadPoolExecutor(MAKERS) as makers, ThreadPoolExecutor(1) as pen:
        waiting: deque[Future[None]] = deque([pen.submit(put, head)])
        made = _in_order(makers, lambda entry: _bytes_of(read(entry.key), entry), order)
        for done, (entry, data) in enumerate(zip(order, made, strict=True)):
            progress("merge", done, len(order), entry.key)
            if len(waiting) == AHEAD:
                waiting.popleft().result()
            waiting.append(pen.submit(put, data))
        for one in waiting:
            one.result()
    progress("merge", len(order), len(order))
    return Written(sha256=digest.hexdigest(), size_bytes=size_bytes)


def _in_order(
    makers: ThreadPoolExecutor, make: Callable[[Entry], memoryview], order: Sequence[Entry]
) -> Iterator[memoryview]:
    """What is made of each entry, in order, ``MAKERS`` of them at a time; no more than that is made ahead."""
    waiting: deque[Future[memoryview]] = deque()
    for entry in order:
        if len(waiting) == MAKERS:
            yield waiting.popleft().result()
        waiting.append(makers.submit(make, entry))
    while waiting:
        yield waiting.popleft().result()


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """The entries in the order of the file: the wider dtypes first, then by name."""
    return sorted(entries, key=lambda entry: (-WIDTHS[entry.dtype], entry.dtype, entry.key))


def header(order: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """What stands before the tensors: the length as 8 bytes, then JSON, filled up with spaces to 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for entry in order:
        end = at + entry.size_bytes
        table[entry.key] = {"dtype": CODES[entry.dtype], "shape": list(entry.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_room(path: Path, size_bytes: int) -> None:
    """Raises MachineError unless the disk has room for a file of this size, the old one kept until it is whole."""
    with _writing(path):
        free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < size_bytes:
        raise MachineError(
            f"{path}: the disk has {free_bytes / 1e9:.1f} GB free, and the file takes {size_bytes / 1e9:.1f} GB.",
            "make room, or choose another disk with -o",
        )


@contextmanager
def replacing(path: Path) -> Iterator[FileIO]:
    """A new file beside ``path`` that takes its place where the block ends without an error, on the disk for good.

    Until then an old file stays as it is; when anything is raised, an interrupt too, nothing is left behind.

    Raises:
        MachineError: the system will not write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with _writing(path):
            file = temporary.open("wb", buffering=0)  # a buffer's rest would be written once more on closing
        with file:
            yield file
            with _writing(path):
                os.fsync(file.fileno())
        with _writing(path):
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """``writing``, with a hint that is true of a merge: it begins anew, and has harmed nothing."""
    try:
        with writing(path):
            yield
    except MachineError as error:
        hint = "put that right and give the same command again; a file that was there before is as it was"
        raise MachineError(error.message, hint) from error


def _sync_folder(folder: Path) -> None:
    """Put the folder's new name for the file on the disk too, where the system knows such a thing (not Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _start_writing_out(file: FileIO, count: int) -> None:
    """Let the system begin to put the last ``count`` bytes on the disk, so that little is left for the final fsync.

    On Linux, the advice that they are not needed in memory starts that and does not wait for it.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), file.tell() - count, count, os.POSIX_FADV_DONTNEED)


def _bytes_of(tensor: torch.Tensor, entry: Entry) -> memoryview:
    import torch

    found = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    if found != (entry.shape, entry.dtype):
        raise ValueError(f"{entry.key}: is {found}, and its entry says {(entry.shape, entry.dtype)}")
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
