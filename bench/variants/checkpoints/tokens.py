"""CLIP's tokenizers, made offline from the vocabulary that open_clip ships; single files bring none."""

from __future__ import annotations

from functools import cache
from typing import Any

from bench.records.weights import Family
from bench.suite.clip_tokens import CONTEXT, byte_alphabet, merges

START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizers(family: Family) -> dict[str, Any]:
    """The tokenizers of a family's pipelines, by the names that diffusers gives them.

    transformers' ``CLIPTokenizer`` with OpenAI's vocabulary of 49408 entries, 77 tokens at most. SDXL's second one
    fills up with ``!`` (0), the others with the end token (49407). As in the folder that SDXL was released in, a ``!``
    of the prompt itself becomes that same 0 in the second one, where OpenCLIP has 256.

    Raises:
        MachineError: the installed ``open_clip`` lacks its vocabulary file.
    """
    made = {"tokenizer": _tokenizer(END)}
    return made if family == "sd15" else made | {"tokenizer_2": _tokenizer("!")}


@cache
def _vocabulary() -> dict[str, int]:
    letters = list(byte_alphabet().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges()), START, END]
    return {word: number for number, word in enumerate(words)}


@cache
def _tokenizer(pad: str) -> Any:
    """One for all pipelines of the process, which change nothing of it; making one takes a while."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=dict(_vocabulary()),
        merges=list(merges()),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=pad,
        model_max_length=CONTEXT,
    )
