"""A run's pictures, each read, checked and decoded once, however many passes look at it. Imports no torch.

Passes come one after another, since only one encoder is in memory at a time, and each of them needs all pictures. What
the first one decodes is put aside as plain bytes in a nameless file of the run folder, from which later ones take it.
``docs/design/scoring.md`` says why, and what else was thought of.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil
from PIL import Image

from bench.records import Render
from bench.score.images import header_pixels, read_image

SHARE = 4
"""Of the disk's free space and of the memory that is free, a quarter may be taken: the system keeps the file in memory
that nobody else wants, and writes what does not fit to the disk, at the disk's pace."""


class _Kept(NamedTuple):
    """Where a decoded picture lies in the file, and what it is."""

    offset: int
    length: int
    mode: str
    size: tuple[int, int]
    palette: bytes | None
    """RGB levels of the mode P."""


class DecodedPictures:
    """The pictures of one ``score``; ``read`` may be called by several threads at once.

    A picture is as ``bench.score.images.read_image`` gives it, in its own mode. Its file is read and checked when it
    is decoded; what is done to the file after that is seen by the next ``score``.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        """Keep at most ``limit_bytes``, by default a quarter of what is free; pictures beyond are decoded each time."""
        self._folder = folder
        free = min(shutil.disk_usage(folder).free, psutil.virtual_memory().available)
        self._left = free // SHARE if limit_bytes is None else limit_bytes
        self._end = 0
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 -- closed by __exit__
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def read(self, render: Render) -> Image.Image:
        """The rendered image, which must not be changed; errors as ``read_image``."""
        kept = self._kept.get(str(render.sha256))
        image = None if kept is None else self._restored(kept)
        if image is None:
            image = read_image(self._folder, render)
            self._keep(str(render.sha256), image)
        return image

    def pixels(self, render: Render) -> int:
        """Width times height, by the file's header where the picture is not decoded yet; 0 where it has none."""
        kept = self._kept.get(str(render.sha256))
        return header_pixels(self._folder / str(render.image)) if kept is None else kept.size[0] * kept.size[1]

    def keep_no_more(self) -> None:
        """What is decoded from now on is looked at once, in the last pass."""
        self._left = 0

    def _keep(self, sha256: str, image: Image.Image) -> None:
        if image.width * image.height > self._left:
            return
        data = image.tobytes()
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else None
        with self._lock:
            if len(data) > self._left or sha256 in self._kept:
                return
            try:
                self._file.seek(self._end)
                written = self._file.write(data)
            except OSError:
                written = 0
            if written != len(data):  # the disk is full; pictures are decoded again, as without the file
                self._left = 0
                return
            self._kept[sha256] = _Kept(self._end, len(data), image.mode, image.size, palette)
            self._end, self._left = self._end + len(data), self._left - len(data)

    def _restored(self, kept: _Kept) -> Image.Image | None:
        """None where the disk gives it no more."""
        with self._lock:
            try:
                self._file.seek(kept.offset)
                data = self._file.read(kept.length)
            except OSError:
                return None
        if data is None or len(data) != kept.length:
            return None
        image = Image.frombytes(kept.mode, kept.size, data)
        if kept.palette is not None:
            image.putpalette(kept.palette, "RGB")
        return image
