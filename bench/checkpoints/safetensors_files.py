"""What a ``.safetensors`` file holds, read from its header alone: no torch, no weights in memory.

A file that is cut short is found before the first image is drawn.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import documents
from bench.checkpoints.checkpoint import Shape
from bench.errors import WeightsError
from bench.formatting import listed

if TYPE_CHECKING:
    import torch

# A ``.safetensors`` file: its header, checked against its size, and single tensors read from it. No torch before that.

DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}

"""The format's name of a dtype -> torch's, and its bytes."""

MOST_HEADER_BYTES = 100_000_000

"""The format's own limit. A longer header is a lie, and must not be read to find that out."""


class Stored(NamedTuple):
    """Where a tensor lies in its file: bytes ``start`` to ``end``, row after row."""

    shape: Shape
    dtype: str
    """As torch names it."""
    start: int
    end: int

    def rows(self, part: int, parts: int) -> Stored:
        """One of ``parts`` equal stacks of rows."""
        size = (self.end - self.start) // parts
        start = self.start + part * size
        return Stored((self.shape[0] // parts, *self.shape[1:]), self.dtype, start, start + size)


class Header(NamedTuple):
    """What a file says that it holds."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a file, every tensor of which lies inside the file and is as long as its shape asks for.

    Raises:
        WeightsError: the file is missing, cut short, or no safetensors; the header names a tensor twice, is longer
            than it may be, or disagrees with the size of the file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size == 0:
                raise ValueError("it is empty")
            if size < 8 or length > size - 8:
                raise ValueError(f"its header would take {length} bytes, the file has {size}")
            if length > MOST_HEADER_BYTES:
                raise ValueError(f"its header would take {length} bytes, more than {MOST_HEADER_BYTES}")
            return _parse(documents.loads(file.read(length).decode("utf-8")), 8 + length, size)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> WeightsError:
    """The error for a file that cannot be read as what it is."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return WeightsError(
        f"{path}: is damaged, cut short, or no .safetensors file: {text.splitlines()[0].rstrip('.')}.",
        "get the file again, and compare its size and sha256 with the source's",
    )


def read_stored(path: Path, stored: Stored) -> torch.Tensor:
    """One tensor, on the CPU, in the precision it is stored in.

    Raises:
        WeightsError: the file is gone, or has become shorter.
    """
    import torch

    dtype: torch.dtype = getattr(torch, stored.dtype)
    data = torch.empty(stored.end - stored.start, dtype=torch.uint8)
    view = memoryview(data.numpy().data)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(stored.start)
            while view:  # one call reads at most 2 GiB
                count = file.readinto(view)
                if not count:
                    raise ValueError("it ends before its last tensor")
                view = view[count:]
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return data.view(dtype).view(stored.shape)


def _parse(table: Any, start: int, size: int) -> Header:
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts by name")
    tensors = {name: _stored(name, entry, start) for name, entry in table.items()}
    position = start
    for name, stored in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if stored.start != position:
            raise ValueError(f"{name} begins at byte {stored.start}, not at {position}")
        position = stored.end
    if position != size:
        raise ValueError(f"its tensors end at byte {position}, the file at {size}")
    return Header(tensors, metadata)


def _stored(name: str, entry: Any, start: int) -> Stored:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described by dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in DTYPES:
        raise ValueError(f"{name} is stored as {kind}; read are {listed(DTYPES)}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has a shape or offsets that are no counts")
    dtype, width = DTYPES[kind]
    if offsets[1] - offsets[0] != math.prod(shape) * width:
        raise ValueError(f"{name} of shape {tuple(shape)} does not take {offsets[1] - offsets[0]} bytes")
    return Stored(tuple(shape), dtype, start + offsets[0], start + offsets[1])


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


# What a ``.safetensors`` file holds, read from its header alone: no torch, no weights in memory.


WEIGHTS_NAMES = ("diffusion_pytorch_model", "model")


def weight_files(folder: Path) -> list[Path]:
    """The files that diffusers and transformers load from a component's folder: one, or the shards in order.

    The copies in half precision, whose names end in ``.fp16``, are taken where there are no others.
    """
    for half in ("", ".fp16"):
        for name in WEIGHTS_NAMES:
            if (folder / f"{name}{half}.safetensors").is_file():
                return [folder / f"{name}{half}.safetensors"]
        shards = [file for file in folder.glob("*-of-*.safetensors") if (".fp16" in file.name) == bool(half)]
        if shards:
            return sorted(shards)
    return []


def read_shapes(path: Path) -> dict[str, Shape]:
    """Shape of every tensor of a file, by name.

    Raises:
        WeightsError: the file is missing, cut short, or no safetensors.
    """
    return {name: stored.shape for name, stored in read_header(path).tensors.items()}


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
