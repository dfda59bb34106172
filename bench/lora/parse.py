"""A LoRA file of any layout: its keys, the modules that they name, and the changes that they make."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from bench import documents
from bench.checkpoints.blocks import LDM_UNET, BlockMap, count_blocks, ldm_unet_name
from bench.checkpoints.checkpoint import Shape, Tensor
from bench.checkpoints.detect import looks_like
from bench.checkpoints.safetensors_files import Header, Stored, read_header
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import NORMS, Adapter, Change, Mismatch, changes_of, delta_shape, fits, norm_axis
from bench.records.weights import ChangeKind

T = TypeVar("T")

TWICE = "places are named by more than one key"
UNCLEAR = "modules could be of either text encoder, which the names do not tell"
BROKEN = "modules have matrices that are missing or do not go together"
MISFIT = "modules have other shapes than the checkpoint's, so this is a LoRA for another model"
NOT_FINITE = "modules have an alpha that is not finite"
NOTHING = "modules have an alpha of 0, so that they change nothing"
PROBLEMS = (TWICE, UNCLEAR, BROKEN, MISFIT, NOT_FINITE, NOTHING)
"""What can be wrong with a module, the worst first; an error tells of one."""

DIFFERENCES = ("diff", "norm", "bias")
"""Kinds that are added as they are; an alpha beside them has no meaning, in any tool."""


def read_adapter(path: Path, tensors: Mapping[str, Tensor]) -> Adapter:
    """What a LoRA file changes in a checkpoint; each of its keys belongs to one tensor.

    Reads the header and the scalars; ``bench.lora.apply`` reads the weights.

    Args:
        path: a file as kohya's scripts, lycoris, PEFT, diffusers or ComfyUI write it.
        tensors: the whole checkpoint's, by canonical name.

    Raises:
        WeightsError: the file is damaged or empty, a key fits nothing in the checkpoint or the same place as another,
            shapes or ranks are not right, or an alpha is 0 or not finite.
    """
    header = read_header(path)
    if not header.tensors:
        raise WeightsError(f"{path}: holds no tensors.")
    modules, left, problems = _modules_of(header.tensors, module_names(tensors, count_blocks(tensors)))
    if left:
        raise _left_over(path, left, modules)
    configs = _read_configs(path, header)
    changes: dict[str, Change] = {}
    for name, (_, candidates, parts) in modules.items():
        try:
            for leaf, kind, own in changes_of(parts):
                change = _change(path, header, leaf, kind, own, candidates, tensors, configs)
                if change.tensor in changes:
                    raise Mismatch(change.tensor, TWICE)
                changes[change.tensor] = change
        except Mismatch as mismatch:
            problems.append(mismatch if mismatch.problem else Mismatch(f"{name} {mismatch.words}", BROKEN))
    if problems:
        raise _worst(path, problems, len(modules))
    applied = Counter(_component(name) for name, change in changes.items() for _ in change.parts)
    return Adapter(
        path=path,
        layout=_layout({layout for layout, _, _ in modules.values()}),
        keys=len(header.tensors),
        applied=dict(sorted(applied.items())),
        changes=tuple(changes[name] for name in sorted(changes)),
    )


def _component(name: str) -> str:
    return name.partition(".")[0]


# A key: the module, and the part of its change.

_ROLES = {"A": "down", "B": "up", "lora_magnitude_vector": "magnitude"}
_NAME = r"(?:\.(?!weight\b)\w+)?"  # the adapter's name, which PEFT leaves in now and then: ".default"
_KEY = re.compile(
    rf"""(?P<module>.+?)
    (?: \.lora_(?P<side>A|B|down|up|mid){_NAME}\.weight
      | [._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight
      | \.(?P<magnitude>lora_magnitude_vector){_NAME}(?:\.weight)?
      | \.(?P<role>alpha|dora_scale|diff_b|diff|w_norm|b_norm
                  |hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)){_NAME}
    )""",
    re.VERBOSE,
)


def parse_key(key: str) -> tuple[str, str, bool] | None:
    """The module, the role of the tensor, and whether the ending is that of diffusers before PEFT.

    The module is in the file's own spelling (``lora_unet_mid_block_attentions_0_proj_in``). The role is ``up``,
    ``down``, ``mid``, ``alpha``, ``magnitude`` (PEFT's DoRA), else as lycoris names it: ``hada_w1_a``. Old endings are
    ``.lora.up.weight`` and ``_lora.down.weight``. None where the ending is none of a LoRA's that can be applied.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    part = match["side"] or match["old"] or match["magnitude"] or match["role"]
    return match["module"], _ROLES.get(part, part), match["old"] is not None


ModuleKeys = tuple[str, tuple[str, ...], dict[str, str]]
"""Layout, canonical modules that are meant, and role -> key."""


def _modules_of(
    keys: Iterable[str], names: Mapping[str, tuple[str, tuple[str, ...]]]
) -> tuple[dict[str, ModuleKeys], list[str], list[Mismatch]]:
    """The keys by module in the file's spelling, those that fit nothing, and those that name a part twice."""
    modules: dict[str, ModuleKeys] = {}
    left, problems = [], []
    for key in sorted(keys):
        parsed = parse_key(key)
        place = None if parsed is None else _look_up(parsed[0], names)
        if parsed is None or place is None:
            left.append(key)
            continue
        module, role, old = parsed
        layout = "diffusers (old)" if old and place[0] == PEFT else place[0]
        _, _, parts = modules.setdefault(module, (layout, place[1], {}))
        if role in parts:
            problems.append(Mismatch(f"{parts[role]} = {key}", TWICE))
        parts[role] = key
    return modules, left, problems


# The names that LoRA files give to a checkpoint's modules.

KOHYA, PEFT, SGM, DIFFUSERS = "kohya", "PEFT", "SGM blocks", "diffusers blocks"

OLD_ATTENTION = {
    "to_q": ("to_q", "q_proj"),
    "to_k": ("to_k", "k_proj"),
    "to_v": ("to_v", "v_proj"),
    "to_out": ("to_out.0", "out_proj"),
}
"""diffusers' attention processors had names of their own: -> those of the UNet's and of the text encoders' modules."""

PEFT_PREFIX = "base_model.model."
"""What stands before every key in a file that PEFT itself wrote."""


def module_names(tensors: Iterable[str], blocks: BlockMap) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every spelling of every module that has a weight or a bias -> layout and canonical modules.

    The modules are several where the name does not tell which text encoder is meant.

    Args:
        tensors: canonical names of a whole checkpoint's tensors.
        blocks: the shape of its UNet.
    """
    modules = sorted({name.rpartition(".")[0] for name in tensors if name.endswith((".weight", ".bias"))})
    two_encoders = any(module.startswith("text_encoder_2.") for module in modules)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for module in modules:
        for layout, name in _spellings(module, two_encoders, blocks):
            found[name] = (layout, (*found[name][1], module) if name in found else (module,))
    return found


def _spellings(module: str, two_encoders: bool, blocks: BlockMap) -> Iterator[tuple[str, str]]:
    """Layout and name of every way to write a module; without its component's name where files leave that away."""
    component, _, path = module.partition(".")
    flat = path.replace(".", "_")
    yield PEFT, module
    yield PEFT, path
    if component == "unet":
        yield f"{KOHYA}, {DIFFUSERS}", f"lora_unet_{flat}"
        yield f"lycoris, {DIFFUSERS}", f"lycoris_{flat}"
        ldm_name = (ldm_unet_name(f"{module}.weight", blocks) or "").removesuffix(".weight")
        if ldm_name:
            inner = ldm_name.removeprefix(LDM_UNET)
            yield f"{KOHYA}, {SGM}", f"lora_unet_{inner.replace('.', '_')}"
            yield f"ComfyUI, {SGM}", ldm_name
            yield f"ComfyUI, {SGM}", f"diffusion_model.{inner}"
    elif component in ("text_encoder", "text_encoder_2"):
        # kohya's scripts number the text encoders of SDXL, and SD 1.5 has one without a number.
        number = {"text_encoder": "1", "text_encoder_2": "2"}[component] if two_encoders else ""
        yield KOHYA, f"lora_te{number}_{flat}"
        yield "lycoris", f"lycoris_{flat}"
        if path.startswith("text_model."):  # transformers 5 left it away in CLIPTextModel
            short = path.removeprefix("text_model.")
            yield PEFT, f"{component}.{short}"
            yield PEFT, short


def _look_up(name: str, names: Mapping[str, T]) -> T | None:
    """What a module's name in the file's spelling stands for; None where the checkpoint has no such module."""
    name = name.removeprefix(PEFT_PREFIX)
    plain = name.replace(".processor.", ".")
    stem, _, last = plain.rpartition(".")
    spellings = (name, plain, *(f"{stem}.{now}" for now in OLD_ATTENTION.get(last, ())))
    return next((names[spelling] for spelling in spellings if spelling in names), None)


def _layout(found: set[str]) -> str:
    """How the keys are named; kohya's text encoders, which have one naming only, are not told beside its UNet's."""
    for text, unet in ((KOHYA, f"{KOHYA}, "), ("lycoris", "lycoris, ")):
        if any(layout.startswith(unet) for layout in found):
            found = found - {text}
    return " + ".join(sorted(found))


# A module's parts: checked against the checkpoint's shapes.


def _change(
    path: Path,
    header: Header,
    leaf: str,
    kind: ChangeKind,
    parts: dict[str, str],
    candidates: Iterable[str],
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, AdapterConfig],
) -> Change:
    """One change: ``parts`` of a ``kind``, for the ``leaf`` (weight or bias) of the candidate that has its shape."""
    shapes = {role: header.tensors[key].shape for role, key in parts.items()}
    shape, rank = delta_shape(kind, {role: shapes[role] for role in shapes if role not in (*NORMS, "alpha")})
    module = _module(candidates, leaf, shape, tensors)
    tensor = f"{module}.{leaf}"
    if kind in DIFFERENCES:
        return Change(tensor, kind, False, None, None, 1.0, parts)
    norms = NORMS & shapes.keys()
    for role in norms:
        whole = tensors[tensor].shape
        if norm_axis(role, shapes[role], whole) is None:
            raise Mismatch(f"{tensor} (norms {list(shapes[role])} for a weight {list(whole)})", MISFIT)
    alpha = _read_alpha(path, parts["alpha"], header.tensors[parts["alpha"]]) if "alpha" in parts else None
    config = configs.get(_component(module), configs.get(""))
    alpha, scale = _scale(module, rank, alpha, config, dora=bool(norms))
    return Change(tensor, kind, bool(norms), rank, alpha, scale, parts)


def _module(candidates: Iterable[str], leaf: str, found: Shape, tensors: Mapping[str, Tensor]) -> str:
    """The module that is meant: the one of the shape of the change, where the name alone does not tell."""
    shapes = {module: tensors[f"{module}.{leaf}"].shape for module in candidates if f"{module}.{leaf}" in tensors}
    if not shapes:
        raise Mismatch(f"{next(iter(candidates))} has no {leaf} in the checkpoint", MISFIT)
    fitting = [module for module, shape in shapes.items() if fits(found, shape)]
    if len(fitting) > 1:
        raise Mismatch(" or ".join(fitting), UNCLEAR)
    if not fitting:
        module, shape = next(iter(shapes.items()))
        raise Mismatch(f"{module} (the checkpoint has {list(shape)}, the LoRA {list(found)})", MISFIT)
    return fitting[0]


# Alpha, and what the matrices are multiplied with: alpha/rank.

DIFFUSERS_KEY = "lora_adapter_metadata"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MATRIX = re.compile(r"\.(lora|hada|lokr)_")
"""In the keys of what a scale is for."""
ALPHA_DTYPES = ("bfloat16", "float16", "float32", "float64", "int32", "int64")


class AdapterConfig(msgspec.Struct, frozen=True):
    """How PEFT says that a component's LoRA was trained; fields that do not change its scale are passed over."""

    r: int | None = None
    lora_alpha: float | None = None
    alpha: float | None = None
    """LoHa's and LoKr's name of ``lora_alpha``."""
    alpha_pattern: dict[str, float] = msgspec.field(default_factory=dict)
    rank_pattern: dict[str, int] = msgspec.field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False


def _scale(
    module: str, rank: int | None, alpha: float | None, config: AdapterConfig | None, *, dora: bool
) -> tuple[float | None, float]:
    """Alpha and scale: alpha/rank of the module's own tensor, else of PEFT's configuration, else None and 1.

    Args:
        module: its canonical name.
        rank: of its matrices. Two whole matrices have none: lycoris writes an alpha for them that means 1, and PEFT
            divides by the configured rank all the same.
        alpha: of the module's own tensor.
        config: of the module's component. Its scale is alpha/sqrt(rank) for rsLoRA.
        dora: whether the module sets norms.

    Raises:
        Mismatch: the configuration tells another rank than the matrices have, or a DoRA where there is none; alpha is
            0 or not finite.
    """
    path = module.partition(".")[2]
    if config is not None and config.use_dora and not dora:
        raise Mismatch("is a DoRA by the metadata, and lacks lora_magnitude_vector")
    scale = 1.0 if rank is None or alpha is None else alpha / rank
    if alpha is None and config is not None:
        alpha = config.alpha if config.lora_alpha is None else config.lora_alpha
        alpha = _of_pattern(config.alpha_pattern, path, alpha)
        told = _of_pattern(config.rank_pattern, path, config.r)
        if rank is not None and told is not None and rank != told:
            raise Mismatch(f"is of rank {told} by the metadata, and of rank {rank} by its matrices")
        width = told if rank is None else rank
        if width is not None and width > 0:
            scale = (width if alpha is None else alpha) / (math.sqrt(width) if config.use_rslora else width)
    if alpha is not None and not math.isfinite(alpha):
        raise Mismatch(f"{module} ({alpha})", NOT_FINITE)
    if scale == 0:
        raise Mismatch(module, NOTHING)
    return alpha, scale


def _of_pattern(patterns: Mapping[str, T], path: str, otherwise: T) -> T:
    """The value of the first pattern that a module's path ends in, as PEFT matches them."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), otherwise)


def _read_alpha(path: Path, name: str, stored: Stored) -> float:
    """The value of a tensor of one number, read without torch."""
    shape, dtype = stored.shape, stored.dtype
    if math.prod(shape) != 1 or dtype not in ALPHA_DTYPES:
        raise WeightsError(f"{path}: {name} should be one number, and is {dtype} of shape {list(shape)}.")
    read = "uint16" if dtype == "bfloat16" else dtype
    number = np.fromfile(path, np.dtype(read).newbyteorder("<"), count=1, offset=stored.start)
    if dtype == "bfloat16":  # the upper half of a float32
        number = (number.astype(np.uint32) << 16).view(np.float32)
    return float(number[0])


def _read_configs(path: Path, header: Header) -> dict[str, AdapterConfig]:
    """PEFT's configuration by component, ``""`` for every component; empty where there is none.

    Raises:
        WeightsError: it is there and cannot be read, or is not there though the file cannot do without.
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
            return {component: _config(fields) for component, fields in packed.items()}
        if path.name == PEFT_FILE and beside.is_file():
            return {"": _config(documents.loads(documents.read_bytes(beside).decode()))}
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


def _config(table: object) -> AdapterConfig:
    found = documents.convert(table, AdapterConfig)
    for pattern in (*found.alpha_pattern, *found.rank_pattern):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} is not a regular expression") from error
    return found


# Errors for a file that does not fit.

FAMILY_HINT = "check that the LoRA was trained for this family of checkpoints"
ALPHA_HINT = "write the alpha that it was trained with into the file: it multiplies the change with alpha / rank"

_COMPONENTS = {
    "text_encoder_2": re.compile(r"text_encoder_2|lora_te2_|clip_g|conditioner\.embedders\.1\."),
    "text_encoder": re.compile(
        r"text_encoder|lora_te|text_model|lycoris_text_model|clip_l|conditioner\.|cond_stage_model\."
    ),
    "vae": re.compile(r"vae\.|first_stage_model|lora_vae"),
    "unet": re.compile(r".*(unet|(down|mid|up|input|middle|output)_blocks?)"),
}
"""How keys of a component begin; the first that matches counts."""


def _left_over(path: Path, left: list[str], modules: Mapping[str, ModuleKeys]) -> WeightsError:
    """The error for keys that fit nothing: how many of each component, the first, and what they look like."""
    used = Counter(_component(candidates[0]) for _, candidates, parts in modules.values() for _ in parts)
    lost: Counter[str] = Counter()
    for key in left:
        plain = key.removeprefix(PEFT_PREFIX)
        lost[next((component for component, begin in _COMPONENTS.items() if begin.match(plain)), "unknown")] += 1
    counts = ", ".join(f"{part} {used[part]} fit, {lost[part]} left over" for part in sorted(used | lost))
    return WeightsError(
        f"{path}: {len(left)} of {used.total() + len(left)} keys of the LoRA fit nothing in the checkpoint ({counts}): "
        f"{listed(left, 3)}. They look like {looks_like(left)}.",
        f"{FAMILY_HINT}; a LoRA is applied whole or not at all",
    )


def _worst(path: Path, problems: list[Mismatch], modules: int) -> WeightsError:
    """The error for modules that cannot be changed: the worst thing that is wrong, how often, and where first."""
    worst = min((one.problem for one in problems), key=PROBLEMS.index)
    words = [one.words for one in problems if one.problem == worst]
    hint = ALPHA_HINT if worst in (NOTHING, NOT_FINITE) else FAMILY_HINT
    return WeightsError(f"{path}: {len(words)} of {modules} {worst}: {listed(words, 3)}.", hint)
