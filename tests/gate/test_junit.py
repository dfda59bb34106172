"""JUnit XML: valid against the schema, read back by another parser, and never better than the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_gates import make_gate, make_verdict, timing_verdict, worst_prompts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from bench.gate.ci import junit_xml
from bench.records import Gate, Outcome

OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "inconclusive", "invalid")
ONE_EACH = tuple(make_verdict(outcome, f"metric-{outcome}") for outcome in OUTCOMES)


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))


def read(gate: Gate, schema: etree.XMLSchema, **options: Any) -> etree._Element:
    root = etree.fromstring(junit_xml(gate, **options).encode())
    schema.assertValid(root)
    return root


def counts(root: etree._Element) -> dict[str, int]:
    names = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(suite.get(name)) for suite in root.iter("testsuite")) for name in names}


def properties(root: etree._Element) -> dict[str, str]:
    return {one.get("name"): one.get("value") for one in root.iter("property")}


def test_each_outcome_has_its_own_mark(schema) -> None:
    root = read(make_gate(*ONE_EACH), schema)
    marks = {case.get("name"): [(one.tag, one.get("type")) for one in case] for case in root.iter("testcase")}
    assert marks == {
        "metric-pass": [],
        "metric-fail": [("failure", "fail")],
        "metric-inconclusive": [("failure", "inconclusive")],
        "metric-invalid": [("error", "invalid")],
    }
    assert counts(root) == {"tests": 4, "failures": 2, "errors": 1, "skipped": 0}


def test_inconclusive_is_skipped_only_where_the_user_lets_it_through(schema) -> None:
    root = read(make_gate(*ONE_EACH), schema, inconclusive="warn")
    (skipped,) = root.iter("skipped")
    assert skipped.getparent().get("name") == "metric-inconclusive"
    assert skipped.get("message") == "metric-inconclusive of spo is inconclusive against base."
    assert counts(root) == {"tests": 4, "failures": 1, "errors": 1, "skipped": 1}


def test_the_sentence_is_both_message_and_text(schema) -> None:
    root = read(make_gate(make_verdict("fail", worst=worst_prompts(2))), schema)
    (failure,) = root.iter("failure")
    assert failure.get("message") == "mini-aesthetic of spo is fail against base."
    assert failure.text.splitlines() == [
        "mini-aesthetic of spo is fail against base.",
        "loss +0.0310, interval [+0.0220, +0.0400], allowed 0.0100 (limit 0.01)",
        "spo 0.4690, base 0.5000, 24 prompts x 2 images",
        "prompts that lost most (candidate, reference, loss):",
        "  case-000: 0.4, 0.5, 0.1",
        "  case-001: 0.4, 0.495, 0.095",
    ]


def test_the_numbers_are_properties_without_rounding(schema) -> None:
    found = properties(read(make_gate(make_verdict("fail", loss=0.1 + 0.2), timing_verdict()), schema))
    assert float(found["mini-aesthetic.loss"]) == 0.1 + 0.2
    assert found["mini-aesthetic.margin"] == "0.01"
    assert (found["mini-aesthetic.interval.low"], found["mini-aesthetic.interval.high"]) == ("0.022", "0.04")
    assert (found["mini-aesthetic.n"], found["end_to_end.n"], found["end_to_end.unit"]) == ("24", "4", "ratio - 1")
    assert found["gate.baseline"] == "reports/baseline-mini.json"


def test_a_number_that_there_is_none_of_has_no_property(schema) -> None:
    found = properties(read(make_gate(make_verdict("invalid")), schema))
    assert "mini-aesthetic.outcome" in found
    assert not found.keys() & {"mini-aesthetic.loss", "mini-aesthetic.margin", "mini-aesthetic.interval.low"}


def test_a_suite_a_candidate_and_the_time_in_utc(schema) -> None:
    gate = make_gate(make_verdict(candidate="dpo"), make_verdict("fail"), make_verdict(name="mini-clip"))
    suites = read(gate, schema).findall("testsuite")
    assert [(one.get("name"), one.get("tests"), one.get("failures")) for one in suites] == [
        ("dpo", "1", "0"),
        ("spo", "2", "1"),
    ]
    assert {one.get("timestamp") for one in suites} == {"2025-01-02T03:04:05"}
    assert suites[1].findtext("system-out").splitlines() == [one.sentence for one in gate.verdicts[1:]]


def test_one_quantity_against_two_references_makes_two_names(schema) -> None:
    gate = make_gate(make_verdict(), make_verdict("fail", reference="dpo"), make_verdict(name="mini-clip"))
    names = [case.get("name") for case in read(gate, schema).iter("testcase")]
    assert names == ["mini-aesthetic vs base", "mini-aesthetic vs dpo", "mini-clip"]


@pytest.mark.parametrize(
    "gate",
    [
        make_gate(notes=("No variant is in both.",)),
        make_gate(outcome="pass"),
        make_gate(make_verdict(), outcome="invalid"),
        make_gate(make_verdict("fail"), outcome="pass"),
    ],
    ids=["no verdicts", "no verdicts, yet a pass", "graver as a whole", "milder as a whole"],
)
def test_what_no_verdict_explains_is_an_error_of_its_own(gate, schema) -> None:
    root = read(gate, schema)
    (error,) = root.iter("error")
    assert error.getparent().get("classname") == error.getparent().get("name") == "gate"
    assert all(note in error.text for note in gate.notes)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(st.characters(), max_size=40), min_size=4, max_size=4))
def test_any_text_gives_valid_xml_that_says_it(words, schema) -> None:
    sentence, note, run, baseline = words
    root = read(make_gate(make_verdict("fail", sentence=sentence), notes=(note,), run=run, baseline=baseline), schema)
    found = properties(root)
    (failure,) = root.iter("failure")
    # What XML 1.0 cannot hold, by the table of its own specification (section 2.2).
    for said, meant in zip(
        [failure.get("message"), found["gate.note.1"], found["gate.run"], found["gate.baseline"]], words, strict=True
    ):
        kept = [(a, b) for a, b in zip(meant, said, strict=True) if _allowed(a)]
        assert all(a == b for a, b in kept if a.isprintable() or a in "\t\n\r"), (said, meant)


def _allowed(character: str) -> bool:
    code = ord(character)
    ranges = ((0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x10FFFF))
    return character in "\t\n\r" or any(low <= code <= high for low, high in ranges)


@pytest.mark.parametrize("forbidden", ["\x00", "\x08", "\x1b", "\ufffe", "\uffff", "\ud800"])
def test_a_forbidden_character_is_replaced_not_dropped(forbidden, schema) -> None:
    (failure,) = read(make_gate(make_verdict("fail", sentence=f"a{forbidden}b")), schema).iter("failure")
    assert failure.get("message") == "a\ufffdb"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('hostname="localhost"', ""),
        ('tests="1"', 'tests="one"'),
        ("2025-01-02T03:04:05", "2025-01-02T03:04:05Z"),
        ("<system-err />", ""),
        ('type="fail"', ""),
    ],
)
def test_the_schema_finds_what_is_wrong(old, new, schema) -> None:
    good = junit_xml(make_gate(make_verdict("fail")))
    assert schema.validate(etree.fromstring(good.encode()))
    assert old in good
    assert not schema.validate(etree.fromstring(good.replace(old, new).encode()))
