"""The file of an image that was drawn here: PNG with A1111's ``parameters``, and the hash of its pixels. No torch."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.pictures.parameters import Captions
from bench.records import PlannedImage, Render
from bench.store import RunFolder
from bench.suite.planned_images import record_of

PNG_LEVEL = 1
"""zlib level: 6 is 2.5 times as slow for a few percent."""
KEYWORD = "parameters"
HEADER_END = 33
"""Where the first chunk after a PNG's header begins: 8 bytes of signature, 25 of IHDR."""


class PackedImage(NamedTuple):
    """An image as it goes to the run folder, or why there is none."""

    png: bytes | None
    """Pixels alone, without text."""
    pixels_sha256: str | None
    decode_dtype: str
    error: str | None


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """sha256 in hex of 8-bit RGB pixels (h, w, 3): of the line ``<width>x<height> RGB\\n``, then of the rows."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height} RGB\n".encode())
    digest.update(np.ascontiguousarray(pixels, np.uint8).data)
    return digest.hexdigest()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit RGB pixels (h, w, 3); equal pixels give equal bytes with one version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def pack(pixels: NDArray[np.uint8] | None, decode_dtype: str, error: str | None) -> PackedImage:
    """An image that was drawn as it goes to the run folder; the error goes through."""
    if pixels is None:
        return PackedImage(None, None, decode_dtype, error)
    return PackedImage(encode_png(pixels), pixels_sha256(pixels), decode_dtype, error)


def with_text(png: bytes, text: str) -> bytes:
    """The PNG with a text under the keyword ``parameters`` before its pixels: tEXt where Latin-1 has it, else iTXt.

    Source: PNG specification (third edition), 11.3.3.
    """
    keyword = KEYWORD.encode()
    try:
        kind, data = b"tEXt", keyword + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, data = b"iTXt", keyword + b"\0\0\0\0\0" + text.encode()
    checksum = zlib.crc32(kind + data)
    chunk = len(data).to_bytes(4, "big") + kind + data + checksum.to_bytes(4, "big")
    return png[:HEADER_END] + chunk + png[HEADER_END:]


def write_picture(
    folder: RunFolder, captions: Captions | None, variant: str, planned: PlannedImage, image: PackedImage
) -> Render:
    """Write an image with its settings into a run folder; returns its record, which is not in the journal yet.

    Args:
        folder: an open run folder.
        captions: of the run; None writes no settings.
        variant: name of the variant that drew it.
        planned: the image as it was planned.
        image: what was drawn.

    Raises:
        MachineError: the folder cannot be written.
    """
    file = None
    if image.png is not None:
        png = image.png if captions is None else with_text(image.png, captions.of(variant, planned))
        file = folder.write_image(variant, planned.prompt_id, planned.sample, png)
    return record_of(variant, planned, image.decode_dtype, image.error, file, image.pixels_sha256)
