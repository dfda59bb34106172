"""SSIM against the formula of Wang et al. written anew with scipy's Gaussian filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from bench.metrics import Inputs, NoScoreError
from bench.metrics.pixels import ssim_to_base


def inputs(image: np.ndarray, reference: np.ndarray | None) -> Inputs:
    pixels = torch.from_numpy(image.astype(np.float32)[None])
    partner = None if reference is None else torch.from_numpy(reference.astype(np.float32)[None])
    return Inputs(("a prompt",), pixels, partner, None, None, 1.0, None)


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    return float(ssim_to_base.compute(inputs(image, reference)).item())


def oracle(x: np.ndarray, y: np.ndarray) -> float:
    def local_mean(channel: np.ndarray) -> np.ndarray:
        return gaussian_filter(channel.astype(np.float64), sigma=1.5, truncate=3.5, mode="mirror")

    c1, c2 = 0.01**2, 0.03**2
    maps = []
    for a, b in zip(x, y, strict=True):
        mean_a, mean_b = local_mean(a), local_mean(b)
        var_a, var_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
        covariance = local_mean(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        maps.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return float(np.mean(maps))


def scene(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 8)) * np.cos(y / rng.uniform(2, 8)) for _ in range(3)]
    return (0.5 + 0.4 * np.stack(waves)).clip(0, 1)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_equals_the_published_formula(noise: float) -> None:
    image = scene(1)
    other = (image + np.random.default_rng(2).normal(0, noise, image.shape)).clip(0, 1)
    assert ssim(other, image) == pytest.approx(oracle(other, image), abs=2e-5)
    assert ssim(image, other) == pytest.approx(ssim(other, image), abs=1e-6)


def test_an_unrelated_image_and_a_negative() -> None:
    image, other = scene(1), scene(3)
    assert ssim(other, image) == pytest.approx(oracle(other, image), abs=2e-5)
    assert ssim(1 - image, image) == pytest.approx(oracle(1 - image, image), abs=2e-5)
    assert ssim(1 - image, image) < 0


def test_an_equal_image_has_1_and_more_noise_has_less() -> None:
    image = scene(1)
    noise = np.random.default_rng(2).normal(0, 1, image.shape)
    values = [ssim((image + scale * noise).clip(0, 1), image) for scale in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(1.0, abs=1e-6)
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("side", [11, 12])
def test_the_smallest_image_that_holds_the_window(side: int) -> None:
    image, other = scene(1, side, side), scene(2, side, side)
    assert ssim(image, other) == pytest.approx(oracle(image, other), abs=2e-5)


def test_what_has_no_score_says_why() -> None:
    with pytest.raises(NoScoreError, match="no reference image"):
        ssim_to_base.compute(inputs(scene(1), None))
    with pytest.raises(NoScoreError, match="the image is 48 x 32 pixels, the reference 40 x 32"):
        ssim_to_base.compute(inputs(scene(1), scene(1, 32, 40)))
    with pytest.raises(NoScoreError, match="40 x 10 pixels; SSIM's window needs 11 x 11"):
        ssim_to_base.compute(inputs(scene(1, 10, 40), scene(1, 10, 40)))
