"""PEFT's configuration of a LoRA, in the file's metadata or in ``adapter_config.json`` beside it.

It says what the keys cannot: alpha, and whether the LoRA was trained beside weights that PEFT changed first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench import documents
from bench.checkpoints.safetensors_files import Header
from bench.errors import WeightsError
from bench.lora.algorithms import Mismatch, Start

T = TypeVar("T")

DIFFUSERS_KEY = "lora_adapter_metadata"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."
"""What stands before every key in a file that PEFT itself wrote."""
MATRIX = re.compile(r"\.(lora|hada|lokr)_")
"""In the keys of what a scale is for."""

PLAIN = ("true", "false", "gaussian", "eva", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that leave the weights as they are."""
COMPUTABLE: Mapping[str, Start] = {"pissa": "pissa", "olora": "olora"}
"""Those that take a part of each weight out that the weight alone decides, so that it can be computed again."""
OTHER_KINDS = (
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "arrow_config",
    "alora_invocation_tokens",
    "layer_replication",
)
"""Fields by which PEFT computes something else than W + scale * up @ down from the same keys."""


class AdapterConfig(msgspec.Struct, frozen=True):
    """How PEFT says that a component's LoRA was trained; fields that do not change what it does are passed over."""

    r: int | None = None
    lora_alpha: float | None = None
    alpha: float | None = None
    """LoHa's and LoKr's name of ``lora_alpha``."""
    alpha_pattern: dict[str, float] = msgspec.field(default_factory=dict)
    rank_pattern: dict[str, int] = msgspec.field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str | None = None
    """What the training began with; None means True, as ``gaussian`` a change of 0."""


def read_configs(path: Path, header: Header) -> dict[str, AdapterConfig]:
    """PEFT's configuration by component, ``""`` for every component; empty where there is none.

    Raises:
        WeightsError: it is there and cannot be read, says that the LoRA is of a kind that is not applied here, or is
            not there though the file cannot do without.
    """
    beside = path.parent / PEFT_CONFIG
    try:
        if DIFFUSERS_KEY in header.metadata:
            table = documents.loads(header.metadata[DIFFUSERS_KEY])
            if not isinstance(table, dict):
                raise ValueError(f"{DIFFUSERS_KEY} is not a table")
            packed: dict[str, dict[str, object]] = {}
            for key, value in table.items():  # diffusers packs all components into one table: "unet.lora_alpha"
                component, _, field = key.partition(".")
                packed.setdefault(component, {})[field] = value
            return {component: _config(path, fields) for component, fields in packed.items()}
        if path.name == PEFT_FILE and beside.is_file():
            return {"": _config(path, documents.loads(documents.read_bytes(beside).decode()))}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: its alpha cannot be read from the metadata of PEFT: {error}.") from error
    keys = header.tensors
    if (
        all(key.startswith(PEFT_PREFIX) for key in keys)
        and any(MATRIX.search(key) for key in keys)
        and not any(key.endswith(".alpha") for key in keys)
    ):
        raise WeightsError(
            f"{path}: was written by PEFT, which keeps alpha in {PEFT_CONFIG}; without it the strength is not known.",
            f"put that file beside it, and name it {PEFT_FILE}",
        )
    return {}


def _config(path: Path, table: Any) -> AdapterConfig:
    found = documents.convert(table, AdapterConfig)
    for pattern in (*found.alpha_pattern, *found.rank_pattern):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} is not a regular expression") from error
    other = next((name for name in OTHER_KINDS if table.get(name)), None)
    if other is not None:
        raise WeightsError(f"{path}: is of a kind of PEFT's LoRAs ({other}) that is not supported.")
    _refuse_unknown_start(path, _begun_with(found))
    return found


def _begun_with(config: AdapterConfig) -> str:
    return "true" if config.init_lora_weights is None else str(config.init_lora_weights).lower()


def _refuse_unknown_start(path: Path, begun: str) -> None:
    """Refuses a LoRA that fits changed weights only, where the change is not known.

    PEFT takes the start out of the weights before training: PiSSA (arXiv 2404.02948) by a random approximation
    (``pissa_niter_4``), CorDA and LoRA-GA by data, LoftQ by rounding. Source: PEFT, tuners/lora/layer.py.
    """
    if begun in PLAIN or begun in COMPUTABLE:
        return
    if begun == "loftq":
        hint = "merge it into the rounded weights that it was trained beside, and use the result as a checkpoint"
    else:
        hint = "where it was trained, save_pretrained(FOLDER, path_initial_model_for_weight_conversion=START)"
    raise WeightsError(
        f"{path}: was begun with init_lora_weights = {begun!r}, which changes the weights that it is trained beside, "
        "and fits no others.",
        hint,
    )


def start_of(module: str, kind: str, config: AdapterConfig | None) -> Start | None:
    """What a change was begun with, to be taken away again; None where that is a change of 0.

    Raises:
        Mismatch: PEFT begins no such module so.
    """
    start = None if config is None else COMPUTABLE.get(_begun_with(config))
    if start is not None and kind != "lora":
        raise Mismatch(f"({module}) is a {kind}, which PEFT does not begin with {start}")
    return start


def scale_of(
    module: str, rank: int | None, alpha: float | None, config: AdapterConfig | None, *, dora: bool
) -> tuple[float | None, float]:
    """Alpha and scale: alpha/rank of the module's own tensor, else of PEFT's configuration, else None and 1.

    Args:
        module: its canonical name.
        rank: of its matrices. Two whole matrices have none: lycoris writes an alpha for them that means 1 whatever it
            is, also an infinite one, and PEFT divides by the configured rank all the same.
        alpha: of the module's own tensor.
        config: of the module's component. Its scale is alpha/sqrt(rank) for rsLoRA.
        dora: whether the module sets norms.

    Raises:
        Mismatch: the configuration tells another rank than the matrices have, or a DoRA where there is none.
    """
    path = module.partition(".")[2]
    if config is not None and config.use_dora and not dora:
        raise Mismatch("is a DoRA by the metadata, and lacks lora_magnitude_vector")
    if rank is None and alpha is not None:
        return None if math.isinf(alpha) else alpha, 1.0
    if alpha is not None or config is None:
        return alpha, 1.0 if rank is None or alpha is None else alpha / rank
    alpha = config.alpha if config.lora_alpha is None else config.lora_alpha
    alpha = _of_pattern(config.alpha_pattern, path, alpha)
    told = _of_pattern(config.rank_pattern, path, config.r)
    if rank is not None and told is not None and rank != told:
        raise Mismatch(f"is of rank {told} by the metadata, and of rank {rank} by its matrices")
    width = told if rank is None else rank
    if width is None or width <= 0:
        return alpha, 1.0
    return alpha, (width if alpha is None else alpha) / (math.sqrt(width) if config.use_rslora else width)


def _of_pattern(patterns: Mapping[str, T], path: str, otherwise: T) -> T:
    """The value of the first pattern that a module's path ends in, as PEFT matches them."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), otherwise)
