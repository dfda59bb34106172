"""From a prompt to the 77 tokens that a CLIP text encoder reads: the two official tokenizers.

Both cut the same byte pairs; they differ in how they clean the text. openai's (and open_clip's) repairs mojibake
and resolves HTML entities, transformers' does neither: the same prompt has other tokens, and another score.
Imports torch; towers import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from bench.suite.clip_tokens import CONTEXT

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class ClipTokens:
    """A tokenizer with its own cleaning."""

    pieces: Callable[[str], list[int]]
    """The tokens of a prompt of any length, without start and end."""
    start: int
    end: int

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Start, pieces, end and zeros, int64 (n, 77); of a longer prompt the last pieces go, never the end."""
        ids = torch.zeros(len(prompts), CONTEXT, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = [self.start, *self.pieces(prompt)[: CONTEXT - 2], self.end]
            row[: len(tokens)] = torch.tensor(tokens)
        return ids

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Of each prompt, whether it has more than 77 tokens, start and end counted."""
        return [len(self.pieces(prompt)) > CONTEXT - 2 for prompt in prompts]


def openai_tokens() -> ClipTokens:
    """openai's tokenizer as open_clip has it: ftfy, HTML entities resolved, white space collapsed, lower case."""
    tokenizer = SimpleTokenizer()
    return ClipTokens(tokenizer.encode, tokenizer.sot_token_id, tokenizer.eot_token_id)


def transformers_tokens() -> ClipTokens:
    """transformers' CLIP tokenizer: Unicode composed (NFC), white space collapsed, lower case, and nothing else.

    Built from the byte pairs that open_clip ships, which are those of every CLIP, so that it needs no download.
    """
    from transformers import CLIPTokenizer

    shipped = SimpleTokenizer()
    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(piece, piece): number for piece, number in shipped.encoder.items()}
    merges = sorted(shipped.bpe_ranks, key=shipped.bpe_ranks.__getitem__)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)

    def pieces(prompt: str) -> list[int]:
        ids: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        return ids

    return ClipTokens(pieces, vocabulary[START], vocabulary[END])
