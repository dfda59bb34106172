"""Whether the image files of a run folder are those that its records name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.documents import sha256_of
from bench.records import Render

THREADS = min(8, os.cpu_count() or 1)
"""How many files are read and hashed at a time."""


class Differing(NamedTuple):
    """Records whose image file is not the one that was written; those without an image are not among them."""

    changed: tuple[Render, ...]
    """The file has another sha256, or cannot be read."""
    gone: tuple[Render, ...]
    """There is no file."""


def differing_images(folder: Path, renders: Iterable[Render]) -> Differing:
    """Read every image that these records name and compare its sha256 with the record's."""
    named = [(render, folder / render.image) for render in renders if render.image is not None]
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(zip(named, threads.map(_hash, [path for _, path in named]), strict=True))
    return Differing(
        changed=tuple(render for (render, path), sha256 in found if path.exists() and sha256 != render.sha256),
        gone=tuple(render for (render, path), _ in found if not path.exists()),
    )


def _hash(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
