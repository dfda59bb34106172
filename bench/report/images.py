"""Images of a run as data URIs: small ones as they are, large ones as WebP thumbnails, within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench.records import Render, Run

MAX_SIDE_PX = 640
"""Longest side of an embedded image; a larger one is scaled down to it."""
MAX_ROWS = 200
"""Rows (a prompt's sample across all variants) whose images are embedded."""
MAX_BYTES = 32 * 2**20
"""Bytes of image data that one report embeds."""
_AS_IT_IS_BYTES = 64 * 2**10

Key = tuple[str, str, int]
"""(variant, case id, sample)."""


@dataclass(frozen=True)
class Picture:
    """An embedded image: its data URI, its size as rendered, and whether it is a reduced copy."""

    uri: str
    width_px: int
    height_px: int
    reduced: bool


def picture(path: Path, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """The image at ``path``: the PNG's own bytes when small, else WebP with at most ``max_side_px`` a side.

    Raises OSError when the file is missing or is no image.
    """
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if max(width, height) <= max_side_px and len(data) <= _AS_IT_IS_BYTES:
            image.verify()
            return Picture(_uri(Image.MIME[image.format or "PNG"], data), width, height, reduced=False)
        copy = image.convert("RGB")
        copy.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        copy.save(buffer, "WEBP", quality=82, method=4)
    return Picture(_uri("image/webp", buffer.getvalue()), width, height, reduced=True)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def embed(run: Run, rows: Sequence[tuple[str, int]]) -> tuple[Mapping[Key, Picture], Mapping[Key, str]]:
    """Pictures of ``rows`` (case, sample), whole rows in order until a limit is met, and what is broken.

    The second mapping names the files that the journal lists but that cannot be read, with the reason.
    """
    renders = {(one.variant, one.case, one.sample): one for one in run.renders if one.image is not None}
    variants = [variant.name for variant in run.info.variants]
    found: dict[Key, Picture] = {}
    broken: dict[Key, str] = {}
    size = 0
    for case, sample in rows[:MAX_ROWS]:
        for key in ((variant, case, sample) for variant in variants):
            render = renders.get(key)
            if render is not None:
                _add(Path(run.path), render, key, found, broken)
        size += sum(len(found[name, case, sample].uri) for name in variants if (name, case, sample) in found)
        if size > MAX_BYTES:
            break
    return found, broken


def _add(folder: Path, render: Render, key: Key, found: dict[Key, Picture], broken: dict[Key, str]) -> None:
    try:
        found[key] = picture(folder / str(render.image))
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG chunk as a SyntaxError
        broken[key] = f"The file {render.image} cannot be read: {type(error).__name__}."


def link(image: str) -> str:
    """The relative address of an image of the run folder, percent-encoded for ``href`` and ``src``."""
    return quote(image)
