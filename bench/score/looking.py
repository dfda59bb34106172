"""A look at image files from anywhere, before they are judged: which can be, and why others cannot.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.metrics.tripwires import broken
from bench.records import Progress
from bench.score.decode import ImageFileError, decode

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}
"""By Pillow's name of the format, how a file of it is called in a run folder."""
WORKERS = min(8, os.cpu_count() or 1)


class Seen(NamedTuple):
    """What a look at an image file found."""

    sha256: str
    size: tuple[int, int] | None
    """Width and height in pixels; None with ``error``."""
    suffix: str
    error: str | None


def look_at_all(files: Sequence[Path], progress: Progress | None) -> list[Seen]:
    """What ``look_at`` finds of each file, in their order; ``progress`` is told ``("read", files seen, files)``."""
    seen: list[Seen] = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="read") as pool:
        for found in pool.map(look_at, files):
            seen.append(found)
            if progress is not None:
                progress("read", len(seen), len(files))
    return seen


def look_at(path: Path) -> Seen:
    """Whether a file is an image that can be judged: decoded whole, and neither black nor uniform."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Seen("", None, "", f"the file {path.name} cannot be read: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    if not data:
        return Seen(digest, None, "", f"the file {path.name} is empty")
    try:
        image = decode(data)
        suffix = _suffix(data)
        reason = broken(np.asarray(image.convert("RGB")), image.width, image.height)
    except ImageFileError as error:
        return Seen(digest, None, "", f"{path.name}: {error}")
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        return Seen(digest, None, "", f"the file {path.name} is no whole image: {type(error).__name__}")
    if reason is not None:
        return Seen(digest, None, "", f"{path.name}: {reason}")
    return Seen(digest, image.size, suffix, None)


def _suffix(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in SUFFIX:
            raise ImageFileError(f"the image is {image.format}, not PNG, JPEG or WebP")
        return SUFFIX[image.format]
