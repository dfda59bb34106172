"""How many tokens a prompt takes in CLIP's text encoder, counted without torch.

The byte-pair merges are the ones that ``open_clip`` ships beside its code; the file is found without
importing the package, because importing it imports torch. SDXL's two encoders and SD 1.5's one read
77 tokens, the start and the end among them; what is longer is cut off, or has to be encoded in pieces.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import itertools
from functools import lru_cache
from pathlib import Path

import ftfy
import regex

from bench.errors import MachineError

CONTEXT = 77

"""Tokens that a CLIP text encoder reads, start and end among them."""

_MERGES = 49152 - 256 - 2

_WORDS = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


def count_tokens(prompt: str) -> int:
    """Token count of a prompt: its byte pairs in CLIP's vocabulary, plus start and end.

    Cleans as CLIP does (mojibake repaired, HTML entities resolved, white space collapsed, lower case).
    Range: 2 (an empty prompt) and up; more than ``CONTEXT`` does not fit the encoder.
    Raises MachineError when the installed ``open_clip`` lacks its vocabulary file.
    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
    """
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    words = _WORDS.findall(" ".join(text.split()).lower())
    return 2 + sum(_count_pieces(word) for word in words)


@lru_cache(maxsize=65536)
def _count_pieces(word: str) -> int:
    if word in ("<start_of_text>", "<end_of_text>"):
        return 1
    alphabet, ranks = byte_alphabet(), _merge_ranks()
    pieces = [alphabet[byte] for byte in word.encode("utf-8")]
    pieces[-1] += "</w>"
    while len(pieces) > 1:
        pairs = set(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, _MERGES))
        if best not in ranks:
            break
        pieces = _merge(pieces, best)
    return len(pieces)


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(pieces):
        if tuple(pieces[position : position + 2]) == pair:
            merged.append(pair[0] + pair[1])
            position += 2
        else:
            merged.append(pieces[position])
            position += 1
    return merged


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[int, str]:
    """The character that CLIP writes for each byte, in the order of its vocabulary."""
    # CLIP writes every byte as one printable character: itself where it is one, else from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@lru_cache(maxsize=1)
def merges() -> tuple[tuple[str, str], ...]:
    """CLIP's byte-pair merges, the first to be made first; raises as ``count_tokens``."""
    lines = gzip.decompress(_vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    split = (line.split() for line in lines[1 : _MERGES + 1])
    return tuple((first, second) for first, second in split)


@lru_cache(maxsize=1)
def _merge_ranks() -> dict[tuple[str, str], int]:
    return {pair: rank for rank, pair in enumerate(merges())}


def _vocabulary_file() -> Path:
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if file.is_file():
            return file
    raise MachineError(
        "CLIP's vocabulary (bpe_simple_vocab_16e6.txt.gz) was not found beside the package open_clip.",
        "pip install --force-reinstall open_clip_torch",
    )
