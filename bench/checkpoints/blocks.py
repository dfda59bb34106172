"""The UNet's blocks, and its modules' names in the single-file (LDM) layout.

People count blocks as that layout does (``model.diffusion_model.input_blocks.4...``), diffusers counts levels, resnets
and attentions. Both follow from how many levels the UNet has and how many layers each, which ``count_blocks`` reads
from the tensors' names: SDXL has 3 levels of 2 layers (``IN00`` to ``IN08``, ``M00``, ``OUT00`` to ``OUT08``), SD 1.5
has 4 (``IN00`` to ``IN11``, ...). ``BASE`` is what lies outside the blocks: the embeddings of time and size, and the
output convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from bench.checkpoints.checkpoint import component_of
from bench.errors import SuiteError, WeightsError
from bench.formatting import did_you_mean
from bench.records import Lora

UNET = "unet."
LDM_UNET = "model.diffusion_model."

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Modules of a resnet: diffusers' name -> the LDM name. Those of an attention have the same names in both."""

OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}

_RESNETS = re.compile(r"unet\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.weight")
_UP_ATTENTION = re.compile(r"unet\.up_blocks\.(\d+)\.attentions\.0\.proj_in\.weight")


class BlockMap(NamedTuple):
    """The shape of a UNet, as far as names depend on it."""

    levels: int
    """Resolutions: 3 for SDXL, 4 for SD 1.5."""
    layers: int
    """Resnets of a level on the way down; one more on the way up."""
    attended: frozenset[int]
    """Levels on the way up that have attentions; there the upsampler comes third in its block, else second."""


def count_blocks(names: Iterable[str]) -> BlockMap:
    """The shape of a UNet, from the names of all its tensors; those of other components do not matter.

    Raises:
        WeightsError: these are not the names of a UNet of the Stable Diffusion family.
    """
    names = tuple(names)
    resnets = [(int(m[1]), int(m[2])) for m in map(_RESNETS.fullmatch, names) if m]
    if not resnets:
        raise WeightsError("The tensors hold no UNet of the Stable Diffusion family: there is no unet.down_blocks.*.")
    attended = frozenset(int(m[1]) for m in map(_UP_ATTENTION.fullmatch, names) if m)
    return BlockMap(1 + max(level for level, _ in resnets), 1 + max(layer for _, layer in resnets), attended)


@lru_cache
def module_prefixes(blocks: BlockMap) -> Mapping[str, str]:
    """How module names begin, diffusers' -> LDM's; what follows is the same in both.

    Both sides are without the component's prefix (``unet.``, ``model.diffusion_model.``).
    """
    levels, layers, attended = blocks
    found = dict(OUTSIDE)
    for level in range(levels):
        down, first = f"down_blocks.{level}", 1 + level * (layers + 1)
        for layer in range(layers):
            found |= _resnet(f"{down}.resnets.{layer}", f"input_blocks.{first + layer}.0")
            found[f"{down}.attentions.{layer}"] = f"input_blocks.{first + layer}.1"
        found[f"{down}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
        up, first = f"up_blocks.{level}", level * (layers + 1)
        for layer in range(layers + 1):
            found |= _resnet(f"{up}.resnets.{layer}", f"output_blocks.{first + layer}.0")
            if level in attended:
                found[f"{up}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        found[f"{up}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{2 if level in attended else 1}.conv"
    found |= _resnet("mid_block.resnets.0", "middle_block.0") | _resnet("mid_block.resnets.1", "middle_block.2")
    found["mid_block.attentions.0"] = "middle_block.1"
    return found


def _resnet(ours: str, ldm: str) -> dict[str, str]:
    return {f"{ours}.{name}": f"{ldm}.{other}" for name, other in RESNET.items()}


def ldm_unet_name(name: str, blocks: BlockMap) -> str | None:
    """``unet.conv_in.weight`` -> ``model.diffusion_model.input_blocks.0.0.weight``, for any tensor of the UNet.

    None where the layout has no place for it: distilled UNets have one more embedding.
    """
    if not name.startswith(UNET):
        return None
    parts, prefixes = name.removeprefix(UNET).split("."), module_prefixes(blocks)
    for end in range(len(parts) - 1, 0, -1):
        prefix = prefixes.get(".".join(parts[:end]))
        if prefix is not None:
            return LDM_UNET + ".".join([prefix, *parts[end:]])
    return None


def block_names(blocks: BlockMap) -> tuple[str, ...]:
    """The names of a UNet's blocks in the order of its data flow, ``BASE`` last: 20 for SDXL, 26 for SD 1.5."""
    count = blocks.levels * (blocks.layers + 1)  # inputs: conv_in is one more, the last level has no downsampler
    inputs, outputs = ([f"{way}{block:02d}" for block in range(count)] for way in ("IN", "OUT"))
    return (*inputs, "M00", *outputs, "BASE")


def block_of(name: str, blocks: BlockMap) -> str:
    """The block that a tensor is in; ``TE1``, ``TE2`` or ``VAE`` for those of the other components."""
    other = {"text_encoder": "TE1", "text_encoder_2": "TE2", "vae": "VAE"}.get(component_of(name))
    if other is not None:
        return other
    place = (ldm_unet_name(name, blocks) or "").removeprefix(LDM_UNET).split(".")
    if place[0] == "middle_block":
        return "M00"
    way = {"input_blocks": "IN", "output_blocks": "OUT"}.get(place[0])
    return f"{way}{int(place[1]):02d}" if way else "BASE"


def check_blocks(named: Iterable[str], blocks: BlockMap, where: str) -> None:
    """Refuses names of blocks that a UNet does not have.

    Args:
        named: the blocks that a LoRA's or a recipe's weights name.
        blocks: the UNet's.
        where: what names them, for the message.

    Raises:
        SuiteError: one of them is not in ``block_names``.
    """
    allowed = block_names(blocks)
    for name in named:
        if name not in allowed:
            raise SuiteError(
                f"{where}: blocks: {name!r} is not a block of this UNet{did_you_mean(name, allowed)}. "
                f"It has IN00 to {allowed[allowed.index('M00') - 1]}, M00, OUT00 to {allowed[-2]} and BASE."
            )


def weight_of(lora: Lora, name: str, blocks: BlockMap) -> float:
    """The weight that a suite gives a LoRA in one tensor: its block's, else its component's, else the LoRA's own."""
    component = component_of(name)
    by_component = {"unet": lora.unet, "text_encoder": lora.text_encoder, "text_encoder_2": lora.text_encoder_2}
    weight = by_component.get(component)
    weight = lora.weight if weight is None else weight
    if component == "unet" and lora.blocks:
        return lora.blocks.get(block_of(name, blocks), weight)
    return weight
