"""Image files of every kind: their own mode is kept, and what cannot be judged says so."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fake_metrics import FakeMetrics, nulls, put_image, rendered, values
from PIL import Image

from bench.score import score
from bench.score.images import MAX_PIXELS, ImageFileError, decode

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_mode_of_8_bits_is_kept_as_it_is(mode: str) -> None:
    drawn = Image.fromarray((RAMP / 257).astype(np.uint8)).convert("RGBA").convert(mode)
    found = decode(encode(drawn))
    assert found.mode == mode
    np.testing.assert_array_equal(np.asarray(found), np.asarray(drawn))


def test_cmyk_is_kept_for_the_encoder_to_convert() -> None:
    assert decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).mode == "CMYK"


def test_16_bit_grey_keeps_its_high_byte() -> None:
    found = decode(encode(Image.fromarray(RAMP.astype(np.uint16))))
    assert found.mode == "L"
    np.testing.assert_array_equal(np.asarray(found), RAMP.astype(np.uint16) // 256)


@pytest.mark.parametrize(("kind", "values_of"), [("I", np.int32), ("F", np.float32)])
def test_32_bit_values_are_refused(kind: str, values_of: type) -> None:
    data = encode(Image.fromarray(RAMP.astype(values_of)), "TIFF")
    with pytest.raises(ImageFileError, match=rf"32-bit values \(mode {kind}\)"):
        decode(data)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused_and_one_frame_is_none(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFileError, match="animation of 3 frames"):
        decode(data)
    assert decode(encode(frames[0], kind)).size == (16, 16)


def test_a_photograph_with_a_thumbnail_is_no_animation() -> None:
    large, small = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (16, 12), "blue")
    found = decode(encode(large, "MPO", save_all=True, append_images=[small]))
    assert (found.size, found.convert("RGB").getpixel((5, 5))[0] > 200) == ((64, 48), True)


def test_one_pixel_and_20000_in_a_row_are_read() -> None:
    assert decode(encode(Image.new("RGB", (1, 1)))).size == (1, 1)
    assert decode(encode(Image.new("L", (20_000, 3)))).size == (20_000, 3)


@pytest.mark.parametrize("size", [(MAX_PIXELS // 4096 + 1, 4096), (20_000, 20_000)])
def test_more_pixels_than_are_read_is_a_sentence(size: tuple[int, int]) -> None:
    data = bytearray(encode(Image.new("1", (1, 1))))
    header = bytearray(b"IHDR" + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + data[24:29])
    import zlib

    data[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
    with pytest.raises(ImageFileError, match=f"{MAX_PIXELS:,}"):
        decode(bytes(data))


@pytest.mark.parametrize("data", [b"", b"not an image", encode(Image.fromarray(RAMP.astype(np.uint16)))[:200]])
def test_what_is_no_whole_image_raises(data: bytes) -> None:
    with pytest.raises((OSError, SyntaxError)):
        decode(data)


def test_odd_files_in_a_run_are_nulls_or_scores_and_cost_no_other(tmp_path: Path) -> None:
    odd = {
        "case-000": encode(Image.new("RGB", (1, 1), (9, 200, 30))),
        "case-001": encode(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        "case-002": encode(Image.new("CMYK", (70, 40), (10, 200, 90, 0)), "JPEG"),
        "case-003": b"",
    }
    with rendered(tmp_path, metrics=("saturation", "alignment"), prompts=5) as folder:
        for prompt_id, data in odd.items():
            put_image(folder, ("dpo", prompt_id, 0), data)
        score(folder, registry=FakeMetrics().registry)
        for name in ("saturation", "alignment"):
            assert {key[1] for key in nulls(folder, name)} == {"case-001", "case-003"}
            assert "32-bit" in str(nulls(folder, name)["dpo", "case-001", 0])
        assert values(folder)["dpo", "case-002", 0, "saturation"] is not None
