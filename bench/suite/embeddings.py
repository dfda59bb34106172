"""Textual-inversion embeddings of a folder, and which of them prompts use. No torch: files are named and hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import documents
from bench.errors import SuiteError
from bench.formatting import listed
from bench.records import Embedding
from bench.suite.prompt_chunks import named_at, spelled
from bench.suite.tokens import token_ids

SUFFIXES = (".safetensors", ".pt", ".bin")
"""Of embeddings, in the order that ComfyUI looks for them in."""
LARGEST_BYTES = 256 * 2**20
"""Of a file; the largest that trainers write have less than a hundredth of it."""


class Found(NamedTuple):
    """The embeddings of a folder by their names in prompts; several files of one name are told when it is used."""

    folder: Path
    files: Mapping[str, Sequence[Path]]

    def record(self, name: str) -> Embedding:
        """The record of one that prompts use.

        Raises:
            SuiteError: two files have the name, or the file is too large to be one.
        """
        files = self.files[name]
        if len(files) > 1:
            names = listed(str(path.relative_to(self.folder)) for path in files)
            raise SuiteError(f"{self.folder}: the embedding {name} is there {len(files)} times: {names}; keep one.")
        size = files[0].stat().st_size
        if size > LARGEST_BYTES:
            raise SuiteError(f"{files[0]}: has {size:,} bytes, too many for a textual-inversion embedding.")
        return Embedding(name=name, path=str(documents.resolved(files[0])), sha256=documents.sha256_of(files[0]))


def find_embeddings(folder: Path) -> Found:
    """The files of a folder and its folders, by their names without suffix.

    Raises:
        SuiteError: there is no such folder, or no embedding in it.
    """
    if not folder.is_dir():
        raise SuiteError(f"settings.embeddings: {folder} is not a folder.", "name the folder of the embedding files")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            files.setdefault(path.stem, []).append(path)
    if not files:
        raise SuiteError(f"settings.embeddings: {folder} holds no embedding ({', '.join(SUFFIXES)}).")
    return Found(folder, files)


def comfyui_names(found: Found) -> Found:
    """By the names that ComfyUI takes: path below the folder, with its suffix or without."""
    files: dict[str, list[Path]] = {}
    for path in sorted(
        (path for paths in found.files.values() for path in paths),
        key=lambda path: SUFFIXES.index(path.suffix.lower()),
    ):
        below = path.relative_to(found.folder)
        for name in (below.as_posix(), below.with_suffix("").as_posix()):
            files.setdefault(name, [path])  # without its suffix, the first kind of SUFFIXES
    return Found(found.folder, files)


def names_in(texts: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """The embeddings that A1111 finds in texts: their names among CLIP's tokens, the longest first."""
    known = spelled(sorted(names), token_ids)
    for text in texts:
        ids, place = token_ids(text), 0
        while place < len(ids):
            found = named_at(ids, place, known)
            place += 1 if found is None else len(found[0])
            if found is not None:
                yield found[1]
