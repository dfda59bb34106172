"""What a variant is made of, as far as memory and time care: counted from file headers, or known by its name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.records import Variant
from bench.variants import Needed
from bench.variants.adapters import read_adapter
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.families import read_config
from bench.variants.checkpoints.opening import open_checkpoint

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Of an element."""


class Vae(NamedTuple):
    """What of a VAE decides its memory."""

    parameters: int
    channels: int
    """Of the widest layers at full resolution, ``block_out_channels[1]``."""
    tile: int
    """Edge in pixels from which on tiling cuts, and of a tile: ``sample_size``."""
    force_upcast: bool
    """Whether it is decoded in float32 when it runs in float16."""


class Parts(NamedTuple):
    """A pipeline in numbers."""

    unet_parameters: int
    unet_channels: int
    """``block_out_channels[0]``."""
    text_parameters: int
    vae: Vae
    counted: bool
    """Whether they were counted from the files, else known by name."""


class Kept(NamedTuple):
    """Weights that are kept as they were before LoRAs changed them, so that a loaded pipeline serves other variants."""

    size_bytes: int
    counted: bool
    """Whether they were counted from the files, else taken to be the whole UNet."""


SDXL_UNET_PARAMETERS = 2_567_463_684
SD_VAE_PARAMETERS = 83_653_863
SDXL = Parts(SDXL_UNET_PARAMETERS, 320, 817_720_320, Vae(SD_VAE_PARAMETERS, 256, 1024, True), False)
SD15 = Parts(859_520_964, 320, 123_060_480, Vae(SD_VAE_PARAMETERS, 256, 512, True), False)
KNOWN = {
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "random:sdxl": SDXL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD15,
    "random:sd15": SD15,
}
"""The checkpoints of the shipped suites and the random ones, for machines that do not have them yet."""
KNOWN_VAES = {"madebyollin/sdxl-vae-fp16-fix": Vae(SD_VAE_PARAMETERS, 256, 512, False)}


def parts_of(variant: Variant, needed: Iterable[Needed]) -> Parts | None:
    """Count a variant's parts from the headers of its files, or know them by the checkpoint's name; else None.

    A UNet or VAE that replaces the checkpoint's counts instead of it. What LoRAs take is told by ``kept_of``.

    Args:
        variant: one of the suite's.
        needed: what ``bench.variants.weights_needed`` found for it.

    Raises:
        WeightsError: a file's header or a part's configuration cannot be read.
    """
    checkpoint = _opened(variant, needed)
    if checkpoint is not None:
        return _counted(checkpoint)
    known = KNOWN.get(variant.checkpoint)
    if known is None or variant.vae is None:
        return known
    return known._replace(vae=KNOWN_VAES.get(variant.vae, known.vae))


def kept_of(variants: Sequence[Variant], needed: Sequence[Needed], parts: Parts) -> Kept:
    """The tensors that the LoRAs of variants of one checkpoint change, each once, in the precision of its file.

    Where a LoRA or the checkpoint is not here: all of the UNet, and of a checkpoint that is known by its name in
    float32, as the Hub has it. What a recipe makes is kept in float32, too.

    Args:
        variants: those that one pipeline has served so far.
        needed: what ``bench.variants.weights_needed`` found.
        parts: of one of them.

    Raises:
        WeightsError: a LoRA is damaged, or has a key that fits nothing in the checkpoint.
    """
    there = {(item.variant, item.what): item.path for item in needed if item.present}
    files = {there.get((variant.name, lora.path)) for variant in variants for lora in variant.loras}
    if not files:
        return Kept(0, True)
    checkpoint = _opened(variants[0], needed)
    if checkpoint is None:
        return Kept(BYTES["float32"] * parts.unet_parameters, False)
    tensors = checkpoint.tensors
    names = {name for name in tensors if name.startswith("unet.")}
    paths = [Path(file) for file in files if file is not None]
    if len(paths) == len(files):
        names = {change.tensor for path in paths for change in read_adapter(path, tensors).changes}
    recipe = checkpoint.facts.layout == "recipe"
    sizes = {name: BYTES.get("float32" if recipe else tensors[name].dtype, 4) for name in names}
    return Kept(sum(math.prod(tensors[name].shape) * sizes[name] for name in names), len(paths) == len(files))


def _opened(variant: Variant, needed: Iterable[Needed]) -> Checkpoint | None:
    """The variant's checkpoint with what replaces parts of it; None where any of it is not here."""
    there = {item.what: item.path or item.what for item in needed if item.variant == variant.name and item.present}
    named = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
    places = {role: there.get(name) for role, name in named.items() if name is not None}
    if None in places.values():
        return None
    return open_checkpoint(msgspec.structs.replace(variant, revision=None, **places), None)


def _counted(checkpoint: Checkpoint) -> Parts:
    sizes: Counter[str] = Counter()
    for name, tensor in checkpoint.tensors.items():
        sizes[name.partition(".")[0]] += math.prod(tensor.shape)
    folder = checkpoint.other_configs.get("vae", checkpoint.config / "vae")
    config = read_config(folder / "config.json")
    channels = config.get("block_out_channels", [64])  # the defaults are those of diffusers' AutoencoderKL
    vae = Vae(
        sizes["vae"],
        channels[min(1, len(channels) - 1)],
        config.get("sample_size", 32),
        config.get("force_upcast", True),
    )
    texts = sizes["text_encoder"] + sizes["text_encoder_2"]
    return Parts(sizes["unet"], checkpoint.tensors["unet.conv_in.weight"].shape[0], texts, vae, True)
