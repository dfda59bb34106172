"""From the bytes of an image file to a picture of 8 bits a channel, in the mode that the file has.

Nothing becomes RGB here: the official codes of the metrics differ in whether they resize before or after.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MAX_PIXELS = 2**26
"""Most pixels of an image that is decoded (8192 x 8192): a worker's memory stays under 300 MB."""
STILL_FORMATS = ("MPO",)
"""Formats of several pictures of which the first is the photograph and no frame of an animation."""
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageFileError(Exception):
    """An image file that is not the one that was rendered, or that cannot be judged, as a sentence."""


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
        return _eight_bit(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_GREY:
        levels = np.asarray(image).astype(np.uint16)
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageFileError(f"the image has 32-bit values (mode {image.mode}); save it with 8 bits a channel")
    return image
