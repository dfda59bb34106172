"""The UNet's blocks, and its modules' names in the published single-file layout.

The field counts blocks as the published layout does (``model.diffusion_model.input_blocks.4...``), diffusers counts
levels, resnets and attentions. Both follow from how many levels the UNet has and how many layers each, which
``count_blocks`` reads from the tensors' names: SDXL has 3 levels of 2 layers (``IN00`` to ``IN08``, ``M00``, ``OUT00``
to ``OUT08``), SD 1.5 has 4 (``IN00`` to ``IN11``, ...). ``BASE`` is what lies outside the blocks: the embeddings of
time and size, and the output convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from bench.errors import SuiteError, WeightsError
from bench.formatting import did_you_mean
from bench.records import Lora

UNET = "unet."

PUBLISHED_UNET = "model.diffusion_model."

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

"""Modules of a resnet: diffusers' name -> the published one. Those of an attention have the same names in both."""

AROUND = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}

TEXT_AND_VAE = {"text_encoder": "TE1", "text_encoder_2": "TE2", "vae": "VAE"}

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
    """The shape of a UNet, from the names of all its tensors; other components' are passed over.

    Raises:
        WeightsError: these are not the names of a UNet of the Stable Diffusion family.
    """
    names = tuple(names)
    resnets = [(int(m[1]), int(m[2])) for m in map(_RESNETS.fullmatch, names) if m]
    if not resnets:
        raise WeightsError("The tensors hold no UNet of the Stable Diffusion family: no unet.down_blocks.* is there.")
    attended = frozenset(int(m[1]) for m in map(_UP_ATTENTION.fullmatch, names) if m)
    return BlockMap(1 + max(level for level, _ in resnets), 1 + max(layer for _, layer in resnets), attended)


@lru_cache
def module_prefixes(blocks: BlockMap) -> Mapping[str, str]:
    """Beginnings of module names, diffusers' -> the published; what follows a beginning is the same in both.

    Both sides are without the component's prefix (``unet.``, ``model.diffusion_model.``).
    """
    levels, layers, attended = blocks
    found = dict(AROUND)
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


def _resnet(ours: str, published: str) -> dict[str, str]:
    return {f"{ours}.{name}": f"{published}.{other}" for name, other in RESNET.items()}


def published_unet_name(name: str, blocks: BlockMap) -> str:
    """``unet.conv_in.weight`` -> ``model.diffusion_model.input_blocks.0.0.weight``, for any tensor of the UNet.

    Raises:
        WeightsError: the published layout has no place for such a tensor.
    """
    found = find_published(name, blocks)
    if found is None:
        raise WeightsError(f"The tensor {name} has no name in the published single-file layout.")
    return found


def find_published(name: str, blocks: BlockMap) -> str | None:
    """As ``published_unet_name``, None where the layout has no place: distilled UNets have an embedding more."""
    if not name.startswith(UNET):
        return None
    parts, prefixes = name.removeprefix(UNET).split("."), module_prefixes(blocks)
    for end in range(len(parts) - 1, 0, -1):
        begun = prefixes.get(".".join(parts[:end]))
        if begun is not None:
            return PUBLISHED_UNET + ".".join([begun, *parts[end:]])
    return None


def blocks_of(blocks: BlockMap) -> tuple[str, ...]:
    """The names of a UNet's blocks in the order of its data flow, ``BASE`` last: 20 for SDXL, 26 for SD 1.5."""
    inputs = blocks.levels * (blocks.layers + 1)  # conv_in comes on top, the last level has no downsampler
    outputs = blocks.levels * (blocks.layers + 1)
    return (
        *(f"IN{block:02d}" for block in range(inputs)),
        "M00",
        *(f"OUT{block:02d}" for block in range(outputs)),
        "BASE",
    )


def block_of(name: str, blocks: BlockMap) -> str:
    """The block that a tensor is in; ``TE1``, ``TE2`` or ``VAE`` for those of the other components."""
    component = name.split(".", 1)[0]
    if component in TEXT_AND_VAE:
        return TEXT_AND_VAE[component]
    place = (find_published(name, blocks) or "").removeprefix(PUBLISHED_UNET).split(".")
    if place[0] == "middle_block":
        return "M00"
    kind = {"input_blocks": "IN", "output_blocks": "OUT"}.get(place[0])
    return f"{kind}{int(place[1]):02d}" if kind else "BASE"


def check_blocks(named: Iterable[str], blocks: BlockMap, where: str) -> None:
    """Refuses names of blocks that a UNet does not have.

    Args:
        named: the blocks that a LoRA's or a recipe's weights name.
        blocks: the UNet's.
        where: what names them, for the message.

    Raises:
        SuiteError: one of them is none of ``blocks_of``.
    """
    allowed = blocks_of(blocks)
    for name in named:
        if name not in allowed:
            last = blocks.levels * (blocks.layers + 1) - 1
            raise SuiteError(
                f"{where}: blocks: {name!r} is no block of this UNet{did_you_mean(name, allowed)}. "
                f"It has IN00 to IN{last:02d}, M00, OUT00 to OUT{last:02d} and BASE."
            )


def weight_of(lora: Lora, name: str, blocks: BlockMap) -> float:
    """The weight that a suite gives a LoRA in one tensor: its block's, else its component's, else the LoRA's own."""
    component = name.split(".", 1)[0]
    by_component = {"unet": lora.unet, "text_encoder": lora.text_encoder, "text_encoder_2": lora.text_encoder_2}
    weight = by_component.get(component)
    weight = lora.weight if weight is None else weight
    if component == "unet" and lora.blocks:
        return lora.blocks.get(block_of(name, blocks), weight)
    return weight
