"""Syntax of other programs within prompts, which is drawn as words here: it is named, so that nobody waits for it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.formatting import joined, plural
from bench.records import Prompt

SYNTAX: dict[str, re.Pattern[str]] = {
    "a weight": re.compile(
        r"\([^()]*:\s{0,4}-?\d{0,6}\.?\d{1,6}\s{0,4}\)|\(\([^()]+\)\)|(?<![\w.])\d+(?:\.\d+)?::|::-?\d"
    ),
    "a LoRA or embedding tag": re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]*>|\bembedding:\w+"),
    "BREAK": re.compile(r"\bBREAK\b"),
    "prompt editing": re.compile(r"\[[^\[\]:|]*[:|][^\[\]]*\]"),
    "alternatives": re.compile(r"\{[^{}|]*\|[^{}]*\}"),
    "a wildcard": re.compile(r"__[\w/*.-]{0,60}\w__"),
    "an option": re.compile(r"(?<!\S)--[a-z]\w*"),
}
"""What it is called, and how it is recognised: weights of AUTOMATIC1111 and ComfyUI ``(kite:1.2)`` and of Midjourney
and Dynamic Prompts ``2::kite``, tags ``<lora:name:0.8>``, ``BREAK``, ``[kite:boat:0.5]`` and ``[kite|boat]``,
``{red|blue}``, ``__animals__``, ``--ar 16:9``."""
EXAMPLE_LENGTH = 40
"""Longest example in characters."""


def syntax_notes(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """A sentence on the syntax that prompts and negative prompts hold, each kind with an example; none without any."""
    examples: dict[str, str] = {}
    holding = 0
    for prompt in prompts:
        found = {
            kind: match[0]
            for kind, pattern in SYNTAX.items()
            for text in (prompt.text, prompt.negative)
            if (match := pattern.search(text))
        }
        holding += bool(found)
        examples = found | examples
    if not examples:
        return ()
    named = [
        f"{kind} ({_cut(examples[kind])})" if examples[kind] != kind else kind for kind in SYNTAX if kind in examples
    ]
    who = f"{plural(holding, 'prompt')} {'holds' if holding == 1 else 'hold'}"
    return (f"{who} syntax of other programs, which is drawn as words here: {joined(named)}.",)


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[: EXAMPLE_LENGTH - 1]}…"
