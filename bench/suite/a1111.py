"""Prompts as AUTOMATIC1111's web UI and Forge read them: attention, BREAK, comments; and what is not drawn here.

::

    (x)  x is weighted by 1.1      (x:1.3)  by 1.3      [x]  by 1/1.1      nested weights multiply
    \\(  \\)  \\[  \\]  \\\\  the character itself          BREAK  the next words begin a new chunk

Facts of the grammar: stable-diffusion-webui 1.8 and Forge, their ``prompt_parser``; this is a reader of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.suite.prompt_weights import (
    DEEPEST,
    UP,
    PromptError,
    Segment,
    around,
    checked_products,
    checked_weight,
    doubtful,
    too_deep,
    unpaired,
)

_PIECE = re.compile(r"\\[\\()\[\]]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|]|[^\\()\[\]:]+|:")
_PAIRED = re.compile(r"\\[\\()\[\]]|[()\[\]]")
_WEIGHT = re.compile(r"[+-]?[.\d]+")
_BREAK = re.compile(r"\bBREAK\b")
_BREAK_WEIGHT = -1.0
"""How the program marks BREAK: within weighted brackets the mark is multiplied, and the word is drawn."""
_COMMENT_LINES = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_COMMENT = re.compile(r"#[^\n]*(\n|$)")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_ENDING = re.compile(r":\s*[-+]?(?:\d+\.?|\d*\.\d+)\Z")
_AND = re.compile(r"\bAND\b")
_BRACKET = re.compile(r"\\.|[()\[\]|:]", re.DOTALL)


def without_comments(text: str) -> str:
    """The text without what stands from a ``#`` to the end of its line, as A1111 takes it out since 1.8."""
    return _COMMENT.sub("\n", _COMMENT_LINES.sub("\n", text)) if "#" in text else text


def parse(text: str) -> tuple[Segment, ...]:
    """The segments of a prompt in its order; at least one, neighbours of one weight joined.

    Brackets that are not closed act up to the end of the text, and what closes none is text.

    Raises:
        PromptError: a weight that is no number (``(x:1.2.3)``), not finite or too large, or brackets too deep.
    """
    pieces: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for found in _PIECE.finditer(text):
        piece = found[0]
        if piece in opened:
            opened[piece].append(len(pieces))
            if sum(map(len, opened.values())) > DEEPEST:
                raise too_deep()
        elif piece == "]" and opened["["]:
            _multiply(pieces, opened["["].pop(), 1 / UP)
        elif piece == ")" and opened["("]:
            _multiply(pieces, opened["("].pop(), UP)
        elif found[1] is not None and opened["("]:
            start = opened["("].pop()
            where = "".join(word for word, _ in pieces[start:])[-40:]
            _multiply(pieces, start, checked_weight(found[1], f"({where}{piece}"))
        elif piece[0] == "\\":
            pieces.append((piece[1:], 1.0))
        else:
            pieces += _with_breaks(piece)
    for start in opened["("]:
        _multiply(pieces, start, UP)
    for start in opened["["]:
        _multiply(pieces, start, 1 / UP)
    return checked_products(_joined(pieces) or [Segment("", 1.0)])


def _multiply(pieces: list[tuple[str, float]], start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def _with_breaks(text: str) -> Iterator[tuple[str, float]]:
    """A text with its marks; BREAK takes the white space on both sides with it."""
    parts = _BREAK.split(text)
    for number, part in enumerate(parts):
        if number:
            yield "BREAK", _BREAK_WEIGHT
            part = part.lstrip()
        yield part if number == len(parts) - 1 else part.rstrip(), 1.0


def _joined(pieces: list[tuple[str, float]]) -> list[Segment]:
    found: list[tuple[list[str], float]] = []
    for text, weight in pieces:
        if found and found[-1][1] == weight:
            found[-1][0].append(text)
        else:
            found.append(([text], weight))
    segments = [Segment("".join(texts), weight) for texts, weight in found]
    return [one._replace(is_break=one.text == "BREAK" and one.weight == _BREAK_WEIGHT) for one in segments]


def refusals(text: str, *, negative: bool) -> Iterator[str]:
    """What of a prompt changes from step to step or is drawn in several parts, which is not done here: a clause each.

    Args:
        text: without comments and tags.
        negative: of a negative prompt, in which AND and a weight at the end are words.
    """
    yield from _editing(text)
    if negative:
        return
    if found := _AND.search(text):
        around = text[max(0, found.start() - 15) : found.end() + 15].strip()
        yield f"{around!r} (AND draws several prompts at once; write one prompt, or and in small letters)"
    if found := _ENDING.search(text.rstrip()):
        end = text.rstrip()[-20:]
        close = "close the bracket, or " if any(text[place] == "(" for place in unpaired(text, _PAIRED)) else ""
        yield (
            f"its end {end!r} (A1111 takes {found[0]!r} for the weight of the whole prompt, and the number is not "
            f"drawn; {close}write something after it, such as a comma)"
        )


def _editing(text: str) -> Iterator[str]:
    """``[from:to:when]``, which changes at a step, and ``[a|b]``, which changes at every step."""
    opened: list[tuple[str, int, list[int]]] = []  # bracket, where, its own bars and colons
    for found in _BRACKET.finditer(text):
        sign = found[0]
        if sign in "([":
            opened.append((sign, found.start(), []))
        elif sign in ")]":
            pair = "(" if sign == ")" else "["
            while opened and opened[-1][0] != pair:
                opened.pop()  # it is closed by another one, so it is text
            if opened:
                _, start, places = opened.pop()
                if pair == "[" and places:
                    yield from _of_step(text, start, places, found.start())
        elif sign in "|:" and opened:
            opened[-1][2].append(found.start())


def _of_step(text: str, start: int, places: list[int], end: int) -> Iterator[str]:
    whole = text[start : end + 1]
    shown = repr(whole if len(whole) <= 40 else f"{whole[:39]}…")
    colons = [place for place in places if text[place] == ":"]
    if len(colons) < len(places):
        yield f"{shown} (alternation: another word at every step)"
    elif _NUMBER.fullmatch(text, colons[-1] + 1, end):
        trap = "; a weight is written in round brackets" if len(colons) == 1 else ""
        yield f"{shown} (prompt editing: words that change at a step{trap})"


def notes(text: str) -> Iterator[tuple[str, str]]:
    """What is read otherwise than its author may think: what it is, and an example of it."""
    if found := _COMMENT.search(text):
        yield "a comment, which is left out as A1111 does", found[0].strip()
    bare = without_comments(text)
    try:
        segments = parse(bare)
    except PromptError:
        return
    yield from doubtful(bare, segments, lambda number: _WEIGHT.fullmatch(number) is not None)
    if alone := unpaired(bare, _PAIRED):
        yield "a bracket without its pair", around(bare, alone[0])
    for one in segments:
        if not one.is_break and _BREAK.search(one.text):
            yield "BREAK within weighted brackets, where A1111 draws the word", one.text
            return
