"""Our PNGs: text before the pixels that Pillow and exiftool-like readers find, and a hash of the pixels alone."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.pictures.png import encode_png, pack, pixels_sha256, with_text

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_back_by_pillow_and_leaves_the_pixels_alone(text: str) -> None:
    image = Image.open(io.BytesIO(with_text(encode_png(PIXELS), text)))
    assert image.text["parameters"] == text  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(image), PIXELS)
    Image.open(io.BytesIO(with_text(encode_png(PIXELS), text))).verify()


def test_latin_1_goes_into_text_and_all_else_into_international_text() -> None:
    assert b"tEXtparameters\0caf\xe9" in with_text(encode_png(PIXELS), "café")
    assert b"iTXtparameters\0\0\0\0\0" + "海".encode() in with_text(encode_png(PIXELS), "海")


def test_the_hash_of_pixels_is_that_of_its_documented_bytes() -> None:
    assert pixels_sha256(PIXELS) == hashlib.sha256(b"4x6 RGB\n" + bytes(range(72))).hexdigest()


def test_equal_bytes_of_another_shape_are_other_pixels() -> None:
    assert pixels_sha256(PIXELS) != pixels_sha256(PIXELS.reshape(4, 6, 3))


def test_a_view_that_lies_otherwise_in_memory_has_the_same_hash() -> None:
    assert pixels_sha256(np.asfortranarray(PIXELS)) == pixels_sha256(PIXELS)


def test_a_packed_image_holds_either_pixels_or_the_reason() -> None:
    whole = pack(PIXELS, "float32", None)
    assert (whole.png, whole.pixels_sha256, whole.error) == (encode_png(PIXELS), pixels_sha256(PIXELS), None)
    assert pack(None, "float16", "black image") == (None, None, "float16", "black image")


@pytest.mark.parametrize("text", ["a\nNegative prompt: b\nSteps: 1, Seed: 2", "<script>alert(1)</script>"])
def test_text_stands_before_the_pixels_so_that_it_is_read_without_decoding(text: str) -> None:
    data = with_text(encode_png(PIXELS), text)
    assert data.index(text.encode()) < data.index(b"IDAT")
