"""Puts drawn batches on the disk: PNGs by a few threads, then the batch's records at once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.cells import record_of
from bench.records import Cell, Render
from bench.render.draw import Drawn
from bench.store import RunFolder

PNG_LEVEL = 1
"""zlib level: 6 is 2.5 times as slow for a few percent."""


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit RGB pixels (h, w, 3); equal pixels give equal bytes with one version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def write_batch(
    pool: Executor, folder: RunFolder, variant: str, cells: Sequence[Cell], drawn: Sequence[Drawn]
) -> tuple[Render, ...]:
    """Write a batch's images, and when all are on the disk append its records."""

    def write(cell: Cell, pixels: NDArray[np.uint8]) -> tuple[str, str]:
        return folder.write_image(variant, cell.case, cell.sample, encode_png(pixels))

    files = [
        None if image.pixels is None else pool.submit(write, cell, image.pixels)
        for cell, image in zip(cells, drawn, strict=True)
    ]
    records = tuple(
        record_of(variant, cell, image.decode_dtype, image.error, None if file is None else file.result())
        for cell, image, file in zip(cells, drawn, files, strict=True)
    )
    folder.append_renders(records)
    return records
