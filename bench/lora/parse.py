"""A LoRA file of any layout: its keys, the modules they name, and the changes they make."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from bench import documents
from bench.checkpoints.blocks import LDM_UNET, BlockMap, count_blocks, ldm_unet_name
from bench.checkpoints.checkpoint import Shape, Tensor
from bench.checkpoints.detect import looks_like
from bench.checkpoints.safetensors_files import Header, Stored, read_header
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import NORMS, Adapter, Change, DeltaShape, Mismatch, fits, norm_axis, parts_of, product_of
from bench.records.weights import ChangeKind

# Keys of LoRA files, taken apart: which module, and which part of its change.

SIDES = {"A": "down", "down": "down", "B": "up", "up": "up", "mid": "mid"}

_NAME = r"(?:\.(?!weight\b)\w+)?"  # the adapter's name, which PEFT leaves in now and then: ".default"

_PART = re.compile(
    rf"""(?P<module>.+?)
    (?: \.lora_(?P<side>A|B|down|up|mid){_NAME}\.weight
      | [._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight
      | \.(?P<magnitude>lora_magnitude_vector){_NAME}(?:\.weight)?
      | \.(?P<role>alpha|dora_scale|diff_b|diff|w_norm|b_norm
                  |hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)){_NAME}
    )""",
    re.VERBOSE,
)


class ParsedKey(NamedTuple):
    """A key of a LoRA file, taken apart."""

    module: str
    """The module in the file's own spelling: ``lora_unet_mid_block_attentions_0_proj_in``."""
    role: str
    """``up``, ``down``, ``mid``, ``alpha``, ``magnitude`` (PEFT's DoRA), else as lycoris names it: ``hada_w1_a``."""
    old: bool
    """Whether the ending is that of diffusers before PEFT: ``.lora.up.weight``, ``_lora.down.weight``."""


def parse_key(key: str) -> ParsedKey | None:
    """Module and part that a key names; None where its ending is none of a LoRA's that can be applied."""
    match = _PART.fullmatch(key)
    if match is None:
        return None
    side, old, magnitude = match["side"], match["old"], match["magnitude"]
    if magnitude:
        return ParsedKey(match["module"], "magnitude", old=False)
    return ParsedKey(match["module"], SIDES[side or old] if side or old else match["role"], old=old is not None)


# Every name that LoRA files give to a checkpoint's modules.

KOHYA, DOTTED = "kohya", "PEFT"

SGM, DIFFUSERS = "SGM blocks", "diffusers blocks"

OLD_ATTENTION = {
    "to_q": ("to_q", "q_proj"),
    "to_k": ("to_k", "k_proj"),
    "to_v": ("to_v", "v_proj"),
    "to_out": ("to_out.0", "out_proj"),
}

"""diffusers' attention processors had names of their own: -> those of the UNet's and of the text encoders' modules."""


class ModuleName(NamedTuple):
    """What a name may stand for."""

    layout: str
    modules: tuple[str, ...]
    """Canonical modules; several where the name does not tell which text encoder is meant."""


def module_names(tensors: Iterable[str], blocks: BlockMap) -> dict[str, ModuleName]:
    """Every spelling of every module that has a weight or a bias.

    Args:
        tensors: canonical names of a whole checkpoint's tensors.
        blocks: the shape of its UNet.
    """
    modules = sorted({name.rpartition(".")[0] for name in tensors if name.endswith((".weight", ".bias"))})
    two_encoders = any(module.startswith("text_encoder_2.") for module in modules)
    found: dict[str, ModuleName] = {}
    for module in modules:
        for layout, name in _spellings(module, two_encoders, blocks):
            before = found.get(name)
            found[name] = ModuleName(layout, (*before.modules, module) if before else (module,))
    return found


def _spellings(module: str, two_encoders: bool, blocks: BlockMap) -> Iterator[tuple[str, str]]:
    """Layout and name of every way to write a module; without its component's name where files leave that away."""
    component, _, path = module.partition(".")
    flat = path.replace(".", "_")
    yield DOTTED, module
    yield DOTTED, path
    if component == "unet":
        yield f"{KOHYA}, {DIFFUSERS}", f"lora_unet_{flat}"
        yield f"lycoris, {DIFFUSERS}", f"lycoris_{flat}"
        ldm_name = (ldm_unet_name(f"{module}.weight", blocks) or "").removesuffix(".weight")
        if not ldm_name:
            return
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
            yield DOTTED, f"{component}.{short}"
            yield DOTTED, short


def look_up(name: str, names: Mapping[str, ModuleName]) -> ModuleName | None:
    """The place of a module in a file's own spelling; None where the checkpoint has no such module."""
    for spelling in _likely(name.removeprefix("base_model.model.")):
        if spelling in names:
            return names[spelling]
    return None


def _likely(name: str) -> Iterator[str]:
    """The name itself, then what diffusers' attention processors meant by it."""
    yield name
    plain = name.replace(".processor.", ".")
    yield plain
    stem, _, last = plain.rpartition(".")
    for now in OLD_ATTENTION.get(last, ()):
        yield f"{stem}.{now}"


_COMPONENTS = (
    (
        re.compile(r"(base_model\.model\.)?(text_encoder_2|lora_te2_|clip_g|conditioner\.embedders\.1\.)"),
        "text_encoder_2",
    ),
    (
        re.compile(
            r"(base_model\.model\.)?"
            r"(text_encoder|lora_te|text_model|lycoris_text_model|clip_l|conditioner\.|cond_stage_model\.)"
        ),
        "text_encoder",
    ),
    (re.compile(r"(base_model\.model\.)?(vae\.|first_stage_model|lora_vae)"), "vae"),
    (re.compile(r".*(unet|(down|mid|up|input|middle|output)_blocks?)"), "unet"),
)


def component_guess(key: str) -> str:
    """The component that a key without a place seems to mean, ``unknown`` where nothing tells."""
    return next((component for pattern, component in _COMPONENTS if pattern.match(key)), "unknown")


# What a LoRA's matrices are multiplied with: alpha/rank, and where alpha stands.

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


def read_trained(path: Path, keys: Iterable[str], metadata: Mapping[str, str]) -> dict[str, AdapterConfig]:
    """PEFT's configuration by component, ``""`` for every component; empty where there is none.

    Raises:
        WeightsError: it is there and cannot be read, or is not there though the file cannot do without.
    """
    beside = path.parent / PEFT_CONFIG
    try:
        if DIFFUSERS_KEY in metadata:
            return _by_component(documents.loads(metadata[DIFFUSERS_KEY]))
        if path.name == PEFT_FILE and beside.is_file():
            return {"": _checked(documents.loads(beside.read_text(encoding="utf-8")))}
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


def _by_component(table: object) -> dict[str, AdapterConfig]:
    """diffusers packs the configurations of all components into one table: ``unet.lora_alpha``."""
    if not isinstance(table, dict):
        raise ValueError(f"{DIFFUSERS_KEY} is no table")
    packed: dict[str, dict[str, object]] = {}
    for key, value in table.items():
        component, _, field = key.partition(".")
        packed.setdefault(component, {})[field] = value
    return {component: _checked(fields) for component, fields in packed.items()}


def _checked(table: object) -> AdapterConfig:
    found = documents.convert(table, AdapterConfig)
    for pattern in (*found.alpha_pattern, *found.rank_pattern):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} is no regular expression") from error
    return found


def trained_alpha(trained: AdapterConfig, path: str) -> float | None:
    """The alpha of a module: its pattern's, else the component's."""
    alpha = trained.alpha if trained.lora_alpha is None else trained.lora_alpha
    return _of_pattern(trained.alpha_pattern, path, alpha)


def trained_scale(trained: AdapterConfig, path: str, rank: int | None) -> float:
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


# One module's keys -> its changes, checked against the checkpoint's shapes.

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


class ModuleKeys(NamedTuple):
    """The keys of one module."""

    name: str
    """In the file's own spelling."""
    place: ModuleName
    old: bool
    """Whether the keys end as diffusers' did before PEFT."""
    parts: dict[str, str]
    """Role -> key."""


class Problem(Exception):
    """What is wrong with one module.

    Args:
        kind: one of ``PROBLEMS``.
        words: which module, and how.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind, self.words = kind, words


class AdapterFile(NamedTuple):
    """What is known of the file and of the checkpoint."""

    path: Path
    header: Header
    trained: Mapping[str, AdapterConfig]
    """PEFT's configuration by component."""
    tensors: Mapping[str, Tensor]
    """The checkpoint's."""


def changes_of(group: ModuleKeys, source: AdapterFile) -> Iterator[Change]:
    """The changes that a module's keys make, to its weight and to its bias.

    Raises:
        Problem: they make none, or none for a module of this shape.
    """
    try:
        for leaf, kind, parts in parts_of(group.parts):
            yield _change(group.place, leaf, kind, parts, source)
    except Mismatch as error:
        raise Problem(BROKEN, f"{group.name} {error}") from error


def _change(place: ModuleName, leaf: str, kind: ChangeKind, parts: dict[str, str], source: AdapterFile) -> Change:
    shapes = {role: source.header.tensors[key].shape for role, key in parts.items()}
    product = product_of(kind, {role: shape for role, shape in shapes.items() if role not in (*NORMS, "alpha")})
    module = _module(place, leaf, product.shape, source.tensors)
    tensor = f"{module}.{leaf}"
    if kind in DIFFERENCES:
        return Change(tensor, kind, False, None, None, 1.0, parts)
    dora = _is_dora(tensor, shapes, source.tensors[tensor].shape)
    alpha, scale = _scale(module, product, parts, dora, source)
    return Change(tensor, kind, dora, product.rank, alpha, scale, parts)


def _module(place: ModuleName, leaf: str, found: Shape, tensors: Mapping[str, Tensor]) -> str:
    """The module that is meant: the one of the shape of the change, where the name alone does not tell."""
    wanted = {module: tensors[f"{module}.{leaf}"].shape for module in place.modules if f"{module}.{leaf}" in tensors}
    if not wanted:
        raise Problem(MISFIT, f"{place.modules[0]} has no {leaf} in the checkpoint")
    fitting = [module for module, shape in wanted.items() if fits(found, shape)]
    if len(fitting) > 1:
        raise Problem(UNCLEAR, " or ".join(fitting))
    if not fitting:
        module, shape = next(iter(wanted.items()))
        raise Problem(MISFIT, f"{module} (the checkpoint has {list(shape)}, the LoRA {list(found)})")
    return fitting[0]


def _is_dora(tensor: str, shapes: Mapping[str, Shape], shape: Shape) -> bool:
    """Whether there are norms for the weight, of a shape that tells their axis."""
    norms = NORMS & shapes.keys()
    for role in norms:
        if norm_axis(role, shapes[role], shape) is None:
            raise Problem(MISFIT, f"{tensor} (norms {list(shapes[role])} for a weight {list(shape)})")
    return bool(norms)


def _scale(
    module: str, product: DeltaShape, parts: Mapping[str, str], dora: bool, source: AdapterFile
) -> tuple[float | None, float]:
    """Alpha, where there is one, and what the product is multiplied with; the module's own tensor goes first."""
    component, _, path = module.partition(".")
    told = source.trained.get(component, source.trained.get(""))
    if told is not None and told.use_dora and not dora:
        raise Mismatch("is a DoRA by the metadata, and lacks lora_magnitude_vector")
    if "alpha" in parts:
        alpha: float | None = read_alpha(source.path, parts["alpha"], source.header.tensors[parts["alpha"]])
        # Two whole matrices have no rank: lycoris writes an alpha for them that means 1.
        scale = 1.0 if product.rank is None or alpha is None else alpha / product.rank
    elif told is not None:
        alpha, scale = trained_alpha(told, path), trained_scale(told, path, product.rank)
    else:
        alpha, scale = None, 1.0
    if alpha is not None and not math.isfinite(alpha):
        raise Problem(NOT_FINITE, f"{module} ({alpha})")
    if scale == 0:
        raise Problem(NOTHING, module)
    return alpha, scale


# A LoRA file of any layout -> the changes that it makes, or an error that says what does not fit.

FAMILY_HINT = "check that the LoRA was trained for this family of checkpoints"

ALPHA_HINT = "write the alpha that it was trained with into the file: it multiplies the change with alpha / rank"


def read_adapter(path: Path, tensors: Mapping[str, Tensor]) -> Adapter:
    """What a LoRA file changes in a checkpoint, every key of it resolved to one tensor.

    Reads the header and the scalars; ``check_values`` reads the weights.

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
    groups, left, problems = _group(header.tensors, module_names(tensors, count_blocks(tensors)))
    if left:
        raise _left_over(path, left, groups)
    source = AdapterFile(path, header, read_trained(path, header.tensors, header.metadata), tensors)
    changes: dict[str, Change] = {}
    for group in groups:
        try:
            for change in changes_of(group, source):
                if change.tensor in changes:
                    raise Problem(TWICE, change.tensor)
                changes[change.tensor] = change
        except Problem as problem:
            problems.append(problem)
    if problems:
        raise _worst(path, problems, len(groups))
    applied = Counter(name.partition(".")[0] for name, change in changes.items() for _ in change.parts)
    ordered = tuple(changes[name] for name in sorted(changes))
    return Adapter(path, _layout(groups), len(header.tensors), dict(sorted(applied.items())), ordered)


def _group(keys: Iterable[str], names: Mapping[str, ModuleName]) -> tuple[list[ModuleKeys], list[str], list[Problem]]:
    """The keys by module, those that fit nothing, and those that name a part of a module twice."""
    groups: dict[str, ModuleKeys] = {}
    left, problems = [], []
    for key in sorted(keys):
        part = parse_key(key)
        place = look_up(part.module, names) if part else None
        if part is None or place is None:
            left.append(key)
            continue
        group = groups.setdefault(part.module, ModuleKeys(part.module, place, part.old, {}))
        if part.role in group.parts:
            problems.append(Problem(TWICE, f"{group.parts[part.role]} = {key}"))
        group.parts[part.role] = key
    return list(groups.values()), left, problems


def _left_over(path: Path, left: list[str], groups: Iterable[ModuleKeys]) -> WeightsError:
    """The error for keys that fit nothing: how many of each component, the first, and what they look like."""
    used = Counter(group.place.modules[0].partition(".")[0] for group in groups for _ in group.parts)
    lost = Counter(component_guess(key) for key in left)
    counts = ", ".join(f"{part} {used[part]} fit, {lost[part]} left over" for part in sorted(used | lost))
    return WeightsError(
        f"{path}: {len(left)} of {used.total() + len(left)} keys of the LoRA fit nothing in the checkpoint ({counts}): "
        f"{listed(left, 3)}. They look like {looks_like(left)}.",
        f"{FAMILY_HINT}; a LoRA is applied whole or not at all",
    )


def _worst(path: Path, problems: list[Problem], modules: int) -> WeightsError:
    """The error for modules that cannot be changed: the worst thing that is wrong, how often, and where first."""
    kind = min((problem.kind for problem in problems), key=PROBLEMS.index)
    words = [problem.words for problem in problems if problem.kind == kind]
    hint = ALPHA_HINT if kind in (NOTHING, NOT_FINITE) else FAMILY_HINT
    return WeightsError(f"{path}: {len(words)} of {modules} {kind}: {listed(words, 3)}.", hint)


def _layout(groups: Iterable[ModuleKeys]) -> str:
    """How the keys are named; kohya's text encoders, which have one naming only, are not told beside its UNet's."""
    found = {
        "diffusers (old)" if group.place.layout == DOTTED and group.old else group.place.layout for group in groups
    }
    if any(layout.startswith(f"{KOHYA}, ") for layout in found):
        found.discard(KOHYA)
    if any(layout.startswith("lycoris, ") for layout in found):
        found.discard("lycoris")
    return " + ".join(sorted(found))
