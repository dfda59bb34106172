"""What a LoRA's matrices are multiplied with: alpha/rank, and where alpha stands.

kohya's and lycoris's files have a tensor ``.alpha`` for each module. PEFT's and diffusers' have one in their metadata,
or in ``adapter_config.json`` beside the file. lycoris writes the alpha of an rsLoRA so that alpha/rank is the scale
already, so its ``rs_lora`` must not be applied again; PEFT writes the alpha itself, and ``use_rslora``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from bench import strict_json
from bench.errors import WeightsError
from bench.variants.adapters.kinds import Mismatch
from bench.variants.stored import Stored

T = TypeVar("T")

DIFFUSERS_KEY = "lora_adapter_metadata"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."
"""What stands before every key in a file that PEFT itself wrote; alpha is then in its configuration alone."""
MATRIX = re.compile(r"\.(lora|hada|lokr)_")
"""In the keys of what a scale is for."""


ALPHA_DTYPES = ("bfloat16", "float16", "float32", "float64", "int32", "int64")


def read_alpha(path: Path, name: str, stored: Stored) -> float:
    """The value of a tensor of one number, read without torch.

    Raises:
        WeightsError: it holds more than one number, none, or one in a dtype that no alpha has.
    """
    shape, dtype = stored.shape, stored.dtype
    if math.prod(shape) != 1 or dtype not in ALPHA_DTYPES:
        raise WeightsError(f"{path}: {name} should be one number, and is {dtype} of shape {list(shape)}.")
    read = "uint16" if dtype == "bfloat16" else dtype
    number = np.fromfile(path, np.dtype(read).newbyteorder("<"), count=1, offset=stored.start)
    if dtype == "bfloat16":  # the upper half of a float32
        return float((number.astype(np.uint32) << 16).view(np.float32)[0])
    return float(number[0])


class Trained(msgspec.Struct, frozen=True):
    """How PEFT says that a component's LoRA was trained; fields that do not change its scale are passed over."""

    r: int | None = None
    lora_alpha: float | None = None
    alpha: float | None = None
    """LoHa's and LoKr's name of ``lora_alpha``."""
    alpha_pattern: dict[str, float] = msgspec.field(default_factory=dict)
    rank_pattern: dict[str, int] = msgspec.field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False


def read_trained(path: Path, keys: Iterable[str], metadata: Mapping[str, str]) -> dict[str, Trained]:
    """PEFT's configuration by component, ``""`` for every component; empty where there is none.

    Raises:
        WeightsError: it is there and cannot be read, or is not there though the file cannot do without.
    """
    beside = path.parent / PEFT_CONFIG
    try:
        if DIFFUSERS_KEY in metadata:
            return _by_component(strict_json.loads(metadata[DIFFUSERS_KEY]))
        if path.name == PEFT_FILE and beside.is_file():
            return {"": _checked(strict_json.loads(beside.read_text(encoding="utf-8")))}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: its alpha cannot be read from the metadata of PEFT: {error}.") from error
    if _lacks_alpha(list(keys)):
        raise WeightsError(
            f"{path}: was written by PEFT, which keeps alpha in {PEFT_CONFIG}; without it the strength is not known.",
            f"put that file beside it, and name it {PEFT_FILE}",
        )
    return {}


def _lacks_alpha(keys: list[str]) -> bool:
    """Whether PEFT wrote matrices, and no alpha with them."""
    own = all(key.startswith(PEFT_PREFIX) for key in keys)
    return own and any(MATRIX.search(key) for key in keys) and not any(key.endswith(".alpha") for key in keys)


def _by_component(table: object) -> dict[str, Trained]:
    """diffusers packs the configurations of all components into one table: ``unet.lora_alpha``."""
    if not isinstance(table, dict):
        raise ValueError(f"{DIFFUSERS_KEY} is no table")
    packed: dict[str, dict[str, object]] = {}
    for key, value in table.items():
        component, _, field = key.partition(".")
        packed.setdefault(component, {})[field] = value
    return {component: _checked(fields) for component, fields in packed.items()}


def _checked(table: object) -> Trained:
    found = strict_json.convert(table, Trained)
    for pattern in (*found.alpha_pattern, *found.rank_pattern):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} is no regular expression") from error
    return found


def trained_alpha(trained: Trained, path: str) -> float | None:
    """The alpha of a module: its pattern's, else the component's."""
    alpha = trained.alpha if trained.lora_alpha is None else trained.lora_alpha
    return _of_pattern(trained.alpha_pattern, path, alpha)


def trained_scale(trained: Trained, path: str, rank: int | None) -> float:
    """alpha/rank of a module by PEFT's configuration, alpha/sqrt(rank) for rsLoRA.

    Args:
        trained: the component's configuration.
        path: the module within its component.
        rank: of its matrices; None for whole ones, where PEFT divides by the configured rank all the same.

    Raises:
        Mismatch: the configuration tells another rank than the matrices have.
    """
    told = _of_pattern(trained.rank_pattern, path, trained.r)
    if rank is not None and told is not None and rank != told:
        raise Mismatch(f"is of rank {told} by the metadata, and of rank {rank} by its matrices")
    width = told if rank is None else rank
    if width is None or width < 1:
        return 1.0
    alpha = trained_alpha(trained, path)
    return (width if alpha is None else alpha) / (math.sqrt(width) if trained.use_rslora else width)


def _of_pattern(patterns: Mapping[str, T], path: str, otherwise: T) -> T:
    """The value of the first pattern that a module's path ends in, as PEFT matches them."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), otherwise)
