"""Statistics of the pixels against independent oracles: colorsys, Pillow, scipy.ndimage, plain numpy."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from bench.metrics import Inputs, Metric
from bench.metrics.pixels import clipped, contrast, saturation, sharpness

ALL = (saturation, contrast, sharpness, clipped)


def inputs(*images: np.ndarray) -> Inputs:
    stacked = np.stack(images).astype(np.float32).transpose(0, 3, 1, 2) / 255
    return Inputs(("a prompt",) * len(images), torch.from_numpy(stacked), None, None, None, 1.0, None)


def value(metric: Metric, image: np.ndarray) -> float:
    (number,) = metric.compute(inputs(image)).tolist()
    return float(number)


def drawn(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    """A gradient with blobs, noise, and some clipped pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    wave = np.sin(x[..., None] / rng.uniform(2, 9, 3)) + np.cos(y[..., None] / rng.uniform(2, 9, 3))
    return (128 + 80 * wave + rng.normal(0, 10, (height, width, 3))).clip(0, 255).astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("seed", range(4))
def test_saturation_is_the_mean_of_hsv_s(seed: int) -> None:
    image = drawn(seed)
    oracle = np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in image.reshape(-1, 3) / 255])
    assert value(saturation, image) == pytest.approx(oracle, abs=1e-6)
    pillow = np.asarray(Image.fromarray(image).convert("HSV"))[..., 1].mean() / 255
    assert value(saturation, image) == pytest.approx(pillow, abs=1 / 255)


@pytest.mark.parametrize("seed", range(4))
def test_contrast_is_the_spread_of_luma(seed: int) -> None:
    image = drawn(seed)
    assert value(contrast, image) == pytest.approx(luma(image).std() / 255, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_sharpness_is_the_variance_of_the_laplacian(seed: int) -> None:
    image = drawn(seed)
    oracle = ndimage.laplace(luma(image), mode="mirror").var()
    assert value(sharpness, image) == pytest.approx(oracle, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_clipped_counts_pixels_with_a_channel_at_its_end(seed: int) -> None:
    image = drawn(seed)
    oracle = sum(min(pixel) == 0 or max(pixel) == 255 for pixel in image.reshape(-1, 3).tolist())
    assert oracle > 0
    assert value(clipped, image) == pytest.approx(oracle / (24 * 40))


def test_blur_lowers_sharpness_and_greying_lowers_saturation() -> None:
    image = drawn(7)
    blurred = ndimage.gaussian_filter(image, (1.5, 1.5, 0))
    assert value(sharpness, blurred) < 0.5 * value(sharpness, image)
    grey = np.repeat(luma(image).round().astype(np.uint8)[..., None], 3, axis=2)
    assert value(saturation, grey) == 0.0


def test_known_images_reach_the_ends_of_the_ranges() -> None:
    board = np.indices((16, 16)).sum(axis=0) % 2 * 255
    checkerboard = np.repeat(board[..., None], 3, axis=2)
    red, black = np.zeros((16, 16, 3)), np.zeros((16, 16, 3))
    red[..., 0] = 255
    assert value(sharpness, checkerboard) == pytest.approx(sharpness.facts.high)
    assert value(contrast, checkerboard) == pytest.approx(contrast.facts.high)
    assert value(clipped, checkerboard) == clipped.facts.high
    assert value(saturation, red) == pytest.approx(saturation.facts.high)
    assert value(clipped, black + 254) == 0.0
    for metric in (saturation, contrast, sharpness):
        assert value(metric, black) == 0.0


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(2, 20), width=st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_values_stay_in_their_range_and_are_finite(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.choice(np.array([0, 1, 77, 254, 255], dtype=np.uint8), size=(height, width, 3))
    for metric in ALL:
        assert metric.facts.low is not None
        assert metric.facts.high is not None
        assert metric.facts.low <= value(metric, image) <= metric.facts.high * (1 + 1e-6)


def test_a_batch_gives_one_float32_an_image() -> None:
    images = [drawn(seed) for seed in range(3)]
    for metric in ALL:
        values = metric.compute(inputs(*images))
        assert values.shape == (3,)
        assert values.dtype == torch.float32
        assert values.tolist() == pytest.approx([value(metric, image) for image in images], rel=1e-5)
