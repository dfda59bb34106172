"""Image files of every kind: their own mode is kept, and what cannot be judged says so."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from fake_metrics import FakeMetrics, nulls, put_image, rendered, values
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngImageFile, PngInfo

from bench.report.pictures import picture
from bench.score import score
from bench.score.images import (
    MAX_PIXELS,
    ON_WHITE,
    PIXELS_AHEAD,
    TURNED,
    ImageFileError,
    decode,
    header_pixels,
    open_picture,
    refuse_missing_pixels,
    shown_size,
    stream,
)

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


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "EPS", "DDS", "PPM"])
def test_a_file_of_another_kind_is_never_opened(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", (16, 16), "red"), kind)
    monkeypatch.setattr("bench.score.images.OPENERS", {})
    with pytest.raises(ImageFileError, match="not a PNG, JPEG or WebP file by its content"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
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
    data[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
    with pytest.raises(ImageFileError, match=f"{MAX_PIXELS:,}"):
        decode(bytes(data))


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("data", [b"", b"not an image", encode(Image.fromarray(RAMP.astype(np.uint16)))[:200]])
def test_what_is_no_whole_image_raises(data: bytes) -> None:
    with pytest.raises(ImageFileError):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused(kind: str, share: float) -> None:
    data = encode(NOISE, kind)
    with pytest.raises(ImageFileError, match="not a whole image"):
        decode(data[: int(share * len(data))])


def judge(data: bytes) -> None:
    """As a file is when it is given: decoded, and looked through for pixels that lack."""
    decode(data)
    refuse_missing_pixels(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}])
@pytest.mark.parametrize("image", [NOISE, Image.linear_gradient("L"), NOISE.convert("CMYK")])
def test_a_jpeg_whose_data_ends_early_is_refused_though_it_has_its_end(
    image: Image.Image, options: dict[str, object]
) -> None:
    data = encode(image, "JPEG", **options)
    for whole in (data, data + b"more", encode(image, "MPO", save_all=True, append_images=[NOISE])):
        judge(whole)
    for share in (0.7, 0.95):
        cut = data[: int(share * len(data))].removesuffix(b"\xff") + b"\xff\xd9"
        with pytest.raises(ImageFileError, match="not a whole image"):
            judge(cut)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(("depth", "colour", "samples"), [(8, 2, 3), (8, 6, 4), (1, 0, 1), (16, 0, 1), (4, 3, 1)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_whose_pixels_end_early_is_refused_though_its_chunks_are_whole(
    depth: int, colour: int, samples: int, interlaced: int
) -> None:
    width, height = 13, 11
    passes = [(0, 0, 1, 1)]
    if interlaced:  # as the PNG specification draws its seven passes
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    size = 0
    for x, y, right, down in passes:
        columns, rows = len(range(x, width, right)), len(range(y, height, down))
        size += rows * (1 + (columns * depth * samples + 7) // 8) if columns else 0
    palette = chunk(b"PLTE", bytes(48)) if colour == 3 else b""

    def png(pixels: bytes) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
        middle = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(pixels))
        return b"\x89PNG\r\n\x1a\n" + middle + chunk(b"IEND", b"")

    with Image.open(io.BytesIO(png(bytes(size)))) as whole:
        whole.load()
    refuse_missing_pixels(png(bytes(size)))
    for kept in (size - 1, size // 2):
        with pytest.raises(ImageFileError, match="not a whole image: it ends after"):
            refuse_missing_pixels(png(bytes(kept)))


TRANSPARENT = Image.merge("RGBA", [*NOISE.split(), Image.linear_gradient("L").resize(NOISE.size)])


def on_white(image: Image.Image) -> np.ndarray:
    levels = np.asarray(image.convert("RGBA"), np.float64)
    alpha = levels[..., 3:] / 255.0
    return levels[..., :3] * alpha + 255.0 * (1.0 - alpha)


def keyed(mode: str) -> bytes:
    """A picture of which one colour is named as transparent."""
    image = NOISE.convert("L").quantize(8) if mode == "P" else NOISE.convert(mode)
    first = image.getpixel((0, 0))
    return encode(image, transparency=first if mode != "P" else int(first))


@pytest.mark.parametrize(
    "data",
    [encode(TRANSPARENT), encode(TRANSPARENT.convert("LA")), keyed("P"), keyed("L"), keyed("RGB")],
    ids=["RGBA", "LA", "P", "L", "RGB"],
)
def test_a_transparent_picture_is_judged_and_shown_on_white(data: bytes) -> None:
    opened = open_picture(data)
    assert (opened.image.mode, opened.notes, opened.is_plain) == ("RGB", (ON_WHITE,), False)
    with Image.open(io.BytesIO(data)) as stored:
        np.testing.assert_allclose(np.asarray(opened.image), on_white(stored), atol=1.01)
    shown = picture(data)
    with Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1]))) as copy:
        means = [np.asarray(one.convert("RGB"), np.float64).mean(axis=(0, 1)) for one in (copy, opened.image)]
        np.testing.assert_allclose(*means, atol=5)
        assert not copy.has_transparency_data


def test_colours_that_nobody_sees_decide_nothing() -> None:
    hidden = np.asarray(TRANSPARENT).copy()
    hidden[..., :3][hidden[..., 3] == 0] = 7
    np.testing.assert_array_equal(np.asarray(decode(encode(Image.fromarray(hidden)))), decode(encode(TRANSPARENT)))
    hidden[..., 3] = 0
    with pytest.raises(ImageFileError, match="every pixel of the image is transparent"):
        decode(encode(Image.fromarray(hidden)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_its_exif_orientation_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(NOISE, kind, exif=exif)
    opened = open_picture(data)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(np.asarray(opened.image), np.asarray(upright))
    assert opened.size == upright.size == shown_size(data)
    assert opened.notes == ((TURNED,) if orientation > 1 else ())
    assert picture(data).uri.startswith("data:image/webp") == (orientation > 1 or kind == "WEBP")


def test_16_bit_grey_is_shown_as_it_is_scored() -> None:
    shown = picture(encode(Image.fromarray(RAMP.astype(np.uint16))))
    with Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1]))) as copy:
        assert np.abs(np.asarray(copy.convert("L"), np.float64) - RAMP / 256).max() < 12


def test_a_large_photograph_is_shown_without_decoding_all_of_it() -> None:
    data = encode(Image.linear_gradient("L").convert("RGB").resize((4000, 3000)), "JPEG")
    assert open_picture(data, 640).image.size == (1000, 750)
    shown = picture(data)
    assert (shown.width_px, shown.height_px, shown.reduced) == (4000, 3000, True)


def test_odd_files_in_a_run_are_nulls_or_scores_and_cost_no_other(tmp_path: Path) -> None:
    odd = {
        "case-000": encode(Image.new("RGB", (1, 1), (9, 200, 30))),
        "case-001": encode(TRANSPARENT.point(lambda level: 0)),
        "case-002": encode(Image.new("CMYK", (70, 40), (10, 200, 90, 0)), "JPEG"),
        "case-003": b"",
    }
    with rendered(tmp_path, metrics=("saturation", "alignment"), prompts=5) as folder:
        for prompt_id, data in odd.items():
            put_image(folder, ("dpo", prompt_id, 0), data)
        score(folder, registry=FakeMetrics().registry)
        for name in ("saturation", "alignment"):
            assert {key[1] for key in nulls(folder, name)} == {"case-001", "case-003"}
            assert "transparent" in str(nulls(folder, name)["dpo", "case-001", 0])
        assert values(folder)["dpo", "case-002", 0, "saturation"] is not None


def test_large_images_are_not_loaded_early_and_small_ones_are() -> None:
    started: list[int] = []
    for count, (item, _) in enumerate(stream(range(6), started.append, 8, lambda item: PIXELS_AHEAD), 1):
        assert (item, len(started) <= count) == (count - 1, True)
    started.clear()
    small = stream(range(6), started.append, 3, lambda item: 1)
    next(small)
    end = time.monotonic() + 10.0
    while len(started) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    small.close()
    assert sorted(started) == [0, 1, 2, 3]


def test_the_size_of_a_file_is_read_from_its_header(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        (tmp_path / "a").write_bytes(encode(NOISE, kind))
        assert header_pixels(tmp_path / "a") == 48 * 64
    (tmp_path / "a").write_bytes(encode(NOISE, "GIF"))
    assert header_pixels(tmp_path / "a") == header_pixels(tmp_path / "gone") == 0


def test_the_size_of_a_png_is_known_without_its_pixels_unless_something_may_turn_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exif, xmp = Image.Exif(), PngInfo()
    exif[ExifTags.Base.Orientation] = 6
    described = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
    xmp.add_itxt("XML:com.adobe.xmp", f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><Description {described}/></x:xmpmeta>')
    plain, turned, said = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image = Image.new("RGB", (30, 20), "red")
    image.save(plain, "PNG")
    image.save(turned, "PNG", exif=exif)
    image.save(said, "PNG", pnginfo=xmp)
    for file in (turned, said):
        assert shown_size(file.getvalue()) == open_picture(file.getvalue()).size == (20, 30)
    monkeypatch.setattr(PngImageFile, "load", None)
    assert shown_size(plain.getvalue()) == (30, 20)
