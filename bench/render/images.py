"""Draws one planned batch, checks its images, and writes them with their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.metrics.image_checks import broken, not_finite
from bench.pictures.parameters import Captions
from bench.pictures.png import pack, write_picture
from bench.pipeline import denoise as stages
from bench.pipeline.prompt_encoding import common_tokens
from bench.records import PlannedImage, Render, Settings, Suite
from bench.store import RunFolder

REMEDY = 'a VAE that holds in float16 (vae = "madebyollin/sdxl-vae-fp16-fix") or dtype = "bfloat16" helps'


class Drawn(NamedTuple):
    """One decoded image: 8-bit pixels, or why there are none."""

    pixels: NDArray[np.uint8] | None
    decode_dtype: str
    error: str | None


class Launched(NamedTuple):
    """A batch that the device may still be at work on."""

    images: tuple[PlannedImage, ...]
    latents: torch.Tensor
    decoded: stages.Decoded


# Draw and check.


def encode_prompts(
    pipe: Any,
    suite: Suite,
    batches: Sequence[Sequence[PlannedImage]],
    known: Mapping[str, stages.Encoded] | None = None,
) -> dict[str, stages.Encoded]:
    """Each prompt of the batches by its id, encoded once however many samples it has; those in ``known`` as they are.

    They lie in the host's memory: the device's would not hold those of thousands of prompts.

    Raises:
        SuiteError: the prompts of a batch cannot be brought to one length; other errors as of ``denoise.encode``.
    """
    wanted, known = {image.prompt_id for batch in batches for image in batch}, known or {}
    encoded = {name: one for name, one in known.items() if name in wanted}
    new = [prompt for prompt in suite.prompts if prompt.id in wanted - known.keys()]
    rows = stages.encode_each(pipe, [one.text for one in new], [one.negative for one in new], suite.settings)
    encoded |= {prompt.id: row.to("cpu") for prompt, row in zip(new, rows, strict=True)}
    for batch in batches if suite.settings.prompt_syntax != "plain" else ():
        common_tokens(sorted({encoded[image.prompt_id].prompt.shape[1] for image in batch}))
    return encoded


def draw_batch(
    pipe: Any, settings: Settings, images: Sequence[PlannedImage], encoded: Mapping[str, stages.Encoded]
) -> tuple[Drawn, ...]:
    """One batch from noise to checked pixels."""
    launched = launch(pipe, settings, images, encoded)
    return settle(launched, settings) or settle_again(pipe, launched, settings)


def launch(
    pipe: Any, settings: Settings, images: Sequence[PlannedImage], encoded: Mapping[str, stages.Encoded]
) -> Launched:
    """Noise, denoise and decode one batch; on CUDA it returns while the decoder still works."""
    seeds = [image.seed for image in images]
    conditions = stages.stack([encoded[image.prompt_id] for image in images])
    latents = stages.denoise(pipe, settings, conditions, stages.noise(pipe, settings, seeds), seeds)
    return Launched(tuple(images), latents, stages.decode_levels(pipe, latents))


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


def _in_float32(pipe: Any, latents: torch.Tensor, settings: Settings) -> Drawn:
    decoded = stages.decode_levels(pipe, latents, torch.float32)
    decoded.wait()
    pixels = decoded.levels[0].numpy()
    reason = not_finite(int(decoded.bad_values[0]), pixels.size)
    return Drawn(None, decoded.dtype, reason) if reason else _checked(pixels, decoded.dtype, settings)


def _checked(pixels: NDArray[np.uint8], dtype: str, settings: Settings) -> Drawn:
    reason = broken(pixels, settings.width, settings.height)
    return Drawn(None if reason else pixels, dtype, reason)


def first_batch_warning(images: Sequence[Drawn | Render], settings: Settings, vae_dtype: str) -> str:
    """A sentence on a variant's first batch, where the next will be no better; empty where there is nothing to say.

    Args:
        images: of the batch.
        settings: of the suite.
        vae_dtype: the precision that the VAE decodes in, unless an image is not finite.
    """
    again = sum(image.decode_dtype == "float32" != vae_dtype for image in images)
    errors = [image.error for image in images if image.error is not None]
    if errors and len(errors) == len(images):
        remedy = f"; {REMEDY}" if settings.dtype == "float16" else "; see that checkpoint, VAE and sampler go together"
        return f"every image of the first batch is broken ({errors[0]}){remedy}"
    if again:
        return (
            f"its VAE overflows in {vae_dtype}: {again} of the first {len(images)} images were decoded again in "
            f"float32, which takes time and memory; {REMEDY}"
        )
    return ""


# Write.


def write_batch(
    pool: Executor,
    folder: RunFolder,
    captions: Captions | None,
    variant: str,
    images: Sequence[PlannedImage],
    drawn: Sequence[Drawn],
) -> tuple[Render, ...]:
    """Write a batch's PNGs with the pool's threads, and when all are on the disk append its records at once."""

    def write(image: PlannedImage, found: Drawn) -> Render:
        return write_picture(folder, captions, variant, image, pack(*found))

    records = tuple(pool.map(write, images, drawn))
    folder.append_renders(records)
    return records
