"""Planned images of a run: which are missing, how a batch is drawn, checked and written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.metrics.image_checks import broken, not_finite
from bench.pipeline import denoise as stages
from bench.records import PlannedImage, Prompt, Render, Settings, Suite
from bench.store import RunFolder
from bench.suite.planned_images import record_of

# Draws one planned batch: launched without waiting for the device, settled when its pixels are on the host.


class Drawn(NamedTuple):
    """One decoded image: 8-bit pixels, or why there are none."""

    pixels: NDArray[np.uint8] | None
    decode_dtype: str
    error: str | None


class Launched(NamedTuple):
    """A batch that the device may still be at work on."""

    cells: tuple[PlannedImage, ...]
    latents: torch.Tensor
    decoded: stages.Decoded


def encode_cases(
    pipe: Any,
    suite: Suite,
    batches: Sequence[Sequence[PlannedImage]],
    known: Mapping[str, stages.Encoded] | None = None,
) -> dict[str, stages.Encoded]:
    """Each case's prompt, encoded once however many samples it has; those in ``known`` are taken from there.

    They lie in the host's memory: the device's would not hold those of thousands of prompts.
    """
    wanted = {cell.prompt_id for cells in batches for cell in cells}
    prompts: list[Prompt] = [prompt for prompt in suite.prompts if prompt.id in wanted]
    there = known or {}

    def encode(prompt: Prompt) -> stages.Encoded:
        return stages.to_host(stages.encode(pipe, [prompt.text], [prompt.negative], suite.settings))

    return {prompt.id: there.get(prompt.id) or encode(prompt) for prompt in prompts}


def launch(
    pipe: Any, settings: Settings, cells: Sequence[PlannedImage], encoded: Mapping[str, stages.Encoded]
) -> Launched:
    """Noise, denoise and decode one batch; on CUDA it returns while the decoder still works."""
    seeds = [cell.seed for cell in cells]
    conditions = stages.stack([encoded[cell.prompt_id] for cell in cells])
    latents = stages.denoise(pipe, settings, conditions, stages.noise(pipe, settings, seeds), seeds)
    return Launched(tuple(cells), latents, stages.decode_levels(pipe, latents))


def settle(launched: Launched, settings: Settings) -> tuple[Drawn, ...] | None:
    """Wait for a batch and check each image; None where one has to be decoded again, in float32."""
    decoded = launched.decoded
    decoded.wait()
    if bool(decoded.bad_values.any()):
        return None
    return tuple(_checked(pixels, decoded.dtype, settings) for pixels in decoded.levels.numpy())


def settle_again(pipe: Any, launched: Launched, settings: Settings) -> tuple[Drawn, ...]:
    """The images of a settled batch, those that were not finite decoded once more with the VAE in float32."""
    decoded = launched.decoded
    return tuple(
        _in_float32(pipe, launched.latents[row : row + 1], settings)
        if bad
        else _checked(decoded.levels[row].numpy(), decoded.dtype, settings)
        for row, bad in enumerate(decoded.bad_values.tolist())
    )


def draw_batch(
    pipe: Any, settings: Settings, cells: Sequence[PlannedImage], encoded: Mapping[str, stages.Encoded]
) -> tuple[Drawn, ...]:
    """One batch from noise to checked pixels."""
    launched = launch(pipe, settings, cells, encoded)
    return settle(launched, settings) or settle_again(pipe, launched, settings)


def _in_float32(pipe: Any, latents: torch.Tensor, settings: Settings) -> Drawn:
    decoded = stages.decode_levels(pipe, latents, torch.float32)
    decoded.wait()
    pixels = decoded.levels[0].numpy()
    reason = not_finite(int(decoded.bad_values[0]), pixels.size)
    return Drawn(None, decoded.dtype, reason) if reason else _checked(pixels, decoded.dtype, settings)


def _checked(pixels: NDArray[np.uint8], dtype: str, settings: Settings) -> Drawn:
    reason = broken(pixels, settings.width, settings.height)
    return Drawn(None if reason else pixels, dtype, reason)


# What a variant's first batch tells of all the others: a VAE that overflows, images that are all broken.

REMEDY = 'a VAE that holds in float16 (vae = "madebyollin/sdxl-vae-fp16-fix") or dtype = "bfloat16" helps'


class DrawnImage(Protocol):
    """What is known of an image; ``Render`` and ``Drawn`` both are."""

    @property
    def decode_dtype(self) -> str | None:
        """Precision that it was decoded in."""

    @property
    def error(self) -> str | None:
        """Why there is none."""


def first_batch_doubt(images: Sequence[DrawnImage], settings: Settings, vae_dtype: str) -> str:
    """A sentence on a batch from which no better is to be expected of the next; empty where there is nothing.

    Args:
        images: of the batch.
        settings: of the suite.
        vae_dtype: the precision that the VAE decodes in, unless an image is not finite.
    """
    again = sum(one.decode_dtype == "float32" != vae_dtype for one in images)
    errors = [one.error for one in images if one.error is not None]
    if errors and len(errors) == len(images):
        remedy = f"; {REMEDY}" if settings.dtype == "float16" else "; see that checkpoint, VAE and sampler go together"
        return f"every image of the first batch is broken ({errors[0]}){remedy}"
    if again:
        return (
            f"its VAE overflows in {vae_dtype}: {again} of the first {len(images)} images were decoded again in "
            f"float32, which takes time and memory; {REMEDY}"
        )
    return ""


# Puts drawn batches on the disk: PNGs by a few threads, then the batch's records at once.

PNG_LEVEL = 1

"""zlib level: 6 is 2.5 times as slow for a few percent."""


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit RGB pixels (h, w, 3); equal pixels give equal bytes with one version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def write_batch(
    pool: Executor, folder: RunFolder, variant: str, cells: Sequence[PlannedImage], drawn: Sequence[Drawn]
) -> tuple[Render, ...]:
    """Write a batch's images, and when all are on the disk append its records."""

    def write(cell: PlannedImage, pixels: NDArray[np.uint8]) -> tuple[str, str]:
        return folder.write_image(variant, cell.prompt_id, cell.sample, encode_png(pixels))

    files = [
        None if image.pixels is None else pool.submit(write, cell, image.pixels)
        for cell, image in zip(cells, drawn, strict=True)
    ]
    records = tuple(
        record_of(variant, cell, image.decode_dtype, image.error, None if file is None else file.result())
        for cell, image, file in zip(cells, drawn, files, strict=True)
    )
    folder.append_renders(records)
    return records
