"""Weighted text in pieces that a text encoder can read: A1111's chunks and ComfyUI's.

A chunk holds what stands between start and end token: 75 tokens of CLIP's 77. A prompt of several is encoded chunk by
chunk, and the states are put one after the other. Facts of both rules: stable-diffusion-webui 1.8, ComfyUI's
``sd1_clip``; no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.suite.comfyui import words
from bench.suite.prompt_weights import Segment

BACKTRACK = 20
"""A1111 moves the text after a comma to the next chunk where the comma is no more tokens away from the chunk's end."""
LONG = 8
"""ComfyUI moves a shorter segment to the next chunk whole; of a longer one the chunk is filled first."""

Tokenize = Callable[[str], Sequence[int]]
"""Text to the numbers of its tokens, start and end left out."""


class Vector(NamedTuple):
    """A row of an embedding, in the place of a token."""

    name: str
    row: int


Token = int | Vector


class Chunk(NamedTuple):
    """Tokens between start and end, and the weight of each."""

    tokens: tuple[Token, ...]
    weights: tuple[float, ...]


class _Filling:
    """The chunks so far, the last of which is being filled."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.done: list[Chunk] = []
        self.tokens: list[Token] = []
        self.weights: list[float] = []

    @property
    def room(self) -> int:
        return self.size - len(self.tokens)

    def add(self, tokens: Sequence[Token], weight: float) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def close(self, keep: int | None = None) -> None:
        """Begin the next chunk, with what follows the first ``keep`` tokens."""
        keep = len(self.tokens) if keep is None else keep
        self.done.append(Chunk(tuple(self.tokens[:keep]), tuple(self.weights[:keep])))
        self.tokens, self.weights = self.tokens[keep:], self.weights[keep:]

    def finished(self) -> tuple[Chunk, ...]:
        if self.tokens or not self.done:
            self.close()
        return tuple(self.done)


# A1111.


def a1111_chunks(
    segments: Sequence[Segment], tokenize: Tokenize, vectors: Mapping[str, int], *, size: int, comma: int | None
) -> tuple[Chunk, ...]:
    """The chunks of a prompt as A1111 makes them; at least one.

    A chunk is closed when it is full or at BREAK. Where text goes on after a full chunk and its last comma is at most
    ``BACKTRACK`` tokens from its end, what follows the comma moves on to the next chunk.

    Args:
        segments: as ``bench.suite.a1111.parse`` gives them.
        tokenize: each segment is tokenised on its own.
        vectors: how many rows each embedding has; its name is looked for among the tokens of a segment.
        size: tokens of a chunk.
        comma: the token of a comma; None where the vocabulary has none.
    """
    chunks, last_comma = _Filling(size), -1
    names = spelled(vectors, tokenize)
    for segment in segments:
        if segment.is_break:
            chunks.close()
            last_comma = -1
            continue
        for tokens in with_vectors(tokenize(segment.text), names, vectors):
            is_comma = tokens == (comma,)
            if is_comma:
                last_comma = len(chunks.tokens)
            elif not chunks.room and last_comma != -1 and len(chunks.tokens) - last_comma <= BACKTRACK:
                chunks.close(last_comma + 1)
                last_comma = -1
            if not chunks.room or len(tokens) > chunks.room:
                chunks.close()
                last_comma = -1
            chunks.add(tokens, segment.weight)
    return chunks.finished()


Spelled = Mapping[int, Sequence[tuple[tuple[int, ...], str]]]
"""Names of embeddings in tokens, by their first one, the longest first."""


def spelled(names: Mapping[str, object] | Sequence[str], tokenize: Tokenize) -> Spelled:
    """The tokens of each name, which no name of an embedding is without."""
    found: dict[int, list[tuple[tuple[int, ...], str]]] = {}
    for name in names:
        ids = tuple(tokenize(name))
        if ids:
            found.setdefault(ids[0], []).append((ids, name))
    return {first: sorted(some, key=lambda one: -len(one[0])) for first, some in found.items()}


def named_at(ids: Sequence[int], place: int, names: Spelled) -> tuple[tuple[int, ...], str] | None:
    """The embedding whose name begins at a place among tokens."""
    options = names.get(ids[place], ())
    return next((one for one in options if tuple(ids[place : place + len(one[0])]) == one[0]), None)


def with_vectors(ids: Sequence[int], names: Spelled, vectors: Mapping[str, int]) -> Iterator[tuple[Token, ...]]:
    """The tokens one by one, and in the place of an embedding's name all its rows at once."""
    place = 0
    while place < len(ids):
        found = named_at(ids, place, names)
        if found is None:
            yield (ids[place],)
            place += 1
        else:
            yield tuple(Vector(found[1], row) for row in range(vectors[found[1]]))
            place += len(found[0])


# ComfyUI.


def comfyui_chunks(
    segments: Sequence[Segment], tokenize: Tokenize, vectors: Mapping[str, int], *, size: int
) -> tuple[Chunk, ...]:
    """The chunks of a prompt as ComfyUI makes them; at least one.

    The text between two changes of weight, or between embeddings, stays together where it has fewer than ``LONG``
    tokens; else it is cut where the chunk is full. Arguments as of ``a1111_chunks``.

    Raises:
        PromptError: an embedding that is not among ``vectors``.
    """
    chunks = _Filling(size)
    for text, weight, _ in segments:
        for word in words(text, vectors):
            tokens: Sequence[Token] = (
                [Vector(word.text, row) for row in range(vectors[word.text])]
                if word.is_embedding
                else list(tokenize(word.text))
            )
            is_long = len(tokens) >= LONG
            while len(tokens) > chunks.room:
                filled = chunks.room if is_long else 0
                chunks.add(tokens[:filled], weight)
                chunks.close()
                tokens = tokens[filled:]
            chunks.add(tokens, weight)
    return chunks.finished()
