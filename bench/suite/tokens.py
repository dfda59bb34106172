"""How many tokens a prompt takes in CLIP's text encoder, counted without torch.

The byte-pair merges are the ones that ``open_clip`` ships beside its code; the file is found without
importing the package, because importing it imports torch. ftfy, regex and tokenizers are imported once something is
counted, which most commands never do. SDXL's two encoders and SD 1.5's one read 77 tokens, the start and the end among
them; what is longer is cut off, or has to be encoded in pieces.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import MachineError

if TYPE_CHECKING:
    import regex
    from tokenizers import Tokenizer

CONTEXT = 77
"""Tokens that a CLIP text encoder reads, start and end among them."""
_MERGES = 49152 - 256 - 2
_SPECIAL = ("<start_of_text>", "<end_of_text>")


def count_tokens(prompt: str) -> int:
    """Token count of a prompt: its byte pairs in CLIP's vocabulary, plus start and end.

    Range: 2 (an empty prompt) and up; more than ``CONTEXT`` does not fit the encoder. Raises as ``token_ids``.
    """
    return 2 + len(token_ids(prompt))


def token_ids(text: str) -> list[int]:
    """The numbers of a text's byte pairs in CLIP's vocabulary, start and end left out.

    Cleans as CLIP does (mojibake repaired, HTML entities resolved, white space collapsed, lower case).
    Raises MachineError when the installed ``open_clip`` lacks its vocabulary file.
    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
    """
    import ftfy

    words = _words().findall(" ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower())
    ids: list[int] = _tokenizer().encode(words, is_pretokenized=True).ids
    return ids


@cache
def _words() -> regex.Pattern[str]:
    import regex

    return regex.compile(
        r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
    )


@cache
def _tokenizer() -> Tokenizer:
    """CLIP's byte pairs within one word; the words are found by ``_words``, whose case rules tokenizers lacks."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    tokenizer = Tokenizer(BPE(dict(vocabulary()), list(merges()), end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(_SPECIAL))
    return tokenizer


@cache
def vocabulary() -> dict[str, int]:
    """Every token of CLIP with its number, start and end last; raises as ``merges``."""
    letters = list(byte_alphabet().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges()), *_SPECIAL]
    return {word: number for number, word in enumerate(words)}


@cache
def byte_alphabet() -> dict[int, str]:
    """The character that CLIP writes for each byte, in the order of its vocabulary."""
    # CLIP writes every byte as one printable character: itself where it is one, else from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """CLIP's byte-pair merges, the first to be made first.

    Raises:
        MachineError: the installed ``open_clip`` lacks its vocabulary file.
    """
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if file.is_file():
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
            return tuple((first, second) for first, second in map(str.split, lines[1 : _MERGES + 1]))
    raise MachineError(
        "CLIP's vocabulary (bpe_simple_vocab_16e6.txt.gz) was not found beside the package open_clip.",
        "pip install --force-reinstall open_clip_torch",
    )
