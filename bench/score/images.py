"""From the bytes of an image file to a picture of 8 bits a channel, read by threads. Imports no torch."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from bench.documents import IMAGE_BYTES, read_bytes, sha256_of
from bench.records import Render

MAX_PIXELS = 2**26
"""Most pixels of an image that is decoded (8192 x 8192): a worker's memory stays under 300 MB."""
STILL_FORMATS = ("MPO",)
"""Formats of several pictures of which the first is the photograph, not a frame of an animation."""
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageFileError(Exception):
    """An image file that is not the one that was rendered, or that cannot be scored, as a sentence."""


def decode(data: bytes) -> Image.Image:
    """The picture in its own mode (L, P, RGB, RGBA, CMYK, ...), 8 bits a channel.

    Of 16-bit channels the high byte is kept: Pillow does so with colours on opening; grey is treated alike,
    which Pillow's own conversion would clip to white.

    Raises:
        ImageFileError: an animation, more than ``MAX_PIXELS`` pixels, or 32-bit values, whose white is unknown.
        Exception: as Pillow says, where the bytes are no image or are cut short.
    """
    try:
        opened = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(f"the image has more than {MAX_PIXELS:,} pixels, the most that are read") from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageFileError(
                f"the image is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} in all are read"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in STILL_FORMATS:
            raise ImageFileError(f"the image is an animation of {frames} frames; save one of them as an image")
        image.load()
        if image.mode in DEEP_GREY:
            levels = np.asarray(image).astype(np.uint16)
            return Image.fromarray((levels >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ImageFileError(f"the image has 32-bit values (mode {image.mode}); save it with 8 bits a channel")
        return image


WORKERS = min(8, os.cpu_count() or 1)
"""Threads that read and decode images."""
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_image(folder: Path, render: Render) -> Image.Image:
    """The rendered image in its own mode, 8 bits a channel, after its file's sha256 was seen to be the recorded one."""
    name = str(render.image)
    try:
        data = read_bytes(folder / name, IMAGE_BYTES)
    except FileNotFoundError as error:
        raise ImageFileError(f"image file {name} is missing; restore it or render again") from error
    if sha256_of(data) != render.sha256:
        raise ImageFileError(
            f"image file {name} changed since it was rendered; restore it, or delete it and render again"
        )
    return decode(data)


def stream(
    items: Iterable[Item], load: Callable[[Item], Loaded], ahead: int
) -> Generator[tuple[Item, Loaded | Exception], None, None]:
    """Each item with what ``load`` makes of it, in order, loaded by threads at most ``ahead`` items early.

    An exception of ``load`` is handed on as the item's result: one bad file must not stop the others.
    """

    def attempt(item: Item) -> Loaded | Exception:
        try:
            return load(item)
        except Exception as error:
            return error

    waiting: deque[tuple[Item, Future[Loaded | Exception]]] = deque()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
