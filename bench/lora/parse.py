"""A LoRA file of any layout: its keys, the modules that they name, and the changes that they make."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.checkpoints.blocks import LDM_UNET, BlockMap, count_blocks, ldm_unet_name
from bench.checkpoints.checkpoint import Shape, Tensor
from bench.checkpoints.detect import looks_like, lora_of
from bench.checkpoints.safetensors_files import Header, Stored, read_header
from bench.errors import WeightsError
from bench.formatting import listed, plural
from bench.lora.algorithms import NORMS, Adapter, Change, Mismatch, changes_of, delta_shape, fits, norm_axis
from bench.lora.peft import PEFT_PREFIX, AdapterConfig, read_configs, scale_of, start_of
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


class OtherFamilyError(WeightsError):
    """A LoRA whose keys or shapes are not those of the checkpoint; it may fit another."""


def read_adapter(path: Path, tensors: Mapping[str, Tensor], leave_out: Collection[str] = ()) -> Adapter:
    """What a LoRA file changes in a checkpoint; each of its keys belongs to one tensor.

    Reads the header and the scalars; ``bench.lora.apply`` reads the weights.

    Args:
        path: a file as kohya's scripts, lycoris, PEFT, diffusers or ComfyUI write it.
        tensors: the whole checkpoint's, by canonical name.
        leave_out: as ``Lora.leave_out``.

    Raises:
        WeightsError: the file is damaged or empty, a key fits nothing in the checkpoint or the same place as another,
            shapes or ranks are not right, a matrix is stored as whole numbers, or an alpha is 0 or not finite.
    """
    header, left_out = _without(path, read_header(path), leave_out)
    modules, left, problems = _modules_of(header.tensors, module_names(tensors, count_blocks(tensors)))
    if left:
        raise _left_over(path, header, left, modules)
    _refuse_whole_numbers(path, header)
    configs = read_configs(path, header)
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
        raise _worst(path, header, problems, len(modules))
    applied = Counter(_component(name) for name, change in changes.items() for _ in change.parts)
    return Adapter(
        path=path,
        layout=_layout({layout for layout, _, _ in modules.values()}),
        keys=len(header.tensors),
        applied=dict(sorted(applied.items())),
        changes=tuple(changes[name] for name in sorted(changes)),
        notes=(*left_out, *_starts(changes.values())),
    )


def _without(path: Path, header: Header, leave_out: Collection[str]) -> tuple[Header, list[str]]:
    """The header without the parts that the user leaves out, and a sentence about each of these.

    Raises:
        WeightsError: nothing is left, or a part is not there.
    """
    kept, said = dict(header.tensors), []
    for part in leave_out:
        embeddings = [key for key in kept if key.startswith(f"{part}.")]
        if not embeddings:
            raise WeightsError(f"{path}: leave_out names {part}, and no key of the file begins so.", "take it out")
        kept = {key: stored for key, stored in kept.items() if key not in embeddings}
        said.append(f"{plural(len(embeddings), 'tensor')} of embeddings ({part}) left out, as leave_out says.")
    if not kept:
        raise WeightsError(f"{path}: holds no tensors{' but those of leave_out' if said else ''}.")
    return header._replace(tensors=kept), said


def _refuse_whole_numbers(path: Path, header: Header) -> None:
    """Refuses matrices of integers: they are codes of rounded numbers, whose scale is not in the file. An alpha may be
    one."""
    found = {key: stored.dtype for key, stored in header.tensors.items() if not key.endswith("alpha")}
    whole = [f"{key} ({dtype})" for key, dtype in found.items() if "float" not in dtype]
    if whole:
        raise WeightsError(
            f"{path}: {len(whole)} of {len(header.tensors)} tensors are stored as whole numbers, without the scale "
            f"that would make them weights, such as {min(whole)}.",
            "save the LoRA in float16, bfloat16 or float32",
        )


def _starts(changes: Iterable[Change]) -> list[str]:
    """A sentence about what the training began with and is taken away again."""
    starts = sorted({change.start for change in changes if change.start is not None})
    return [
        f"Begun with init_lora_weights = {start!r}: the start is computed from this checkpoint and taken away, which "
        "is right on the checkpoint that it was trained on."
        for start in starts
    ]


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


WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|module)\.|(?<=_)_orig_mod_")
"""What torch puts into the names of modules that are compiled or trained on several devices; kohya's writes ``_``."""


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
    yield PEFT, f"{component}.{module}"  # diffusers 0.23 wrote the component twice
    if component == "unet":
        yield f"{KOHYA}, {DIFFUSERS}", f"lora_unet_{flat}"
        yield f"lycoris, {DIFFUSERS}", f"lycoris_{flat}"
        ldm_name = (ldm_unet_name(f"{module}.weight", blocks) or "").removesuffix(".weight")
        if ldm_name:
            inner = ldm_name.removeprefix(LDM_UNET)
            yield f"{KOHYA}, {SGM}", f"lora_unet_{inner.replace('.', '_')}"
            yield f"ComfyUI, {SGM}", ldm_name
            yield f"ComfyUI, {SGM}", f"diffusion_model.{inner}"
            yield f"OneTrainer, {SGM}", f"unet.{inner}"
    elif component in ("text_encoder", "text_encoder_2"):
        # kohya's scripts number the text encoders of SDXL, and SD 1.5 has one without a number.
        number = {"text_encoder": "1", "text_encoder_2": "2"}[component] if two_encoders else ""
        clip = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}[component]
        yield KOHYA, f"lora_te{number}_{flat}"
        yield "lycoris", f"lycoris_{flat}"
        yield "ComfyUI", f"text_encoders.{clip}.transformer.{path}"
        yield "OneTrainer", f"{clip}.{path}"
        if path.startswith("text_model."):  # transformers 5 left it away in CLIPTextModel
            short = path.removeprefix("text_model.")
            yield PEFT, f"{component}.{short}"
            yield PEFT, short


def _look_up(name: str, names: Mapping[str, T]) -> T | None:
    """What a module's name in the file's spelling stands for; None where the checkpoint has no such module."""
    name = WRAPPERS.sub("", name.removeprefix(PEFT_PREFIX))
    plain = name.replace(".processor.", ".")
    stem, _, last = plain.rpartition(".")
    spellings = (name, plain, *(f"{stem}.{now}" for now in OLD_ATTENTION.get(last, ())))
    return next((names[spelling] for spelling in spellings if spelling in names), None)


def _layout(found: set[str]) -> str:
    """How the keys are named; a program's text encoders, which have one naming only, are not told beside its UNet's."""
    programs = {layout.partition(", ")[0] for layout in found if ", " in layout}
    return " + ".join(sorted(found - programs))


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
    alpha, scale = scale_of(module, rank, alpha, config, dora=bool(norms))
    if alpha is not None and not math.isfinite(alpha):
        raise Mismatch(f"{module} ({alpha})", NOT_FINITE)
    if scale == 0:
        raise Mismatch(module, NOTHING)
    start = start_of(module, kind if len(tensors[tensor].shape) == 2 else "convolution", config)
    return Change(tensor, kind, bool(norms), rank, alpha, scale, parts, start)


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


ALPHA_DTYPES = ("bfloat16", "float16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8")


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


# Errors for a file that does not fit.

FAMILY_HINT = "check that the LoRA was trained for this family of checkpoints"
ALPHA_HINT = "write the alpha that it was trained with into the file: it multiplies the change with alpha / rank"

_COMPONENTS = {
    "text_encoder_2": re.compile(r"text_encoder_2|lora_te2_|(text_encoders\.)?clip_g|conditioner\.embedders\.1\."),
    "text_encoder": re.compile(
        r"text_encoder|lora_te|text_model|lycoris_text_model|clip_l|conditioner\.|cond_stage_model\."
    ),
    "vae": re.compile(r"vae\.|first_stage_model|lora_vae"),
    "unet": re.compile(r".*(unet|(down|mid|up|input|middle|output)_blocks?)"),
}
"""How keys of a component begin; the first that matches counts."""


def _left_over(path: Path, header: Header, left: list[str], modules: Mapping[str, ModuleKeys]) -> WeightsError:
    """The error for keys that fit nothing: how many of each component, the first, and what they look like."""
    if all(key.startswith("bundle_emb.") for key in left):
        return WeightsError(
            f"{path}: holds embeddings beside the LoRA, which are not applied: {listed(left, 3)}.",
            'leave_out = ["bundle_emb"] in the table of the LoRA in a suite or recipe applies the rest',
        )
    used = Counter(_component(candidates[0]) for _, candidates, parts in modules.values() for _ in parts)
    lost: Counter[str] = Counter()
    for key in left:
        plain = key.removeprefix(PEFT_PREFIX)
        lost[next((component for component, begin in _COMPONENTS.items() if begin.match(plain)), "unknown")] += 1
    counts = ", ".join(f"{part} {used[part]} fit, {lost[part]} left over" for part in sorted(used | lost))
    return OtherFamilyError(
        f"{path}: {len(left)} of {used.total() + len(left)} keys of the LoRA fit nothing in the checkpoint ({counts}): "
        f"{listed(left, 3)}. They look like {lora_of(header.tensors) or looks_like(left)}.",
        f"{FAMILY_HINT}; a LoRA is applied whole or not at all",
    )


def _worst(path: Path, header: Header, problems: list[Mismatch], modules: int) -> WeightsError:
    """The error for modules that cannot be changed: the worst thing that is wrong, how often, and where first."""
    worst = min((one.problem for one in problems), key=PROBLEMS.index)
    words = [one.words for one in problems if one.problem == worst]
    hint = ALPHA_HINT if worst in (NOTHING, NOT_FINITE) else FAMILY_HINT
    looks = f" It looks like {likely}." if (likely := lora_of(header.tensors)) else ""
    kind = OtherFamilyError if worst == MISFIT else WeightsError
    return kind(f"{path}: {len(words)} of {modules} {worst}: {listed(words, 3)}.{looks}", hint)
