"""The pictures of a voting page: encoded anew, so that nothing in a file tells which variant drew it.

Every picture is a WebP of one quality with its own unseen noise of one level, so that one image has other bytes
wherever it is shown. The two of a pair have one size in pixels and one in bytes; nothing of the file that was rendered
is kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UsageError

QUALITY = 90
"""Of the WebP files."""
LARGEST_SIDE_PX, SMALLEST_SIDE_PX = 1536, 256
"""Longest side of a picture: never larger, and not made smaller than this to keep a limit."""
ROUNDED_BYTES = 1024
"""Sizes of files are multiples of this."""
TILES = 8
"""A broken copy is cut into so many rows and columns of tiles."""
_SAMPLE = 8
"""Pairs by which the size of all is estimated."""
_AIM = 0.93
"""Of the limit: so much is aimed at, since the sample may be of smaller pictures than the others."""
_GREY = (128, 128, 128)
_THREADS = 4

Pixels = NDArray[np.uint8]


class PairOfPictures(NamedTuple):
    """How the two pictures of a pair are opened, and what their noise is drawn from."""

    open: Callable[[], tuple[Image.Image, Image.Image]]
    """Both in RGB."""
    broken: int | None
    """0 or 1: which of them is shown as a broken copy."""
    seed: int


class Encoded(NamedTuple):
    """All pictures of a page."""

    files: tuple[tuple[bytes, bytes], ...]
    """Of each pair."""
    longest_side_px: int

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(len(data) for pair in self.files for data in pair)


def encode_all(pairs: Sequence[PairOfPictures], limit_bytes: int, done: Callable[[int], None]) -> Encoded:
    """The files of all pairs, as large as the limit allows.

    Args:
        pairs: at least one.
        limit_bytes: of all files together.
        done: told how many pairs are encoded.

    Raises:
        UsageError: not even pictures of ``SMALLEST_SIDE_PX`` would keep the limit.
    """
    sample = [pairs[place] for place in sorted({round(x) for x in np.linspace(0, len(pairs) - 1, _SAMPLE)})]
    side = min(LARGEST_SIDE_PX, max(max(image.size) for pair in sample for image in pair.open()))
    least = min(side, SMALLEST_SIDE_PX)
    while True:
        some = sum(len(data) for files in _encode(sample, side) for data in files)
        expected = some * len(pairs) / len(sample)
        if expected <= _AIM * limit_bytes:
            found = Encoded(tuple(_counted(_encode(pairs, side), done)), side)
            if found.size_bytes <= limit_bytes:
                return found
            expected = found.size_bytes
        if side <= least:
            raise UsageError(
                f"{len(pairs):,} pairs of pictures take about {expected / 2**20:,.0f} MiB even at {side} px a side; at "
                f"most {limit_bytes / 2**20:,.0f} are allowed.",
                "allow more with --limit-mb, or name fewer pairs of variants with --pairs",
            )
        smaller = side * (_AIM * limit_bytes / expected) ** 0.5
        side = max(least, min(side - 8, int(smaller) // 8 * 8))


def _counted(files: Iterable[tuple[bytes, bytes]], done: Callable[[int], None]) -> Iterable[tuple[bytes, bytes]]:
    for number, pair in enumerate(files, start=1):
        yield pair
        done(number)


def _encode(pairs: Sequence[PairOfPictures], side_px: int) -> Iterable[tuple[bytes, bytes]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(lambda pair: encode_pair(pair, side_px), pairs)


def encode_pair(pair: PairOfPictures, side_px: int) -> tuple[bytes, bytes]:
    """The files of a pair, of one size in pixels and in bytes."""
    rng = np.random.default_rng(pair.seed)
    pixels = [np.asarray(image) for image in of_one_size(*pair.open(), side_px)]
    if pair.broken is not None:
        pixels[pair.broken] = broken_copy(pixels[pair.broken], rng)
    first, second = (_webp(_with_noise(one, rng)) for one in pixels)
    size = -(-max(len(first), len(second)) // ROUNDED_BYTES) * ROUNDED_BYTES
    # What follows the end that a WebP file names is no part of it.
    return first.ljust(size, b"\0"), second.ljust(size, b"\0")


def of_one_size(first: Image.Image, second: Image.Image, side_px: int) -> tuple[Image.Image, Image.Image]:
    """Both in a frame of the smaller width and height of the two, at most ``side_px`` a side, on grey where they differ
    in shape."""
    width, height = (min(ends) for ends in zip(first.size, second.size, strict=True))
    scale = min(1.0, side_px / max(width, height))
    frame = max(1, round(width * scale)), max(1, round(height * scale))
    return _framed(first, frame), _framed(second, frame)


def _framed(image: Image.Image, frame: tuple[int, int]) -> Image.Image:
    if image.size == frame:
        return image
    scale = min(frame[0] / image.width, frame[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image.resize(size, Image.Resampling.LANCZOS)
    if size == frame:
        return resized
    framed = Image.new("RGB", frame, _GREY)
    framed.paste(resized, ((frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2))
    return framed


def broken_copy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A copy that nobody can prefer: its tiles are in another order, and every third of them is inverted."""
    height, width = (side // TILES for side in pixels.shape[:2])
    if not height or not width:
        return 255 - pixels
    copy = pixels.copy()
    places = [(row * height, column * width) for row in range(TILES) for column in range(TILES)]
    for number, source in enumerate(rng.permutation(len(places)).tolist()):
        (y, x), (from_y, from_x) = places[number], places[source]
        tile = pixels[from_y : from_y + height, from_x : from_x + width]
        copy[y : y + height, x : x + width] = 255 - tile if number % 3 == 0 else tile
    return copy


def _with_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Each value moved by at most one of 255 levels, which no eye sees: no two copies of an image have equal bytes."""
    moved = pixels.astype(np.int16) + rng.integers(-1, 2, size=pixels.shape, dtype=np.int16)
    held: Pixels = np.clip(moved, 0, 255).astype(np.uint8)
    return held


def _webp(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()
