"""The peak of memory before a start: weights as they are, activations by a model fitted to an H100's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from bench.forecast.parts import SDXL, Parts, parts_of
from bench.records import Machine, MemoryForecast, Settings, Suite
from bench.variants import Needed
from bench.wording import quantity

GIB = 2**30
MEGAPIXEL = 1024 * 1024
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# GiB for each byte of an element, of SDXL's shape at 1024x1024.
DENOISE_FIXED, DENOISE_ROW = 0.052, 0.0786
"""The second for each row of the UNet's batch, of which guidance makes two an image."""
DECODE_FIXED, DECODE_IMAGE = 0.2, 0.94

CONTEXT_GIB = 0.5
"""CUDA's context and libraries; not measured here."""
RESERVE = 1.10
"""Identical work reserved 35.9 to 39.0 GiB, 9 % apart."""
PROCESS_GIB = 0.75
"""A process on the CPU with torch and diffusers and no weights."""

FITTED = (
    "Estimate: weights as their files say, and activations after SDXL's figures on an H100 (UNet 5.2 and 7.4 GiB at "
    "batch 1 and 8, VAE decode 8.7 and 14.3 GiB at batch 1 and 4 in half precision, 11.2 and 22.5 in float32), scaled "
    "by pixels, batch and channels"
)


class Peaks(NamedTuple):
    """Bytes of one rendering process."""

    weights: int
    denoise: int
    decode: int


def peaks(parts: Parts, settings: Settings) -> Peaks:
    """Foretell what rendering a whole batch allocates, in bytes: weights W, and W with the activations of each part.

    With e bytes an element, n images a batch, g = 2 rows an image (1 without guidance), p = width x height / 1024^2
    (of a tile, where the VAE is tiled) and c = channels over SDXL's:

        W       = e (unet + text + vae)
        denoise = W + GiB e c_unet (0.052 + 0.0786 g n p)
        decode  = W + (e_vae - e) vae + GiB e_vae c_vae (0.2 + 0.94 n p)

    e_vae is 4 where a float16 VAE overflows and is decoded in float32 (``force_upcast``). Text encoders, UNet and
    VAE all stay on the device. Denoising follows exactly from 5.2 and 7.4 GiB (the UNet alone at batch 1 and 8,
    with guidance); decoding is within 1 % of the four figures 8.7, 14.3, 11.2 and 22.5 GiB with W in memory.
    Linear in pixels, which attention without flash kernels is not.

    Source: docs/performance.md, "Memory".
    """
    size = BYTES[settings.dtype]
    vae = parts.vae
    vae_size = 4 if settings.dtype == "float16" and vae.force_upcast else size
    pixels = settings.width * settings.height
    tiled = settings.vae_tiling and max(settings.width, settings.height) > vae.tile
    decoded = min(pixels, vae.tile**2) if tiled else pixels
    rows = settings.batch * (2 if settings.guidance > 1 else 1)
    weights = size * (parts.unet_parameters + parts.text_parameters + vae.parameters)
    denoise = DENOISE_FIXED + DENOISE_ROW * rows * pixels / MEGAPIXEL
    decode = DECODE_FIXED + DECODE_IMAGE * settings.batch * decoded / MEGAPIXEL
    return Peaks(
        weights=weights,
        denoise=weights + round(GIB * size * denoise * parts.unet_channels / SDXL.unet_channels),
        decode=weights
        + (vae_size - size) * vae.parameters
        + round(GIB * vae_size * decode * vae.channels / SDXL.vae.channels),
    )


def needed_bytes(parts: Parts, settings: Settings, device: str) -> int:
    """Bytes that should be free for it: on a GPU 1.1 x the peak and 0.5 GiB, on a CPU the peak and 0.75 GiB."""
    _, *both = peaks(parts, settings)
    if device == "cpu":
        return round(max(both) + PROCESS_GIB * GIB)
    return round(RESERVE * max(both) + CONTEXT_GIB * GIB)


def forecast_memory(suite: Suite, machine: Machine, needed: Sequence[Needed]) -> MemoryForecast | None:
    """Foretell the peak of a suite's largest variant on a machine's device; None where its parts are not known.

    Where it does not fit, ``advice`` names settings that would, of which each changes the protocol.

    Args:
        suite: its settings count, and every variant.
        machine: its device's memory, or its own on a CPU or an Apple GPU.
        needed: what ``bench.variants.weights_needed`` found.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
    """
    known = [(variant.name, parts_of(variant, needed)) for variant in suite.variants]
    told = [(name, parts) for name, parts in known if parts is not None]
    if len(told) < len(known) or not told:
        return None
    settings, device = suite.settings, machine.device
    name, parts = max(told, key=lambda pair: needed_bytes(pair[1], settings, device))
    weights, denoise, decode = peaks(parts, settings)
    wanted = needed_bytes(parts, settings, device)
    available = machine.device_memory_bytes or machine.memory_bytes
    return MemoryForecast(
        variant=name,
        weights_bytes=weights,
        denoise_bytes=denoise,
        decode_bytes=decode,
        peak_bytes=max(denoise, decode),
        needed_bytes=wanted,
        available_bytes=available,
        fits=wanted <= available,
        basis=FITTED + ("." if parts.counted else "; the sizes of weights that are not here are known by their name."),
        advice=() if wanted <= available else tuple(_advice(parts, settings, device, available)),
    )


def _advice(parts: Parts, settings: Settings, device: str, available: int) -> Iterator[str]:
    """Settings that would fit: each change alone, else batch 1 with tiles; else that none will do."""
    tiles = max(settings.width, settings.height) > parts.vae.tile
    alone: list[dict[str, object]] = [{"batch": batch} for batch in range(settings.batch - 1, 0, -1)]
    if tiles:
        alone.append({"vae_tiling": True})
    if settings.dtype != "bfloat16":
        alone.append({"dtype": "bfloat16"})
    found = [change for change in alone if _fits(parts, settings, change, device, available)]
    firsts = {next(iter(change)): change for change in reversed(found)}  # the largest batch stands first of its kind
    if not firsts:
        both: dict[str, object] = {"batch": 1, "dtype": "bfloat16"} | ({"vae_tiling": True} if tiles else {})
        firsts = {"both": both} if _fits(parts, settings, both, device, available) else {}
    for change in reversed(firsts.values()):
        takes = quantity(needed_bytes(parts, msgspec.structs.replace(settings, **change), device), "byte")
        yield f"{' and '.join(f'{name} = {_toml(value)}' for name, value in change.items())} would take {takes}"
    if not firsts:
        yield "no batch, tiling or dtype would fit: take a smaller width and height, or another device"


def _fits(parts: Parts, settings: Settings, change: dict[str, object], device: str, available: int) -> bool:
    return needed_bytes(parts, msgspec.structs.replace(settings, **change), device) <= available


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'
