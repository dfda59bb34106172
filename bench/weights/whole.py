"""Whether a weight file can be a whole one of its kind, by its first and last bytes. Imports no torch.

The hash of an unpinned file is trusted for good once it is recorded, so half a file, a web page or a pointer of
git-lfs in its place must never be the one that is recorded: the right file would be refused ever after.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

PICKLES = frozenset({".pt", ".pth", ".bin"})
PICKLE_START, ZIP_START = b"\x80", b"PK"
"""Of torch's older files and of those since torch 1.6, which end with a directory of what they hold."""


def is_whole(path: Path) -> bool:
    """Whether a ``.safetensors``, ``.pt``, ``.pth``, ``.bin`` or ``.json`` file is of its kind and not cut short.

    An older pickle that is cut short shows no sign of it before it is read. Files of other kinds pass.
    """
    if path.suffix == ".safetensors":
        return _is_whole_safetensors(path)
    if path.suffix in PICKLES:
        with path.open("rb") as file:
            start = file.read(2)
        return zipfile.is_zipfile(path) if start == ZIP_START else start.startswith(PICKLE_START)
    return path.suffix != ".json" or _is_json(path)


def _is_whole_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True
