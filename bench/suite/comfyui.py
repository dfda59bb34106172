"""Prompts as ComfyUI's text encoders read them: weights in round brackets, ``embedding:name``.

::

    (x)  the weight around it times 1.1     (x:1.3)  1.3, whatever is around it     \\(  \\)  the character itself

Square brackets, BREAK, AND and ``#`` are text. Facts of the grammar: ComfyUI's ``sd1_clip``; this is a reader of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from bench.formatting import did_you_mean, quoted
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

_SIGN = re.compile(r"\\[()]|[()]")
_EMBEDDING = re.compile(r"[ \n]embedding:")
_NAMED = re.compile(r"(?:(?<=[ \n])|\A)embedding:[^\s,]*")
_GLUED = re.compile(r"[^\s(]embedding:\S*")
MARK = "embedding:"
_COMMENT = re.compile(r"(?<![\\:])//[^\n]*")
_OTHERS = {
    "BREAK": re.compile(r"\bBREAK\b"),
    "AND": re.compile(r"\bAND\b"),
    "square brackets with a colon or a bar": re.compile(r"\[[^\[\]:|]*[:|][^\[\]]*\]"),
}


class Word(NamedTuple):
    """Text, or an embedding by its name in the prompt."""

    text: str
    is_embedding: bool = False


def parse(text: str) -> tuple[Segment, ...]:
    """The segments of a prompt in its order; none of an empty one. Brackets without their pair are text.

    Raises:
        PromptError: a weight that is not finite or too large, or brackets too deep.
    """
    found: list[Segment] = []
    _read(text, 1.0, 0, found)
    return checked_products(found)


def _read(text: str, weight: float, depth: int, found: list[Segment]) -> None:
    if depth > DEEPEST:
        raise too_deep()
    for part in _parts(text):
        if not (len(part) >= 2 and part[0] == "(" and part[-1] == ")" and part[-2:] != "\\)"):
            found.append(Segment(re.sub(r"\\([()])", r"\1", part), weight))
            continue
        inner, own = part[1:-1], weight * UP
        colon = inner.rfind(":")
        if colon > 0:
            number = _number(inner[colon + 1 :], part)
            if number is not None:
                inner, own = inner[:colon], number
        _read(inner, own, depth + 1, found)


def _number(text: str, where: str) -> float | None:
    """A weight, None where it is text; NaN and infinity, which the program would take, are refused."""
    return checked_weight(text, where[-40:]) if _is_number(text) else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parts(text: str) -> Iterator[str]:
    """The text cut at its outermost pairs of brackets; a closing one too many leaves the rest uncut as it should."""
    level = begin = 0
    for sign in _SIGN.finditer(text):
        if sign[0] == "(":
            if level == 0 and sign.start() > begin:
                yield text[begin : sign.start()]
            if level == 0:
                begin = sign.start()
            level += 1
        elif sign[0] == ")":
            level -= 1
            if level == 0:
                yield text[begin : sign.end()]
                begin = sign.end()
    if begin < len(text):
        yield text[begin:]


def without_embeddings(text: str) -> str:
    """A segment's text without the names of embeddings."""
    return _NAMED.sub("", text)


def words(text: str, known: Collection[str]) -> Iterator[Word]:
    """A segment's text cut at its embeddings, which stand at its beginning or after a space or a new line.

    Args:
        text: of a segment.
        known: names of the embeddings there are.

    Raises:
        PromptError: an embedding that is not there.
    """
    first, *others = _EMBEDDING.split(text)
    for part in (first, *(f"{MARK}{other}" for other in others)):
        if not part.startswith(MARK):
            if part:
                yield Word(part)
            continue
        name, left = _name(part.removeprefix(MARK), known)
        yield Word(name, is_embedding=True)
        if left:
            yield Word(left)


def _name(text: str, known: Collection[str]) -> tuple[str, str]:
    """The name of an embedding, and the text after it, whose white space the program makes single blanks."""
    name, *others = text.split() or [""]
    left = " ".join(others)
    if name in known:
        return name, left
    bare = name.strip(",")
    if bare != name and bare in known:
        return bare, f"{name[len(bare) :]} {left}"
    missing = f"{MARK}{bare}"
    if not known:
        raise PromptError(f'{quoted(missing)}: there is no embedding; name their folder: embeddings = "folder"')
    raise PromptError(f"{quoted(missing)}: there is no embedding of this name{did_you_mean(bare, known)}")


def refusals(text: str) -> Iterator[str]:
    """What ComfyUI's page takes out of a text before the encoder sees it, which is not done here: a clause each."""
    found = _COMMENT.search(text)
    begin = text.find("/*")
    end = text.find("*/", begin + 2) if begin >= 0 else -1
    comment = text[begin : end + 2] if end >= 0 else found[0] if found else ""
    if comment:
        yield f"{quoted(comment)} (a comment, which ComfyUI's page takes out before it sends the prompt; take it out)"


def notes(text: str) -> Iterator[tuple[str, str]]:
    """What the encoder reads as words though its author may not think so: what it is, and an example of it."""
    try:
        segments = parse(text)
    except PromptError:
        return
    yield from doubtful(text, segments, _is_number)
    if alone := unpaired(text, _SIGN):
        yield "a bracket without its pair", around(text, alone[0])
    for what, pattern in _OTHERS.items():
        if found := pattern.search(text):
            yield f"{what}, which ComfyUI draws as words", found[0]
    if found := _GLUED.search(text):
        yield "an embedding that follows neither a space nor a new line, which ComfyUI draws as words", found[0]
