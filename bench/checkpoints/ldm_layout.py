"""The single-file (LDM) layout in which people share checkpoints, as a map of names in both directions.

Such a file holds the UNet as ``model.diffusion_model.*``, the VAE as ``first_stage_model.*``, and the text encoders
under ``cond_stage_model`` (SD 1.5) or ``conditioner.embedders`` (SDXL), in the names of the code that they were trained
with. Some tensors are stored in another form than diffusers and transformers hold them: ``Join``.

No torch before ``join``. Source of the names: CompVis latent-diffusion, Stability generative-models, OpenCLIP.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from bench.checkpoints.blocks import BlockMap, count_blocks, ldm_unet_name
from bench.checkpoints.checkpoint import Shape, Tensor
from bench.errors import WeightsError

if TYPE_CHECKING:
    import torch

Join = Literal["same", "transpose", "rows", "conv", "positions"]
"""How a stored tensor is made of its parts: as it is; a matrix transposed; one below the other (attention's q, k and
v); a matrix as a 1x1 convolution; of no part: the numbers 0, 1, 2, ... of the text positions."""

VAE = "first_stage_model."
TEXT = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
TEXT_2 = "conditioner.embedders.1.model."
POSITION_WEIGHTS = "text_encoder.text_model.embeddings.position_embedding.weight"


class LdmTensor(NamedTuple):
    """One tensor of a file in this layout."""

    key: str
    shape: Shape
    dtype: str
    """As torch names it."""
    parts: tuple[str, ...] = ()
    """Names in a ``Checkpoint``, in the order in which they are joined; several only for ``rows``."""
    join: Join = "same"


def ldm_tensors(tensors: Mapping[str, Tensor]) -> tuple[LdmTensor, ...]:
    """The tensors of the single file that holds these, in the order in which they are written: by key.

    Args:
        tensors: of a whole pipeline or of some components, under the names of ``Checkpoint``. It is taken as SDXL
            where it has a second text encoder or the UNet's ``add_embedding``, else as SD 1.5.

    Raises:
        WeightsError: a tensor that has no place in the layout, or parts that are stored in different precisions.
    """
    return _ldm_tensors(tuple(tensors.items()))


@lru_cache(maxsize=8)
def _ldm_tensors(items: tuple[tuple[str, Tensor], ...]) -> tuple[LdmTensor, ...]:
    tensors = dict(items)
    sdxl = any(name.startswith(("text_encoder_2.", "unet.add_embedding.")) for name in tensors)
    text = TEXT["sdxl" if sdxl else "sd15"]
    up_blocks = 1 + max((int(match[1]) for name in tensors if (match := _VAE_UP.match(name))), default=-1)
    blocks = count_blocks(tensors) if any(name.startswith("unet.") for name in tensors) else None
    parts: defaultdict[str, list[tuple[int, str, Join]]] = defaultdict(list)
    for name in tensors:
        key, how, place = _location(name, text, up_blocks, blocks)
        parts[key].append((place, name, how))
    entries = [_entry(key, sorted(found), tensors) for key, found in parts.items()]
    if POSITION_WEIGHTS in tensors:
        length = tensors[POSITION_WEIGHTS].shape[0]
        entries.append(LdmTensor(text + "text_model.embeddings.position_ids", (1, length), "int64", (), "positions"))
    return tuple(sorted(entries))


def join(entry: LdmTensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The stored tensor made of its parts, bit for bit, in their dtype; contiguous."""
    import torch

    if entry.join == "positions":
        return torch.arange(entry.shape[1]).unsqueeze(0)
    if entry.join == "rows":
        return torch.cat(list(parts))
    (part,) = parts
    if entry.join == "transpose":
        return part.T.contiguous()
    return part.contiguous().view(entry.shape)


def split(stored: torch.Tensor, how: Join) -> torch.Tensor:
    """The way back: a part of a checkpoint of what is stored, of ``rows`` its own rows."""
    if how == "transpose":
        return stored.T.contiguous()
    return stored[:, :, 0, 0] if how == "conv" else stored


def split_shape(stored: Shape, how: Join) -> Shape:
    """The shape of what ``split`` gives."""
    if how == "transpose":
        return stored[::-1]
    return stored[:2] if how == "conv" else stored


def _entry(key: str, parts: list[tuple[int, str, Join]], tensors: Mapping[str, Tensor]) -> LdmTensor:
    names = tuple(name for _, name, _ in parts)
    how = parts[0][2]
    shape, dtype = tensors[names[0]]
    if any(tensors[name] != (shape, dtype) for name in names):
        raise WeightsError(f"{', '.join(names)}: differ in shape or precision, and are one tensor in a single file.")
    if how == "rows":
        shape = (len(names) * shape[0], *shape[1:])
    elif how == "transpose":
        shape = shape[::-1]
    elif how == "conv":
        shape = (*shape, 1, 1)
    return LdmTensor(key, shape, dtype, names, how)


def _location(name: str, text: str, up_blocks: int, blocks: BlockMap | None) -> tuple[str, Join, int]:
    """The key that a tensor of a ``Checkpoint`` is stored under, how, and which of several parts it is."""
    component, _, rest = name.partition(".")
    if component == "unet" and blocks is not None:
        key = ldm_unet_name(name, blocks)
        if key is not None:
            return key, "same", 0
    elif component == "vae":
        return _vae_location(rest, up_blocks)
    elif component == "text_encoder":
        return text + rest, "same", 0
    elif component == "text_encoder_2":
        location = _text_2_location(rest)
        if location is not None:
            return location
    raise WeightsError(f"{name}: has no place in a single file.")


# --- VAE -----------------------------------------------------------------------------------

_VAE_UP = re.compile(r"vae\.decoder\.up_blocks\.(\d+)\.")

_VAE_MODULES = (
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"(\.attn_1\.)group_norm\.", r"\1norm."),
    (r"(\.attn_1\.)to_([qkv])\.", r"\1\2."),
    (r"(\.attn_1\.)to_out\.0\.", r"\1proj_out."),
)


def _vae_location(name: str, up_blocks: int) -> tuple[str, Join, int]:
    # The stored decoder counts its blocks from the image, diffusers from the latents.
    key = re.sub(r"\.up_blocks\.(\d+)\.", lambda match: f".up.{up_blocks - 1 - int(match[1])}.", name)
    for pattern, new in _VAE_MODULES:
        key = re.sub(pattern, new, key)
    conv = re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", key)
    return VAE + key, "conv" if conv else "same", 0


# --- OpenCLIP's text encoder ----------------------------------------------------------------

_TEXT_2 = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_TEXT_2_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_TEXT_2_MODULES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_PACKED = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}


def packed_with(name: str) -> tuple[str, ...]:
    """The tensors of a ``Checkpoint`` that a single file holds as one, in their order; most are alone in theirs."""
    component, _, rest = name.partition(".")
    match = _TEXT_2_LAYER.fullmatch(rest) if component == "text_encoder_2" else None
    if match is None or match[2] not in _PACKED:
        return (name,)
    return tuple(f"{component}.text_model.encoder.layers.{match[1]}.{module}.{match[3]}" for module in _PACKED)


def _text_2_location(name: str) -> tuple[str, Join, int] | None:
    if name == "text_projection.weight":
        return TEXT_2 + "text_projection", "transpose", 0
    if name in _TEXT_2:
        return TEXT_2 + _TEXT_2[name], "same", 0
    match = _TEXT_2_LAYER.fullmatch(name)
    if match is not None:
        number, module, leaf = match.groups()
        block = f"{TEXT_2}transformer.resblocks.{number}"
        if module in _PACKED:
            return f"{block}.attn.in_proj_{leaf}", "rows", _PACKED[module]
        if module in _TEXT_2_MODULES:
            return f"{block}.{_TEXT_2_MODULES[module]}.{leaf}", "same", 0
    return None
