"""Chunks of 75 tokens, against a second way to make A1111's and by hand for ComfyUI's."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bench.suite import a1111, comfyui
from bench.suite.prompt_chunks import Chunk, Vector, a1111_chunks, comfyui_chunks
from bench.suite.prompt_weights import Segment
from bench.suite.tokens import token_ids

COMMA = 267
WORD = token_ids("kite")[0]


def numbers(text: str) -> list[int]:
    """A token a word: its number, and 0 for a comma."""
    return [0 if word == "," else int(word) for word in text.replace(",", " , ").split()]


def cut(text: str, size: int = 75) -> list[tuple[object, ...]]:
    return [one.tokens for one in a1111_chunks(a1111.parse(text), numbers, {}, size=size, comma=0)]


def counted(words: int, start: int = 1) -> str:
    return " ".join(map(str, range(start, start + words)))


# --- A1111 ---------------------------------------------------------------------------------


def own_chunks(tokens: Sequence[int], size: int, backtrack: int = 20) -> list[tuple[int, ...]]:
    """A second way: cut off the longest head that may stand in a chunk, until nothing is left."""
    done: list[tuple[int, ...]] = []
    rest = list(tokens)
    while len(rest) > size:
        commas = [place for place in range(size) if rest[place] == 0 and size - place <= backtrack]
        end = commas[-1] + 1 if commas and rest[size] != 0 else size
        done.append(tuple(rest[:end]))
        rest = rest[end:]
    return [*done, tuple(rest)] if rest or not done else done


@given(st.lists(st.integers(0, 6), max_size=300), st.integers(21, 75))
def test_a1111_cuts_after_a_comma_near_the_end(tokens: list[int], size: int) -> None:
    assert cut(" ".join(map(str, tokens)).replace("0", ","), size) == own_chunks(tokens, size)


def test_75_tokens_are_one_chunk_and_76_are_two() -> None:
    assert [len(one) for one in cut(counted(75))] == [75]
    assert [len(one) for one in cut(counted(76))] == [75, 1]


def test_a_comma_20_tokens_from_the_end_takes_the_rest_along_and_one_21_away_does_not() -> None:
    assert [len(one) for one in cut(f"{counted(55)}, {counted(25)}")] == [56, 25]
    assert [len(one) for one in cut(f"{counted(54)}, {counted(25)}")] == [75, 5]


def test_break_closes_a_chunk_and_two_leave_one_empty() -> None:
    assert cut("1 BREAK 2") == [(1,), (2,)]
    assert cut("1 BREAK BREAK 2") == [(1,), (), (2,)]
    assert cut("") == [()]
    assert cut("1 BREAK") == [(1,)]


def test_weights_go_with_their_tokens() -> None:
    (first, second) = a1111_chunks(a1111.parse(f"{counted(70)}, (7 8 9 10 11:1.5) 12"), numbers, {}, size=75, comma=0)
    assert first.weights == (1.0,) * 71
    assert second == Chunk((7, 8, 9, 10, 11, 12), (1.5,) * 5 + (1.0,))


def test_an_embedding_is_found_by_its_name_among_the_tokens_and_stays_in_one_chunk() -> None:
    named = {"7 8": 3, "7": 1}
    segments = a1111.parse("1 (7 8:1.2) 7 9")

    def with_names(text: str) -> list[int]:
        return numbers(text)

    (chunk,) = a1111_chunks(segments, with_names, named, size=75, comma=0)
    rows = tuple(Vector("7 8", row) for row in range(3))
    assert chunk.tokens == (1, *rows, Vector("7", 0), 9)
    assert chunk.weights == (1.0, 1.2, 1.2, 1.2, 1.0, 1.0)
    first, second = a1111_chunks([Segment(f"{counted(73, 10)} 7 8", 1.0)], with_names, named, size=75, comma=0)
    assert len(first.tokens) == 73
    assert second.tokens == rows


# --- ComfyUI -------------------------------------------------------------------------------


def comfy(text: str) -> list[Chunk]:
    return list(comfyui_chunks(comfyui.parse(text), numbers, {"mark": 2}, size=75))


def test_comfyui_moves_a_segment_of_under_8_tokens_whole_and_cuts_a_longer_one() -> None:
    short = comfy(f"{counted(70)} (1 2 3 4 5 6 7:1.2)")
    assert [len(one.tokens) for one in short] == [70, 7]
    assert short[1].weights == (1.2,) * 7
    long = comfy(f"{counted(70)} (1 2 3 4 5 6 7 8:1.2)")
    assert [len(one.tokens) for one in long] == [75, 3]
    assert [len(one.tokens) for one in comfy(counted(160))] == [75, 75, 10]
    assert comfy("") == [Chunk((), ())]


def test_comfyui_reads_embeddings_at_a_beginning_and_after_a_blank() -> None:
    (chunk,) = comfy("1 embedding:mark, 2 (embedding:mark:1.5)")
    vectors = Vector("mark", 0), Vector("mark", 1)
    assert chunk.tokens == (1, *vectors, 0, 2, *vectors)
    assert chunk.weights == (1.0,) * 5 + (1.5,) * 2


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from((0.5, 1.0, 1.3))), max_size=30))
def test_no_token_is_lost_and_only_the_last_chunk_may_be_empty(runs: list[tuple[int, float]]) -> None:
    segments = [Segment(counted(length), weight) for length, weight in runs]
    wanted = [(token, weight) for length, weight in runs for token in range(1, length + 1)]
    for chunks in (
        comfyui_chunks(segments, numbers, {}, size=75),
        a1111_chunks(segments, numbers, {}, size=75, comma=0),
    ):
        assert [pair for one in chunks for pair in zip(one.tokens, one.weights, strict=True)] == wanted
        assert all(len(one.tokens) <= 75 for one in chunks)
