"""Each kind of broken image trips its wire, and no picture that is merely dark or plain does."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.image_checks import BLACK_LEVEL, broken, duplicates, not_finite
from bench.records import Render


def picture(level: float, spread: float, height: int = 32, width: int = 48) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 3))
    return (level + spread * noise).clip(0, 255).astype(np.uint8)


def flat(*colour: int) -> np.ndarray:
    return np.tile(np.array(colour, dtype=np.uint8), (32, 48, 1))


def render(variant: str, prompt_id: str, sample: int, sha256: str | None) -> Render:
    return Render(
        variant=variant,
        prompt_id=prompt_id,
        sample=sample,
        seed=1,
        batch=0,
        decode_dtype="float32",
        image=None if sha256 is None else "image.png",
        sha256=f"file {variant} {prompt_id} {sample}" if sha256 else None,
        pixels_sha256=sha256,
        error="no" if sha256 is None else None,
    )


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (flat(0, 0, 0), "black image: no value is above 0 of 255"),
        (flat(4, 0, 2), "black image: no value is above 4"),
        (flat(128, 128, 128), r"uniform image: every pixel is about \(128, 128, 128\)"),
        (flat(255, 0, 0), r"uniform image: every pixel is about \(255, 0, 0\)"),
        (flat(255, 255, 255), "uniform image"),
        (picture(128, 40, height=31), "wrong size: .* are 31 x 48 x 3, not 32 x 48 x 3"),
        (picture(128, 40, height=48, width=32), "wrong size: .* are 48 x 32 x 3"),
        (picture(128, 40)[..., 0], "wrong size: .* are 32 x 48, not"),
    ],
)
def test_a_broken_image_has_a_reason(image: np.ndarray, reason: str) -> None:
    found = broken(image, width=48, height=32)
    assert found is not None
    assert re.match(reason, found)


@pytest.mark.parametrize("image", [picture(128, 40), picture(3, 6), picture(250, 3), picture(90, 2)])
def test_a_dark_bright_or_plain_picture_is_not_broken(image: np.ndarray) -> None:
    assert broken(image, width=48, height=32) is None


@given(level=st.integers(0, 255), bad=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_one_level_is_always_broken_and_non_finite_values_are_counted(level: int, bad: int) -> None:
    assert broken(flat(level, level, level), width=48, height=32) is not None
    found = not_finite(bad, 4608)
    assert (found is None) == (bad == 0)
    assert found is None or found == f"{bad} of 4608 decoded values are NaN or infinite"


def test_one_bright_pixel_is_no_black_image() -> None:
    image = flat(0, 0, 0).copy()
    image[3, 3] = 255
    assert broken(image, width=48, height=32) is None
    image[3, 3] = BLACK_LEVEL
    assert broken(image, width=48, height=32) is not None


def test_equal_pixels_of_one_variant_are_duplicates_of_each_other() -> None:
    found = duplicates(
        [
            render("base", "lake", 0, "aa"),
            render("base", "lake", 1, "bb"),
            render("base", "dune", 0, "aa"),
            render("spo", "lake", 0, "aa"),  # equal to another variant's: a LoRA of weight 0, no fault
            render("base", "hill", 0, "aa"),
            render("base", "sea", 0, None),
            render("base", "sea", 1, None),
        ]
    )
    assert found == {
        ("base", "lake", 0): "duplicate image: the same as prompt 'dune', sample 0, of this variant",
        ("base", "dune", 0): "duplicate image: the same as prompt 'lake', sample 0, of this variant",
        ("base", "hill", 0): "duplicate image: the same as prompt 'lake', sample 0, of this variant",
    }
