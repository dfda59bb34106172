"""What a prompt with weights is, once it is read: pieces of text, each with its weight.

The grammars are ``bench.suite.a1111`` and ``bench.suite.comfyui``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from bench.formatting import quoted

HEAVIEST = 1000.0
"""Largest weight of words that is taken for one, of either sign; with larger ones half precision overflows."""
DEEPEST = 100
"""Brackets within brackets that are read; 1.1 to this power is a weight of 14,000."""
UP = 1.1
"""What a pair of round brackets without a number multiplies by."""
UNUSUAL = 5.0
"""A larger weight is taken, and said."""
_ALMOST = re.compile(r"\([^()]*:\s*([-+.,\deE]{1,12})\s*\)")
_WEIGHTED = re.compile(r"\([^()]*:\s*([-+]?(?:\d{1,6}\.?\d{0,6}|\.\d{1,6}))\s*\)")
_TAG = re.compile(r"<\w+:[^>]+>")


class Segment(NamedTuple):
    """Text whose tokens have one weight."""

    text: str
    weight: float
    is_break: bool = False
    """A1111's BREAK: the next text begins another chunk."""


def tags_in(text: str) -> list[str]:
    """Tags of extra networks, as A1111 finds them: ``<lora:name:0.8>``."""
    return _TAG.findall(text, 0, text.rfind(">") + 1)  # up to the last bracket: beyond, each try would read on


def without_tags(text: str) -> str:
    """The text without its tags."""
    end = text.rfind(">") + 1
    return _TAG.sub("", text[:end]) + text[end:]


class PromptError(ValueError):
    """A prompt that cannot be read; the sentence quotes the place."""


def checked_weight(text: str, where: str) -> float:
    """A weight as Python reads it.

    Raises:
        PromptError: it is no finite number of at most ``HEAVIEST``; ``where`` is quoted.
    """
    try:
        weight = float(text)
    except ValueError:
        raise PromptError(f"{quoted(where)}: {text.strip()!r} is not a number") from None
    if not math.isfinite(weight) or abs(weight) > HEAVIEST:
        allowed = f"from {-HEAVIEST:g} to {HEAVIEST:g}"
        raise PromptError(f"{quoted(where)}: {text.strip()} is not a weight {allowed}")
    return weight


def checked_products(segments: list[Segment]) -> tuple[Segment, ...]:
    """The segments, once their weights are multiplied; errors as ``checked_weight``."""
    for one in segments:
        if not abs(one.weight) <= HEAVIEST:
            raise PromptError(f"{quoted(one.text)}: its brackets make a weight of {one.weight:g}, over {HEAVIEST:g}")
    return tuple(segments)


def doubtful(text: str, segments: Iterable[Segment], is_weight: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """What its author may have meant otherwise: what it is, and an example of it.

    ``(kite:1,3)`` is drawn as words, and ``(at 10:30)`` has a weight of 30.
    """
    for found in _ALMOST.finditer(text):
        if not is_weight(found[1]) and any(sign.isdigit() for sign in found[1]):
            yield "a number that is no weight there, and is drawn", found[0][-40:]
            break
    large = next((one for one in segments if abs(one.weight) > UNUSUAL), None)
    if large is not None:
        yield f"a weight over {UNUSUAL:g}, which may be a time or a ratio", _written(text, large)


def _written(text: str, segment: Segment) -> str:
    """A segment's weight as it stands in the text: ``(at 10:30) weighs 30``; its words where brackets make it."""
    written = (one for one in _WEIGHTED.finditer(text) if float(one[1]) == segment.weight)
    shown = next((one[0][-25:] for one in written), segment.text.strip()[-25:])
    return f"{shown} weighs {segment.weight:g}"


def unpaired(text: str, sign: re.Pattern[str]) -> list[int]:
    """Where brackets stand that have no pair, in the text's order; round and square ones are paired each by themselves.

    Args:
        text: of a prompt.
        sign: finds a grammar's brackets and, as longer matches, its escaped characters.
    """
    opened: dict[str, list[int]] = {"(": [], "[": []}
    alone: list[int] = []
    for found in sign.finditer(text):
        if found[0] in opened:
            opened[found[0]].append(found.start())
        elif found[0] in (")", "]"):
            waiting = opened["(" if found[0] == ")" else "["]
            if waiting:
                waiting.pop()
            else:
                alone.append(found.start())
    return sorted([*alone, *opened["("], *opened["["]])


def around(text: str, place: int) -> str:
    """What stands around a place, to be quoted."""
    return text[max(0, place - 18) : place + 20].strip()


def too_deep() -> PromptError:
    """The error for brackets within brackets within brackets."""
    return PromptError(f"more than {DEEPEST} brackets within one another")
