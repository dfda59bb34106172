"""What a variant is made of, as far as memory and time care: counted from file headers, or known by its name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import WeightsError
from bench.records import Variant
from bench.variants import Needed
from bench.variants.fingerprint import COMPONENTS, component_folder
from bench.variants.headers import read_shapes, weight_files


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
    places = {item.what: Path(item.path) for item in needed if item.variant == variant.name and item.path}
    base = _counted(places[variant.checkpoint]) if variant.checkpoint in places else None
    found = base or KNOWN.get(variant.checkpoint)
    if found is None:
        return None
    unet, vae = (places.get(name) if name else None for name in (variant.unet, variant.vae))
    if unet is not None:
        folder = component_folder("unet", Path(), unet)
        found = found._replace(unet_parameters=_parameters(folder), unet_channels=_channels(folder)[0])
    if vae is not None:
        found = found._replace(vae=_vae(component_folder("vae", Path(), vae)))
    elif variant.vae is not None:
        found = found._replace(vae=KNOWN_VAES.get(variant.vae, found.vae), counted=False)
    return found


def _counted(folder: Path) -> Parts | None:
    if not all(weight_files(folder / part) for part in ("unet", "vae")):
        return None  # another layout than a folder of parts
    texts = sum(_parameters(folder / part) for part in COMPONENTS if part.startswith("text"))
    unet = folder / "unet"
    return Parts(_parameters(unet), _channels(unet)[0], texts, _vae(folder / "vae"), True)


def _vae(folder: Path) -> Vae:
    config, channels = _config(folder), _channels(folder)
    # The defaults are those of diffusers' AutoencoderKL.
    return Vae(
        _parameters(folder),
        channels[min(1, len(channels) - 1)],
        config.get("sample_size", 32),
        config.get("force_upcast", True),
    )


def _parameters(folder: Path) -> int:
    return sum(math.prod(shape) for file in weight_files(folder) for shape in read_shapes(file).values())


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: is missing or cannot be read.", "save the whole pipeline again") from error
    return config


def _channels(folder: Path) -> list[int]:
    # The default is that of diffusers' UNet2DConditionModel; every VAE of these families names its own.
    channels: list[int] = _config(folder).get("block_out_channels", [320, 640, 1280, 1280])
    return channels
