"""Annotations: read back as GitHub's runner reads them."""

from __future__ import annotations

import re
from typing import NamedTuple

from fake_gates import make_gate, make_verdict
from hypothesis import given
from hypothesis import strategies as st

from bench.gate.ci import MAX_A_LEVEL
from bench.gate.ci import github_annotations as annotations


class Shown(NamedTuple):
    level: str
    title: str
    message: str


def shown(line: str) -> Shown:
    """What the runner makes of a line: ``::command name=value,name=value::data``, then the escapes undone."""
    found = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert found, line
    (name, value), *others = (pair.split("=", 1) for pair in found[2].split(","))
    assert name == "title"
    assert not others
    for escape, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        value = value.replace(escape, character)
    message = found[3].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    return Shown(found[1], value, message)


def test_each_verdict_that_did_not_pass_has_one_and_errors_come_first() -> None:
    gate = make_gate(
        make_verdict("inconclusive", "mini-clip"),
        make_verdict("pass", "sharpness"),
        make_verdict("fail", "mini-aesthetic"),
        make_verdict("invalid", "mini-preference"),
    )
    about = "hotart-bench gate: {} of spo {}"
    assert [shown(line) for line in annotations(gate)] == [
        Shown("error", about.format("mini-preference", "invalid"), "mini-preference of spo is invalid against base."),
        Shown("error", about.format("mini-aesthetic", "failed"), "mini-aesthetic of spo is fail against base."),
        Shown("warning", about.format("mini-clip", "inconclusive"), "mini-clip of spo is inconclusive against base."),
    ]


def test_a_pass_is_one_notice() -> None:
    (line,) = annotations(make_gate(make_verdict(), make_verdict(name="mini-clip")))
    assert shown(line) == Shown(
        "notice", "hotart-bench gate passed", "2 verdicts, all passed, against reports/baseline-mini.json."
    )


def test_an_outcome_that_no_verdict_explains_is_an_error() -> None:
    for gate in (make_gate(), make_gate(outcome="pass"), make_gate(make_verdict(), outcome="invalid")):
        first = shown(annotations(gate)[0])
        assert first.level == "error"
        assert "notice" not in {shown(line).level for line in annotations(gate)}


def test_signs_that_mean_something_to_the_runner_are_escaped() -> None:
    verdict = make_verdict("fail", "a,b:c%d", sentence="100 % of\r\nit::error::x, %0A")
    (line,) = annotations(make_gate(verdict))
    assert line == (
        "::error title=hotart-bench gate%3A a%2Cb%3Ac%25d of spo failed::100 %25 of%0D%0Ait::error::x, %250A"
    )


@given(st.text(), st.text())
def test_any_text_stays_one_line_and_comes_back(name: str, sentence: str) -> None:
    (line,) = annotations(make_gate(make_verdict("fail", name, sentence=sentence)))
    assert not set(line) & {"\n", "\r", "\0"}
    found = shown(line.replace("\u2028", " ").replace("\u2029", " "))
    assert len(found.message) == len(sentence)
    assert [a for a, b in zip(sentence, found.message, strict=True) if a != b and a.isprintable()] == []


def test_more_than_the_forge_shows_are_counted_and_named() -> None:
    failed = [make_verdict("fail", f"metric-{number}") for number in range(15)]
    lines = [shown(line) for line in annotations(make_gate(*failed))]
    assert len(lines) == MAX_A_LEVEL
    assert lines[-1].title == "hotart-bench gate: 6 more verdicts"
    assert lines[-1].message.startswith("metric-9 of spo (fail), metric-10 of spo (fail)")
    titles = " ".join(line.title + line.message for line in lines)
    assert all(re.search(rf"metric-{number}\b", titles) for number in range(15))
