"""Weights in prompts, by the grammars of A1111 and of ComfyUI: golden cases, and what holds of any text."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.suite import a1111, comfyui
from bench.suite.prompt_weights import PromptError, Segment

# What the programs themselves gave for these texts: (text, A1111's pieces, ComfyUI's pieces).
Pieces = list[tuple[str, float]]
GOLDEN: list[tuple[str, Pieces, Pieces]] = [
    ("((a:1.3))", [("a", 1.43)], [("a", 1.3)]),
    ("(a (b:1.2))", [("a ", 1.1), ("b", 1.32)], [("a ", 1.1), ("b", 1.2)]),
    ("(a: 1.2)", [("a", 1.2)], [("a", 1.2)]),
    ("(a:.5)", [("a", 0.5)], [("a", 0.5)]),
    ("(a:-0.5)", [("a", -0.5)], [("a", -0.5)]),
    ("(a:b:1.2)", [("a:b", 1.2)], [("a:b", 1.2)]),
    ("(a:1.2,)", [("a:1.2,", 1.1)], [("a:1.2,", 1.1)]),
    ("x:1.3)", [("x:1.3)", 1.0)], [("x:1.3)", 1.0)]),
    ("a ) b ( c", [("a ) b ", 1.0), (" c", 1.1)], [("a ) b ( c", 1.0)]),
    ("[a]", [("a", 1 / 1.1)], [("[a]", 1.0)]),
    (r"a\(b\)", [("a(b)", 1.0)], [("a(b)", 1.0)]),
    ("(b BREAK c:1.2)", [("b", 1.2), ("BREAK", -1.2), ("c", 1.2)], [("b BREAK c", 1.2)]),
]


def pieces(found: tuple[Segment, ...]) -> list[tuple[str, object]]:
    return [(one.text, pytest.approx(one.weight)) for one in found]


@pytest.mark.parametrize(("text", "theirs", "others"), GOLDEN)
def test_both_programs_read_the_golden_cases_as_they_do(text: str, theirs: Pieces, others: Pieces) -> None:
    assert pieces(a1111.parse(text)) == theirs
    assert pieces(comfyui.parse(text)) == others


def test_a1111_reads_its_own_long_example() -> None:
    found = a1111.parse("one (((tree:1.2)) by [a] (pond:0.4), ((dusk)).")
    expected = [
        ("one ", 1),
        ("tree", 1.452),
        (" by ", 1.1),
        ("a", 1),
        (" ", 1.1),
        ("pond", 0.44),
        (", ", 1.1),
        ("dusk", 1.331),
        (".", 1.1),
    ]
    assert pieces(found) == expected


def test_break_takes_the_blanks_around_it_and_two_leave_an_empty_text_between() -> None:
    found = a1111.parse("a kite  BREAK\nBREAK a BREAKFAST")
    assert [(one.text, one.is_break) for one in found] == [
        ("a kite", False),
        ("BREAK", True),
        ("", False),
        ("BREAK", True),
        ("a BREAKFAST", False),
    ]


def test_break_within_weighted_brackets_is_drawn_and_said() -> None:
    assert not any(one.is_break for one in a1111.parse("(b BREAK c:1.2)"))
    assert list(a1111.notes("(b BREAK c:1.2)")) == [
        ("BREAK within weighted brackets, where A1111 draws the word", "BREAK")
    ]
    assert list(a1111.notes("b BREAK c")) == []


def test_a_comment_goes_to_the_end_of_its_line_also_within_it() -> None:
    assert a1111.without_comments("a # b\nc") == "a \nc"
    assert a1111.without_comments("# b\nc") == "\nc"
    assert a1111.without_comments("a") == "a"


@pytest.mark.parametrize("text", ["(x:1.2.3)", "(x:.)", "(x:1000000000)", "((x:999))", "(" * 200])
def test_a1111_refuses_what_is_no_weight(text: str) -> None:
    with pytest.raises(PromptError):
        a1111.parse(text)


@pytest.mark.parametrize("text", ["(x:1e9)", "(x:nan)", "(x:-inf)", "(" * 200 + "x" + ")" * 200])
def test_comfyui_refuses_what_is_no_weight(text: str) -> None:
    with pytest.raises(PromptError):
        comfyui.parse(text)


def test_comfyui_reads_every_number_that_python_does_and_takes_the_rest_for_text() -> None:
    assert comfyui.parse("(x:1e1)") == (Segment("x", 10.0),)
    assert pieces(comfyui.parse("(x:1.2.3)")) == [("x:1.2.3", 1.1)]
    assert pieces(comfyui.parse("(:1.2)")) == [(":1.2", 1.1)]


def test_comfyui_takes_an_open_bracket_with_a_closing_one_at_the_end_for_a_pair() -> None:
    assert pieces(comfyui.parse("(a (b)")) == [("a ", 1.1), ("(b", 1.1)]


def test_editing_alternation_and_ends_are_found_where_a1111_acts_on_them() -> None:
    def said(text: str, *, negative: bool = False) -> str:
        return " ".join(a1111.refusals(text, negative=negative))

    assert "'[a:b:0.5]' (prompt editing" in said("x [a:b:0.5] y")
    assert "'[a (b:1.2)::7]' (prompt editing" in said("[a (b:1.2)::7]")
    assert "a weight is written in round brackets" in said("[x:1.3]")
    assert "'[a|]' (alternation" in said("[a|]")
    assert "'a cat AND a dog' (AND" in said("a cat AND a dog")
    assert "':9'" in said("a photo, 16:9 ")
    for fine in ("[a]", "[a:b]", "(a:1.2)", "(a|b)", r"\[a:b:0.5\]", "16:9, wide", "a cat and a dog", "SAND", "a: b"):
        assert said(fine) == ""
    assert said("a cat AND a dog, 16:9", negative=True) == ""


# --- of any text ---------------------------------------------------------------------------

PARTS = ("(", ")", "[", "]", "\\", ":", ":1.2", "1.3", "BREAK", " ", "\n", "a", "kite", ",", "é", "embedding:", "nan")
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=30).map("".join))


@given(TEXTS)
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    for parse in (a1111.parse, comfyui.parse):
        with contextlib.suppress(PromptError):
            assert all(abs(one.weight) <= 1000 for one in parse(text))
    list(a1111.refusals(text, negative=False))
    list(a1111.notes(text))
    list(comfyui.refusals(text))
    list(comfyui.notes(text))


@given(st.text().filter(lambda text: not re.search(r"[()\[\]\\]|\bBREAK\b", text)))
def test_a_text_without_syntax_stays_as_it_is_at_weight_1(text: str) -> None:
    assert a1111.parse(text) == (Segment(text, 1.0),)
    assert comfyui.parse(text) == ((Segment(text, 1.0),) if text else ())


@given(st.text().filter(lambda text: not re.search(r"\bBREAK\b", text)))
def test_escaped_brackets_are_drawn(text: str) -> None:
    escaped = re.sub(r"([\\()\[\]])", r"\\\1", text)
    assert a1111.parse(escaped) == (Segment(text, 1.0),)


@given(st.text().filter(lambda text: "\\" not in text))
def test_brackets_escaped_for_comfyui_are_drawn(text: str) -> None:
    found = comfyui.parse(re.sub(r"([()])", r"\\\1", text))
    assert "".join(one.text for one in found) == text
    assert {one.weight for one in found} <= {1.0}


@given(st.lists(st.sampled_from(("a", "(", ")", " b")), max_size=30).map("".join))
def test_words_are_neither_lost_nor_moved(text: str) -> None:
    letters = re.sub(r"[()]", "", text)
    for parse in (a1111.parse, comfyui.parse):
        assert re.sub(r"[()]", "", "".join(one.text for one in parse(text))) == letters


@pytest.mark.parametrize(
    "text",
    ["(a" * 50_000, "<a:" * 33_000, "[a:" * 33_000, "/*" * 50_000, ":" * 100_000, " " * 100_000, "(a)" * 33_000],
)
def test_a_prompt_of_100000_characters_is_read_in_a_moment(text: str) -> None:
    began = time.process_time()
    for parse in (a1111.parse, comfyui.parse):
        with contextlib.suppress(PromptError):
            parse(text)
    list(a1111.refusals(text, negative=False))
    list(comfyui.refusals(text))
    assert time.process_time() - began < 5
