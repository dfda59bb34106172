"""What a variant is made of, as far as memory and time care: counted from file headers, or known by its name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from bench.records import Variant
from bench.variants import Needed
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.families import read_config
from bench.variants.checkpoints.opening import open_checkpoint


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

    A UNet or VAE that replaces the checkpoint's counts instead of it. LoRAs are fused and take no memory.

    Args:
        variant: one of the suite's.
        needed: what ``bench.variants.weights_needed`` found for it.

    Raises:
        WeightsError: a file's header or a part's configuration cannot be read.
    """
    there = {item.what: item.path or item.what for item in needed if item.variant == variant.name and item.present}
    named = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
    places = {role: there.get(name) for role, name in named.items() if name is not None}
    if None not in places.values():
        return _counted(open_checkpoint(msgspec.structs.replace(variant, revision=None, **places), None))
    known = KNOWN.get(variant.checkpoint)
    if known is None or variant.vae is None:
        return known
    return known._replace(vae=KNOWN_VAES.get(variant.vae, known.vae))


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
