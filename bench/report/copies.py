"""Small copies of a run's images: made once, by threads, and kept for every page of the run.

They lie in ``page/small`` of the run folder, where the page as a folder shows them. A copy is named by the sha256 of
its image's file, its longest side and its quality, so that no name ever stands for something else. They can be deleted
at any time, and are made again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench import documents
from bench.records import Run
from bench.score.images import open_picture, shown_size
from bench.store.journal import SMALL, make_folder, write_whole

EMBEDDED_PX = 640
"""Longest side of an image in ``report.html``; a larger one is scaled down to it."""
LISTED_PX = {4: 384, 6: 256, 1000: 192}
"""Longest side of the copies in the list of the page as a folder by the most variants that it holds for: of many, the
cells are narrower."""
QUALITY = 82
"""Of WebP by its method 2, which takes half of the time of 4 for files that are 4 % larger."""


def small_copy(image: bytes, sha256: str, side_px: int, run_path: Path, folder: Path | None) -> tuple[bytes, int, int]:
    """The small copy of an image, made where neither ``folder`` nor the run folder has it, and the image's size.

    Args:
        image: the bytes of its file.
        sha256: theirs.
        side_px: longest side of the copy.
        run_path: the run folder.
        folder: where the copy is kept; None writes nothing.

    Returns:
        The copy as WebP; width and height of the image as it is shown, in pixels.

    Raises:
        ImageFileError: it is not an image that can be scored.
        MachineError: the copy cannot be written.
    """
    name = copy_name(sha256, side_px)
    found = None if folder is None else _read(folder / name)
    if found is not None:  # the image was opened and found whole when its copy was made
        return found, *shown_size(image)
    found = _read(run_path / SMALL / name)
    if found is None:
        opened = open_picture(image, side_px)
        found, size = _webp(opened.image, side_px), opened.size
    else:
        size = shown_size(image)
    if folder is not None:
        make_folder(folder)
        write_whole(folder / name, found)
    return found, *size


def copy_name(sha256: str, side_px: int) -> str:
    """The name of a copy's file."""
    return f"{sha256[:20]}-{side_px}-q{QUALITY}.webp"


def names_of(run: Run) -> list[str]:
    """The names of all copies that pages of a run may show."""
    sides = (EMBEDDED_PX, *LISTED_PX.values())
    return [copy_name(one.sha256, side) for one in run.renders if one.sha256 is not None for side in sides]


def remove_others(folder: Path, kept: Sequence[str], side_px: int | None = None) -> None:
    """Take away the copies that are not among these, of one side or of any."""
    wanted = set(kept)
    for path in folder.glob("*.webp" if side_px is None else copy_name("*", side_px)):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return documents.read_bytes(path, documents.IMAGE_BYTES)
    except OSError:  # not made yet, or deleted
        return None


def _webp(image: Image.Image, side_px: int) -> bytes:
    # A palette cannot be resized; any other picture is made small first, which takes the least memory.
    copy = image if image.mode in ("L", "RGB", "RGBA", "CMYK") else image.convert("RGB")
    copy.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    copy.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
