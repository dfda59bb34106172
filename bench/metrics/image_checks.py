"""Image checks: images that are broken or duplicates, and the other samples of a prompt. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.records import Render

BLACK_LEVEL = 4
"""An image of which no channel of no pixel exceeds this 8-bit level is black."""
UNIFORM_LEVELS = 1.0
"""An image of which every channel's standard deviation, in 8-bit levels, is below this is uniform."""


def broken(pixels: NDArray[np.uint8], width: int, height: int) -> str | None:
    """Why an 8-bit RGB image (H, W, 3) is broken (wrong size, black or uniform), or None.

    Black: the largest of all values is at most ``BLACK_LEVEL``. Uniform: the standard deviation over the
    pixels is below ``UNIFORM_LEVELS`` in each of the three channels.
    """
    if pixels.shape != (height, width, 3):
        found = " x ".join(str(side) for side in pixels.shape)
        return f"wrong size: rows x columns x channels are {found}, not {height} x {width} x 3"
    brightest = int(pixels.max())
    if brightest <= BLACK_LEVEL:
        return f"black image: no value is above {brightest} of 255"
    means, spreads = zip(*(_moments(pixels[..., channel]) for channel in range(3)), strict=True)
    if max(spreads) < UNIFORM_LEVELS:
        return f"uniform image: every pixel is about ({', '.join(f'{mean:.0f}' for mean in means)})"
    return None


def _moments(levels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of 8-bit levels, by their counts: numpy would copy a large image as float64."""
    counts = sum((np.bincount(rows, minlength=256) for rows in levels), np.zeros(256, np.int64))
    mean = float(np.average(np.arange(256), weights=counts))
    return mean, float(np.average((np.arange(256) - mean) ** 2, weights=counts)) ** 0.5


def not_finite(bad: int, size: int) -> str | None:
    """Why an image is broken of whose ``size`` decoded values ``bad`` are NaN or infinite, or None."""
    return f"{bad} of {size} decoded values are NaN or infinite" if bad else None


def duplicates(renders: Iterable[Render]) -> dict[tuple[str, str, int], str]:
    """The images that equal another one of their variant, by (variant, prompt, sample), with the reason.

    Every image has noise of its own, so equal pixels (by their sha256) mean that the model follows
    neither noise nor prompt. All equal images are named, since it is not known which of them is right.
    """
    same: dict[tuple[str, str], list[Render]] = {}
    for render in renders:
        if render.pixels_sha256 is not None:
            same.setdefault((render.variant, render.pixels_sha256), []).append(render)
    reasons: dict[tuple[str, str, int], str] = {}
    for equal in same.values():
        for number, render in enumerate(equal if len(equal) > 1 else ()):
            other = equal[0] if number else equal[1]
            reasons[render.variant, render.prompt_id, render.sample] = (
                f"duplicate image: the same as prompt {other.prompt_id!r}, sample {other.sample}, of this variant"
            )
    return reasons


def other_samples(renders: Iterable[Render]) -> Mapping[tuple[str, str, int], tuple[Render, ...]]:
    """The other images of the same variant and prompt, by (variant, prompt, sample); without those that failed."""
    groups: dict[tuple[str, str], list[Render]] = {}
    for render in renders:
        groups.setdefault((render.variant, render.prompt_id), []).append(render)
    return {
        (variant, prompt_id, render.sample): tuple(
            other for other in group if other.sample != render.sample and other.sha256 is not None
        )
        for (variant, prompt_id), group in groups.items()
        for render in group
    }


def digest_of(images: Iterable[str | None]) -> str | None:
    """One sha256 over those of several images, whatever their order; None where there are none.

    That of the sorted hexadecimal sha256, each followed by a line feed.
    """
    known = sorted(image for image in images if image is not None)
    return hashlib.sha256("".join(f"{image}\n" for image in known).encode()).hexdigest() if known else None
