"""From a picture to the pixels that a tower sees: the official preprocessings, each with its own geometry.

They differ in what every one of them does: whether the short or the long side becomes the tower's side, how the
margin of the crop is rounded, whether the picture becomes RGB before or after it is resized, and whether PIL or
torch resizes. Each difference moves scores; a metric follows the one that its publishers ran, by name.

Transparency is dropped, as ``convert("RGB")`` does in the code that the metrics were published with (newer
releases of transformers lay the picture on white instead). Imports torch; towers import it late.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bench.metrics.registry import NoScoreError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of each channel, by which every CLIP normalises; source: A. Radford et al., arXiv 2103.00020, and its code."""

MAX_RESIZED_PIXELS = 2**26
"""Most pixels that a picture may have once its short side is the tower's, as many as are decoded at most."""

Geometry = Callable[[Image.Image, int], Tensor]
"""A picture of any 8-bit mode and the tower's side in pixels -> normalised float32 (3, side, side)."""


def torchvision_crop(image: Image.Image, side_px: int) -> Tensor:
    """The middle square as openai's and LAION's code takes it: resized in the picture's own mode, then RGB.

    Short side to ``side_px`` by PIL's bicubic filter (a palette picture by its nearest colour, as PIL does), the
    crop's margin rounded to the nearest, halves to even. Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that it would not fit in memory.
    """
    resized = _resize_short_side(image, side_px)
    left, top = (round((size - side_px) / 2) for size in resized.size)
    return normalise(_crop(resized, left, top, side_px).convert("RGB"))


def transformers_crop(image: Image.Image, side_px: int) -> Tensor:
    """The middle square as transformers' CLIP processor takes it: RGB first, then as above, the margin rounded down.

    Short side to ``side_px`` by PIL's bicubic filter. Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that it would not fit in memory.
    """
    resized = _resize_short_side(image.convert("RGB"), side_px)
    left, top = ((size - side_px) // 2 for size in resized.size)
    return normalise(_crop(resized, left, top, side_px))


def whole_on_black(image: Image.Image, side_px: int) -> Tensor:
    """The whole picture on black as HPSv2's code takes it: RGB, longest side to ``side_px``, padded in the middle.

    Resized as a float32 tensor by torch's bicubic filter with antialiasing, without clamping its overshoot.
    Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that its short side would vanish.
    """
    pixels = _to_tensor(image.convert("RGB"))
    height, width = pixels.shape[1:]
    if max(height, width) != side_px:
        scale = side_px / float(max(height, width))
        height, width = round(height * scale), round(width * scale)
        if min(height, width) == 0:
            raise NoScoreError(
                f"the image is {image.width} x {image.height} pixels; its short side vanishes at {side_px} pixels"
            )
        pixels = functional.interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]
    left, top = (side_px - width) // 2, (side_px - height) // 2
    return _normalised(functional.pad(pixels, (left, side_px - width - left, top, side_px - height - top)))


def normalise(image: Image.Image) -> Tensor:
    """An RGB picture as (level / 255 - mean) / std of each channel, float32 (3, height, width)."""
    return _normalised(_to_tensor(image))


def _resize_short_side(image: Image.Image, side_px: int) -> Image.Image:
    short, long = sorted(image.size)
    long_px = side_px * long // short
    if side_px * long_px > MAX_RESIZED_PIXELS:
        raise NoScoreError(
            f"the image is {image.width} x {image.height} pixels; "
            f"with a short side of {side_px} its long side would have {long_px:,}"
        )
    size = (side_px, long_px) if image.width <= image.height else (long_px, side_px)
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, left: int, top: int, side_px: int) -> Image.Image:
    return image.crop((left, top, left + side_px, top + side_px))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255.0)


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std).contiguous()
