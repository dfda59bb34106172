"""From the bytes of an image file to a picture of 8 bits a channel, read by threads. Imports no torch.

``open_picture`` is the only place that opens an image file, for scores and for the report, so that what is shown is
what is scored. A file is what its first bytes say, and only PNG, JPEG and WebP are opened: Pillow hands files of other
kinds to other programs (PostScript to Ghostscript) or to decoders that few people look after.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bench.documents import IMAGE_BYTES, open_plain, read_bytes, sha256_of
from bench.records import Render

MAX_PIXELS = 2**26
"""Most pixels of an image that is decoded (8192 x 8192): a worker's memory stays under 600 MB."""
PIXELS_AHEAD = 2**26
"""Most pixels of the images that are loaded early, together."""
OPENERS: dict[str, Callable[[IO[bytes]], ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
}
"""Pillow's readers of the formats. A JPEG with more pictures behind it (MPO) is its first one, the photograph."""
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
ON_WHITE = "transparent pixels are judged on white"
TURNED = "it is turned as its EXIF orientation says"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and its steps between columns and rows."""
_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)
"""What brings a picture of each EXIF orientation upright; 5 to 8 exchange width and height."""
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"adobe.xmp")
"""One of these is in the bytes of every PNG file that says an orientation."""


class ImageFileError(Exception):
    """An image file that is not the one that was rendered, or that cannot be scored, as a sentence."""


class OpenedPicture(NamedTuple):
    """What an image file shows."""

    image: Image.Image
    """In its own mode (L, P, RGB, RGBA, CMYK, ...), 8 bits a channel; no pixel of it is transparent."""
    size: tuple[int, int]
    """Width and height in pixels, also where the image is a smaller copy."""
    kind: str
    """Pillow's name of the format: PNG, JPEG or WEBP."""
    notes: tuple[str, ...]
    """How it differs from the stored pixels, as ``ON_WHITE`` and ``TURNED``; empty for most files."""
    is_plain: bool
    """Whether a browser shows the same pixels of the file itself."""


def webp_copy(opened: OpenedPicture, max_side_px: int, *, lossless: bool = False) -> bytes:
    """A picture as WebP of at most ``max_side_px`` a side; ``opened`` may be used up."""
    # A palette cannot be resized; any other picture is made small first, which takes the least memory.
    copy = opened.image if opened.image.mode in ("L", "RGB", "RGBA", "CMYK") else opened.image.convert("RGB")
    copy.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    copy.convert("RGB").save(buffer, "WEBP", quality=82, method=4, lossless=lossless)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """The picture alone; arguments and errors as ``open_picture``."""
    return open_picture(data).image


def open_picture(data: bytes, max_side_px: int | None = None) -> OpenedPicture:
    """The picture of an image file as a viewer shows it: on white where it is transparent, turned as EXIF says.

    Of 16-bit channels the high byte is kept: Pillow does so with colours on opening; grey is treated alike,
    which Pillow's own conversion would clip to white.

    Args:
        data: the file's bytes.
        max_side_px: a copy of this size is wanted: a larger JPEG is decoded at an eighth, a quarter or a half of its
            size, whichever is still as large as this. None decodes every pixel.

    Raises:
        ImageFileError: another kind of file, a damaged one, an animation, more than ``MAX_PIXELS`` pixels, 32-bit
            values, whose white is unknown, or no pixel that is not transparent.
    """
    kind = kind_of(data)
    try:
        with OPENERS[kind](io.BytesIO(data)) as image:
            _refuse_unusable(image)
            size = image.size
            if max_side_px is not None:
                image.draft(None, (max_side_px, max_side_px))
            return _shown(image, size)
    except (ImageFileError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise ImageFileError(f"it is not a whole image ({type(error).__name__})") from error


def shown_size(data: bytes) -> tuple[int, int]:
    """Width and height as ``open_picture`` gives them, by the header alone, of a file that it has opened before.

    Raises:
        ImageFileError: another kind of file, or a damaged header.
    """
    try:
        kind = kind_of(data)
        with OPENERS[kind](io.BytesIO(data)) as image:
            if kind == "PNG" and not any(mark in data for mark in _PNG_EXIF):
                return image.size  # Pillow would decode all pixels to look for EXIF behind them
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except ImageFileError:
        raise
    except Exception as error:  # as in open_picture
        raise ImageFileError(f"it is not a whole image ({type(error).__name__})") from error


def kind_of(data: bytes) -> str:
    """PNG, JPEG or WEBP, by the first bytes of a file; ImageFileError for any other."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise ImageFileError("it is not a PNG, JPEG or WebP file by its content" if data else "it is empty")


def refuse_missing_pixels(data: bytes) -> None:
    """Refuse a PNG or JPEG whose compressed pixels end early, though the file has its end: Pillow invents the others.

    Raises:
        ImageFileError: fewer pixels than the header asks for, or damaged ones.
    """
    kind = kind_of(data)
    if kind == "PNG":
        _refuse_short_png(data)
    if kind == "JPEG" and _is_short_jpeg(data):
        raise ImageFileError("it is not a whole image: its data ends before its last pixels")


def _is_short_jpeg(data: bytes) -> bool:
    # libjpeg skips bytes between the last pixels and the marker of the end, but takes them for pixels that lack.
    end = data.rfind(b"\xff\xd9")
    padded = data[:end] + bytes((73 * n + 41) % 255 for n in range(1024)) + data[end:]
    try:
        with JpegImageFile(io.BytesIO(data)) as stored, JpegImageFile(io.BytesIO(padded)) as again:
            return sha256_of(stored.tobytes()) != sha256_of(again.tobytes())
    except Exception:  # as in open_picture; the file itself was decoded before
        return True


def _refuse_short_png(data: bytes) -> None:
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // right), -(-(height - y) // down)) for x, y, right, down in passes]
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    found = 0
    unpack = zlib.decompressobj()
    try:
        for part in _png_pixels(data):
            while part and found < wanted:
                found += len(unpack.decompress(part, 2**20))
                part = unpack.unconsumed_tail
    except zlib.error as error:
        raise ImageFileError("it is not a whole image (its compressed pixels are damaged)") from error
    if found < wanted:
        raise ImageFileError(f"it is not a whole image: it ends after {found / wanted:.0%} of its rows")


def _png_pixels(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + size]
        at += 12 + size


def _refuse_unusable(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageFileError(
            f"the image is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} in all are read"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageFileError(f"the image is an animation of {frames} frames; save one of them as an image")
    if image.mode in ("I", "F"):
        raise ImageFileError(f"the image has 32-bit values (mode {image.mode}); save it with 8 bits a channel")


def _shown(image: Image.Image, size: tuple[int, int]) -> OpenedPicture:
    """The loaded picture without transparency and orientation."""
    image.load()
    kind, notes, shown = str(image.format), [], image
    if image.mode in DEEP_GREY:
        if image.has_transparency_data:
            raise ImageFileError("it is 16-bit grey with a transparent level; save it with 8 bits a channel")
        shown = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        least, most = rgba.getchannel("A").getextrema()
        if most == 0:
            raise ImageFileError("every pixel of the image is transparent; save it on a background")
        if least != 255:
            shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
            notes.append(ON_WHITE)
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in _TURNS:
        shown = shown.transpose(_TURNS[orientation])
        size = size if orientation < 5 else size[::-1]
        notes.append(TURNED)
    return OpenedPicture(shown, size, kind, tuple(notes), shown is image and "icc_profile" not in image.info)


WORKERS = min(8, os.cpu_count() or 1)
"""Threads that read and decode images."""
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_image(folder: Path, render: Render) -> Image.Image:
    """The rendered image in its own mode, 8 bits a channel; errors as ``read_picture``."""
    return read_picture(folder, render).image


def read_picture(folder: Path, render: Render, max_side_px: int | None = None) -> OpenedPicture:
    """The rendered image, after its file's sha256 was seen to be the recorded one; arguments as ``open_picture``.

    Raises:
        ImageFileError: the file is missing or another one; and what ``open_picture`` refuses.
    """
    return open_picture(image_bytes(folder, render), max_side_px)


def image_bytes(folder: Path, render: Render) -> bytes:
    """The file of a rendered image; ImageFileError where it is missing or not the recorded one."""
    name = str(render.image)
    try:
        data = read_bytes(folder / name, IMAGE_BYTES)
    except FileNotFoundError as error:
        raise ImageFileError(f"image file {name} is missing; restore it or {_again(render)}") from error
    if sha256_of(data) != render.sha256:
        raise ImageFileError(
            f"image file {name} changed since it was {'given' if render.seed is None else 'rendered'}; "
            f"restore it, or delete it and {_again(render)}"
        )
    return data


def _again(render: Render) -> str:
    # Only images that were given have no seed.
    return "repeat `score --images`" if render.seed is None else "render again"


def header_pixels(path: Path) -> int:
    """Width times height of an image file by its header; 0 where it has none that can be read."""
    try:
        with open_plain(path) as file:
            kind = kind_of(file.read(12))
            file.seek(0)
            with OPENERS[kind](file) as image:
                return image.width * image.height
    except Exception:  # whatever is wrong with the file is said where it is decoded
        return 0


def stream(
    items: Iterable[Item], load: Callable[[Item], Loaded], ahead: int, pixels: Callable[[Item], int] = lambda item: 0
) -> Generator[tuple[Item, Loaded | Exception], None, None]:
    """Each item with what ``load`` makes of it, in order, loaded by threads at most ``ahead`` items early.

    An exception of ``load`` is handed on as the item's result: one bad file must not stop the others. Items of
    together more than ``PIXELS_AHEAD`` pixels wait for each other, which bounds the memory that large images take.
    """

    def attempt(item: Item) -> Loaded | Exception:
        try:
            return load(item)
        except Exception as error:
            return error

    waiting: deque[tuple[Item, int, Future[Loaded | Exception]]] = deque()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                size = pixels(item)
                while waiting and (len(waiting) > ahead or sum(one[1] for one in waiting) + size > PIXELS_AHEAD):
                    first, _, future = waiting.popleft()
                    yield first, future.result()
                waiting.append((item, size, pool.submit(attempt, item)))
            for first, _, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
