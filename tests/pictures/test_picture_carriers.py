"""Where a picture's texts stand in its file, byte by byte, and that no bytes whatever bring a reader down."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from drawn_pictures import (
    MAKE,
    MODEL,
    USER_COMMENT,
    a1111,
    chunk,
    comfy,
    comment,
    encoded,
    exif,
    graph,
    infotext,
    jpeg,
    png,
    text_chunk,
    webp,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.pictures.carriers import MOST_BYTES, comment_text, read_carried
from bench.pictures.read import read_picture
from bench.records import PictureFacts

TEXT = infotext("a fox in the snow")
CYRILLIC = infotext("красный чайник, 水墨")


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt-packed"])
@pytest.mark.parametrize("behind", [False, True])
def test_png_texts_are_read_wherever_they_stand(kind: str, behind: bool) -> None:
    assert read_picture(png({"parameters": TEXT}, kind, behind=behind)).prompt == "a fox in the snow"


@pytest.mark.parametrize("kind", ["iTXt", "iTXt-packed", "tEXt-utf8"])
def test_png_texts_beyond_latin_1(kind: str) -> None:
    found = read_picture(png({"parameters": CYRILLIC}, kind))
    assert found.prompt == "красный чайник, 水墨"
    assert any("is UTF-8" in note for note in found.notes) == (kind == "tEXt-utf8")


def test_latin_1_stays_latin_1() -> None:
    assert read_picture(png({"parameters": infotext("ein Bär, café")})).prompt == "ein Bär, café"


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-16"])
@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("text", [TEXT, CYRILLIC])
@pytest.mark.parametrize("wrap", [jpeg, webp])
def test_a_user_comment_is_read_in_any_order_in_exif_of_any_order(wrap, text: str, big: bool, order: str) -> None:
    assert read_picture(wrap(exif(comment(text, order=order), big=big))).prompt == text.split("\n")[0]


@pytest.mark.parametrize(("code", "order"), [("ASCII", "utf-8"), ("", "utf-8")])
def test_a_user_comment_may_be_of_bytes(code: str, order: str) -> None:
    assert read_picture(jpeg(exif(comment(CYRILLIC, code, order)))).prompt == "красный чайник, 水墨"


def test_a_user_comment_may_lack_its_code_and_stand_in_the_first_folder() -> None:
    assert read_picture(jpeg(exif(TEXT.encode()))).prompt == "a fox in the snow"
    assert read_picture(jpeg(exif(first={USER_COMMENT: comment(TEXT)}))).prompt == "a fox in the snow"
    assert read_picture(webp(exif(first={USER_COMMENT: comment(TEXT)}), marked=False)).prompt == "a fox in the snow"


def test_comfyuis_webp_holds_its_graph_in_make_and_model() -> None:
    first = {MODEL: b"prompt:" + json.dumps(graph()).encode() + b"\0", MAKE: b"workflow:{}\0"}
    found = read_picture(webp(exif(first=first, big=False), marked=False))
    assert (found.program, found.prompt, found.seed) == ("ComfyUI", "a fox", 5)


def test_exif_within_a_png_is_read() -> None:
    data = encoded(1)
    block = exif(comment(TEXT)).removeprefix(b"Exif\0\0")
    assert read_picture(data[:33] + chunk(b"eXIf", block) + data[33:]).prompt == "a fox in the snow"


def test_pillow_agrees_on_where_texts_are(tmp_path) -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", CYRILLIC)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    assert read_carried((tmp_path / "x.png").read_bytes()).texts == {"parameters": CYRILLIC}
    block = Image.Exif()
    block.get_ifd(0x8769)[USER_COMMENT] = comment(CYRILLIC)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.webp", exif=block)
    assert read_carried((tmp_path / "x.webp").read_bytes()).texts == {"UserComment": CYRILLIC}


# What must not be believed.


def test_a_bomb_of_text_is_not_unpacked() -> None:
    body = b"parameters\0\0" + zlib.compress(b"x" * 30_000_000)
    data = encoded(1)
    found = read_picture(data[:33] + chunk(b"zTXt", body) + data[33:])
    assert found.program == "unknown"
    assert "more than 10 MiB" in found.notes[0]


def test_texts_are_bounded_together() -> None:
    chunks = b"".join(text_chunk(f"x{n}", "y" * (MOST_BYTES // 4)) for n in range(6))
    data = encoded(1)
    carried = read_carried(data[:33] + chunks + text_chunk("parameters", TEXT) + data[33:])
    assert sum(map(len, carried.texts.values())) <= MOST_BYTES
    assert carried.notes


def test_megabytes_of_settings_are_read_in_time() -> None:
    for filler in ("x: 1, ", "x", ", ", "x x:", '"', "[", "(", "<lora:"):
        text = infotext("a fox") + ", " + filler * (1_500_000 // len(filler))
        assert read_picture(png({"parameters": text})).seed == 1
        assert read_picture(png({"parameters": infotext(filler * (1_500_000 // len(filler)))})).seed == 1


def test_the_first_of_two_texts_of_one_name_counts() -> None:
    data = png({"parameters": TEXT})
    data = data[:-12] + text_chunk("parameters", infotext("another")) + data[-12:]
    assert read_picture(data).prompt == "a fox in the snow"


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"GIF89a", encoded(1, "PNG")[:20], b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
)
def test_what_is_no_picture_or_says_nothing_cannot_be_told(data: bytes) -> None:
    found = read_picture(data)
    assert found.program == "unknown"
    assert found.prompt is None
    assert found.unknown["prompt"]


SAMPLES = (
    a1111(1, CYRILLIC),
    png({"parameters": TEXT}, "zTXt", behind=True),
    jpeg(exif(comment(TEXT))),
    webp(exif(comment(CYRILLIC, order="utf-16-le"), big=False)),
    comfy(graph()),
    png({"parameters": json.dumps({"sui_image_params": {"prompt": "a fox", "seed": 1}})}),
    png({"parameters": json.dumps({"base_model": "x", "full_prompt": ["a"], "loras": [["a", 1, "b"]]})}),
    png({"invokeai_metadata": json.dumps({"positive_prompt": "a", "model": {"name": "x"}, "loras": []})}),
    png({"Software": "NovelAI", "Description": "a fox", "Comment": '{"seed": 1}'}),
)


def sound(found: PictureFacts) -> None:
    """Every field is a value or has a reason, and the record can be written down."""
    assert msgspec.json.decode(msgspec.json.encode(found), type=PictureFacts) == found
    for field in ("prompt", "negative", "seed", "steps", "sampler", "cfg", "size", "model", "loras"):
        assert (getattr(found, field) is None) == (field in found.unknown)


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=300, deadline=None)
def test_no_bytes_whatever_bring_a_reader_down(sample: bytes, data: st.DataObject) -> None:
    changed = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        changed = changed or bytearray(b"\0")
    sound(read_picture(bytes(changed)))


@given(st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_text_whatever_brings_a_reader_down(text: str) -> None:
    encodable = text.encode("utf-8", "replace").decode().replace("\0", "")
    for lines in (encodable, f"{encodable}\nSteps: 1, Seed: 2, CFG scale: 3, {encodable}"):
        sound(read_picture(png({"parameters": lines}, "iTXt")))


@given(st.text(max_size=80), st.booleans())
def test_utf_16_with_latin_letters_is_read_in_either_order(text: str, big: bool) -> None:
    words = "Steps: 20, Sampler: Euler a, " + text.encode("utf-16", "replace").decode("utf-16").replace("\0", "")
    words = words.replace("\ufeff", "").replace("\ufffe", "")
    for order in ("utf-16-be", "utf-16-le"):
        raw = words.encode(order)
        if raw[::2].count(0) != raw[1::2].count(0):
            assert comment_text(b"UNICODE\0" + raw, big) == words
