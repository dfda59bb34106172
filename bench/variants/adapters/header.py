"""The header of a ``.safetensors`` file, and its scalars: no torch, no weights in memory."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from bench import strict_json
from bench.errors import WeightsError
from bench.variants.checkpoint import Tensor

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Names in the header -> torch's."""


class Header(NamedTuple):
    """What a file tells without its weights being read."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    starts: Mapping[str, int]
    """Where each tensor's bytes begin in the file."""


def read_header(path: Path) -> Header:
    """Names, shapes and dtypes of a file's tensors, and its metadata.

    Raises:
        WeightsError: the file is missing, empty or cut short, its header lies about sizes, names a key twice, or it is
            no ``.safetensors`` file at all.
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        # The library checks the header's length, every shape against its bytes, and the whole against the file's size.
        with safe_open(path, "np"):
            pass
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            table = strict_json.loads(file.read(length).decode())
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path}: is damaged, cut short, or no .safetensors file: {_first_line(error)}.",
            "get the file again, and compare its size and sha256 with the source's",
        ) from error
    metadata = table.pop("__metadata__", None) or {}
    tensors = {
        name: Tensor(tuple(facts["shape"]), DTYPES.get(facts["dtype"], facts["dtype"].lower()))
        for name, facts in table.items()
    }
    return Header(tensors, metadata, {name: 8 + length + facts["data_offsets"][0] for name, facts in table.items()})


def read_scalar(path: Path, header: Header, name: str) -> float:
    """The value of a tensor of one number, whatever its dtype.

    Raises:
        WeightsError: it holds more than one number, none, or one in a dtype that no alpha has.
    """
    shape, dtype = header.tensors[name]
    read = "uint16" if dtype == "bfloat16" else dtype
    if math.prod(shape) != 1 or dtype not in ("bfloat16", "float16", "float32", "float64", "int32", "int64"):
        raise WeightsError(f"{path}: {name} should be one number, and is {dtype} of shape {list(shape)}.")
    number = np.fromfile(path, np.dtype(read).newbyteorder("<"), count=1, offset=header.starts[name])
    if dtype == "bfloat16":  # the upper half of a float32
        return float((number.astype(np.uint32) << 16).view(np.float32)[0])
    return float(number[0])


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
