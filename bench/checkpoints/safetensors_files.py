"""``.safetensors`` files: the header, checked by the safetensors library, and single tensors. No torch before a read.

A file that is cut short is found before the first image is drawn. Tensors are read by plain reads and not through the
library's memory map: a mapped file counts as memory of the process, and ends it if the file shrinks.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from bench.checkpoints.checkpoint import Shape
from bench.documents import FileState, file_state, loads, open_plain, read_bytes, resolved, sha256_of
from bench.errors import WeightsError
from bench.formatting import listed

if TYPE_CHECKING:
    import torch

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
"""The format's name of a dtype -> torch's name, and its bytes."""


TWO_NAMES = "get the file again, or remove one of them"
"""The hint where one tensor is there under two names."""


class Stored(NamedTuple):
    """Where a tensor lies in its file: bytes ``start`` to ``end``, row after row."""

    path: Path
    shape: Shape
    dtype: str
    """As torch names it."""
    start: int
    end: int

    def rows(self, part: int, parts: int) -> Stored:
        """One of ``parts`` equal stacks of rows."""
        size = (self.end - self.start) // parts
        start = self.start + part * size
        return self._replace(shape=(self.shape[0] // parts, *self.shape[1:]), start=start, end=start + size)


class Header(NamedTuple):
    """What a file says that it holds."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a file, which the library compares with the size of the file.

    Raises:
        WeightsError: the file is missing, cut short or not a safetensors file; its header does not describe just the
            bytes that follow; a precision that is not read here.
    """
    try:
        tensors = {}
        # Opened by us first: the library would wait for a pipe to be written.
        with open_plain(path) as start, safe_open(path, "numpy") as file:
            size = int.from_bytes(start.read(8), "little")
            loads(start.read(size).decode())  # the library takes the last of two equal names in silence
            position = 8 + size
            for name in file.offset_keys():  # in the order of their bytes, between which there are no holes
                part: Any = file.get_slice(name)
                if part.get_dtype() not in DTYPES:
                    raise ValueError(f"{name} is stored as {part.get_dtype()}; read are {listed(DTYPES)}")
                dtype, width = DTYPES[part.get_dtype()]
                shape = tuple(part.get_shape())
                end = position + width * math.prod(shape)
                tensors[name] = Stored(path, shape, dtype, position, end)
                position = end
            return Header(tensors, file.metadata() or {})
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from error


def unwrapped(path: Path, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Tensors by the names of the network itself, without those of what it was wrapped in when it was saved.

    ``torch.compile`` puts ``_orig_mod.`` into names, ``DataParallel`` puts ``module.`` before all of them.

    Raises:
        WeightsError: two of them have one name then.
    """
    whole = bool(tensors) and all(name.startswith("module.") for name in tensors)
    names = {name: name.removeprefix("module." if whole else "").replace("_orig_mod.", "") for name in tensors}
    found = {names[name]: stored for name, stored in tensors.items()}
    if len(found) < len(tensors):
        raise WeightsError(f"{path}: holds tensors both with and without _orig_mod. in their names.", TWO_NAMES)
    return found


def damaged(path: Path, error: Exception) -> WeightsError:
    """The error for a file that cannot be read as what it is."""
    text = getattr(error, "strerror", None) or first_line(error)
    return WeightsError(
        f"{path}: is damaged, cut short, or not a .safetensors file: {text.rstrip('.')}.",
        "get the file again, and compare its size and sha256 with the source's",
    )


def read_stored(stored: Stored) -> torch.Tensor:
    """One tensor, on the CPU, in the precision it is stored in.

    Raises:
        WeightsError: the file is gone, or has become shorter.
    """
    import torch

    dtype: torch.dtype = getattr(torch, stored.dtype)
    data = torch.empty(stored.end - stored.start, dtype=torch.uint8)
    view = memoryview(data.numpy().data)
    try:
        with open_plain(stored.path) as file:
            file.seek(stored.start)
            while view:  # one call reads at most 2 GiB
                count = file.readinto(view)
                if not count:
                    raise ValueError("it ends before its last tensor")
                view = view[count:]
    except (OSError, ValueError) as error:
        raise damaged(stored.path, error) from error
    return data.view(dtype).view(stored.shape)


def weight_files(folder: Path) -> list[Path]:
    """The files that diffusers and transformers load from a component's folder: one, or the shards in order.

    diffusers follows an index of shards before it takes a single file, transformers the other way round. The copies in
    half precision, whose names have ``.fp16`` in them, are taken where there are no others. A shard that an index names
    need not be there.

    Raises:
        WeightsError: an index cannot be read, or files of both libraries' names lie in one folder.
    """
    for half in ("", ".fp16"):
        names = ("diffusion_pytorch_model", "model")
        single, indices = (
            [path for name in names if (path := folder / pattern.format(name=name, half=half)).is_file()]
            for pattern in ("{name}{half}.safetensors", "{name}.safetensors.index{half}.json")
        )
        if len({path.name.partition(".")[0] for path in (*single, *indices)}) > 1:
            both = listed(path.name for path in (*single, *indices))
            raise WeightsError(f"{folder}: holds two sets of weights: {both}.", "remove the one that is out of date")
        if indices and not (single and single[0].name.startswith("model.")):
            return _shards(indices[0])
        if single:
            return single
        shards = [file for file in folder.glob("*-of-*.safetensors") if (".fp16" in file.name) == bool(half)]
        if shards:
            return sorted(shards)
    return []


def _shards(index: Path) -> list[Path]:
    """The files that an index of shards names.

    Raises:
        WeightsError: it cannot be read, or names what is no file of its folder.
    """
    try:
        files = loads(read_bytes(index).decode())["weight_map"]
        shards = sorted(set(files.values()))
        if not shards or not all(shard.endswith(".safetensors") and Path(shard).name == shard for shard in shards):
            raise ValueError("it names what is no .safetensors file of its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index}: is not an index of shards: {first_line(error)}.", "get the folder again"
        ) from error
    return [index.with_name(shard) for shard in shards]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def weights_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex; computed once while the file stays as it is: one of SDXL is 7 GB."""
    path = resolved(path)
    return _sha256(path, file_state(path))


def autov3(path: Path) -> str:
    """The hash that A1111 and Civitai know a LoRA by: 12 hex digits of the sha256 over all bytes after its header.

    What kohya's trainer wrote into the header as ``sshs_model_hash`` goes first, as A1111 has it. Source:
    AUTOMATIC1111/stable-diffusion-webui, ``hashes.addnet_hash_safetensors``.

    Raises:
        WeightsError: as ``read_header``.
    """
    path = resolved(path)
    return _autov3(path, file_state(path))


AUTOV3_DIGITS = 12


@cache
def _autov3(path: Path, state: FileState) -> str:
    told = read_header(path).metadata.get("sshs_model_hash", "")
    if re.fullmatch("[0-9a-f]{64}", told):
        return told[:AUTOV3_DIGITS]
    digest = hashlib.sha256()
    with open_plain(path) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()[:AUTOV3_DIGITS]


@cache
def _sha256(path: Path, state: FileState) -> str:
    return sha256_of(path)
