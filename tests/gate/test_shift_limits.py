"""Limits on metrics that only describe: which way they may move, and how the gate decides it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import make_run
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import ttest_1samp

from bench.cli.targets import read_suite
from bench.errors import SuiteError, UsageError
from bench.gate.check import new_check
from bench.gate.outcomes import formatted
from bench.gate.quality import check_metric
from bench.records import Prompt
from bench.suite.limits import check_metric_limit, parse_limit

FACTS = {facts.name: facts for facts in make_run("r", prompts=2).info.metrics}
SATURATION = FACTS["saturation"]
REFERENCE = 0.4
PROMPTS = Path(__file__).parents[2] / "prompts"
MIRRORED = {"rise": "-", "fall": "+", "shift": "+-"}


def verdict(shifts, limit, facts=SATURATION, theirs=None):
    """The verdict on a metric that moved by these shifts."""
    check = new_check(parse_limit("saturation", limit), "spo", "base", unit="share", samples=1)
    below = np.asarray(theirs if theirs is not None else REFERENCE + 0.05 * np.cos(np.arange(len(shifts))))
    prompts = [Prompt(id=f"p{at:02d}", text="") for at in range(len(shifts))]
    return check_metric(check, facts, prompts, (below + np.asarray(shifts)).tolist(), below.tolist())


def symmetric(pairs, shift, spread, seed):
    """Shifts without skewness, whose interval is Student's own."""
    sizes = np.random.default_rng(seed).exponential(size=pairs)
    return shift + spread * np.concatenate([sizes, -sizes])


@pytest.mark.parametrize(
    ("text", "limited", "kind", "amount", "floor"),
    [
        ("+0.02", "rise", "absolute", 0.02, None),
        ("-0.01", "fall", "absolute", 0.01, None),
        ("+-0.05", "shift", "absolute", 0.05, None),
        ("+0.2sd", "rise", "sd", 0.2, None),
        ("+-2% floor 0.01", "shift", "relative", 0.02, 0.01),
    ],
)
def test_a_sign_says_what_is_limited(text, limited, kind, amount, floor):
    found = parse_limit("saturation", text)
    assert (found.limited, found.kind, found.text) == (limited, kind, text)
    assert (found.amount, found.floor) == (pytest.approx(amount), floor)
    check_metric_limit(found, SATURATION)


@pytest.mark.parametrize("text", ["-+0.1", "++0.1", "+ 0.1", "±0.1", "+", "+-", "+0.1 floor +0.1", "--0.1"])
def test_a_sign_of_another_form_is_refused(text):
    with pytest.raises(UsageError, match=r'has a sign before it: "\+0\.02".*"\+-0\.02"'):
        parse_limit("saturation", text)


def test_a_sign_where_less_is_always_better_is_refused():
    with pytest.raises(UsageError, match="its limit has no sign"):
        parse_limit("end_to_end", "+5%")


def test_a_sign_and_a_direction_exclude_each_other():
    with pytest.raises(UsageError, match=r"of this metric higher is better.*without a sign") as caught:
        check_metric_limit(parse_limit("mini-clip", "+-0.1"), FACTS["mini-clip"])
    assert caught.value.hint == 'mini-clip = "0.1"'
    with pytest.raises(UsageError, match=r"only describes.*which way it may move") as caught:
        check_metric_limit(parse_limit("saturation", "0.1"), SATURATION)
    assert caught.value.hint == 'saturation = "+-0.1"'


@pytest.mark.parametrize(("text", "what"), [("+1.5", "rise"), ("-1", "fall"), ("+-1", "shift"), ("-100%", "fall")])
def test_a_limit_that_nothing_could_exceed_is_refused(text, what):
    with pytest.raises(UsageError, match=f"which no {what} could exceed"):
        check_metric_limit(parse_limit("saturation", text), SATURATION)
    check_metric_limit(parse_limit("saturation", "+150%"), SATURATION)


@settings(max_examples=50)
@given(
    st.integers(5, 40),
    st.floats(-0.12, 0.12),
    st.floats(0.005, 0.2),
    st.sampled_from([0.02, 0.05, 0.1]),
    st.integers(0, 100),
)
def test_outcomes_are_those_of_one_sided_t_tests(pairs, shift, spread, margin, seed):
    """Oracle: scipy's one-sided t tests, two of them for a limit either way (TOST)."""
    shifts = symmetric(pairs, shift, spread, seed)

    def p(value, alternative):
        return ttest_1samp(shifts, value, alternative=alternative).pvalue

    ps = {(value, way): p(value, way) for value in (-margin, margin) for way in ("less", "greater")}
    assume(min(abs(one - 0.05) for one in ps.values()) > 1e-6)
    shown = {key: one < 0.05 for key, one in ps.items()}
    low_enough, high_enough = shown[margin, "less"], shown[-margin, "greater"]
    too_high, too_low = shown[margin, "greater"], shown[-margin, "less"]
    expected = {
        f"+{margin}": (low_enough, too_high),
        f"-{margin}": (high_enough, too_low),
        f"+-{margin}": (low_enough and high_enough, too_high or too_low),
    }
    for limit, (passes, fails) in expected.items():
        found = verdict(shifts, limit)
        assert found.outcome == ("pass" if passes else "fail" if fails else "inconclusive"), limit
        assert found.shift == pytest.approx(np.mean(shifts), abs=1e-12)
        mirrored = verdict(-shifts, MIRRORED[found.limit.limited] + limit.lstrip("+-"))
        assert (mirrored.outcome, mirrored.shift) == (found.outcome, pytest.approx(-found.shift, abs=1e-12))
        assert mirrored.shift_interval.low == pytest.approx(-found.shift_interval.high, abs=1e-9)


@pytest.mark.parametrize(("limit", "loss"), [("+0.02", 0.03), ("-0.02", -0.03), ("+-0.02", 0.03)])
def test_the_shift_is_shown_with_its_own_sign_beside_the_references_value(limit, loss):
    found = verdict(symmetric(20, 0.03, 0.01, 1), limit)
    assert (found.loss, found.shift) == (pytest.approx(loss), pytest.approx(0.03))
    assert found.shift_interval.low < 0.03 < found.shift_interval.high
    shown = formatted(found)
    assert shown.loss == "+0.0300"
    assert shown.interval.startswith("[+0.02")
    assert shown.margin == {"+0.02": "+0.0200", "-0.02": "−0.0200", "+-0.02": "±0.0200"}[limit]
    assert float(shown.reference) == pytest.approx(found.reference_mean, abs=1e-3)


def test_a_fall_beyond_a_limit_either_way_fails_and_says_so():
    found = verdict(symmetric(20, -0.09, 0.01, 2), "+-0.05")
    assert (found.outcome, found.loss, found.shift) == ("fail", pytest.approx(0.09), pytest.approx(-0.09))
    assert found.shift_interval.high < -0.05
    assert "fell by 0.09" in found.sentence
    assert "a shift of at most 0.050" in found.sentence
    assert "either way is allowed" in found.sentence
    assert all(one.candidate < one.reference for one in found.worst)


def test_a_wide_interval_around_no_shift_decides_nothing_either_way():
    found = verdict(symmetric(10, 0.0, 0.3, 3), "+-0.05")
    assert found.outcome == "inconclusive"
    assert found.needed > 20


def test_nothing_clipped_anywhere_is_an_answer_to_a_limit_on_a_rise_only():
    none, some = np.zeros(20), 0.05 + 0.01 * np.cos(np.arange(20))
    assert verdict(none, "+0.02", theirs=none).outcome == "pass"
    assert verdict(some, "+0.02", theirs=none).outcome == "fail"
    assert verdict(-some, "+0.02", theirs=some).outcome == "pass"
    assert verdict(some, "+-0.02", theirs=none).outcome == "invalid"
    flat = verdict(none, "+0.02", theirs=np.full(20, 0.3))
    assert (flat.outcome, "the same score on both sides" in flat.sentence) == ("invalid", True)
    assert verdict(some, "+0.02", facts=replace(SATURATION, low=None), theirs=none).outcome == "invalid"


def test_a_shift_that_the_range_forbids_is_no_limit():
    high = np.full(20, 0.97) + 0.01 * np.cos(np.arange(20))
    assert "no rise could exceed" in verdict(np.zeros(20), "+0.5", theirs=high).sentence
    assert verdict(np.zeros(20), "+-0.5", theirs=high).outcome == "pass"


def test_a_suite_is_refused_when_it_is_read_and_not_after_the_run(tmp_path):
    text = (PROMPTS / "mini.toml").read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    (tmp_path / "mini.jsonl").write_bytes((PROMPTS / "mini.jsonl").read_bytes())
    own.write_text(text.replace("[limits]", '[limits]\nsaturation = "0.1"'), encoding="utf-8")
    with pytest.raises(SuiteError, match=r"own\.toml: limits\.saturation is '0\.1', but this metric only describes"):
        read_suite(str(own), None)
    own.write_text(text.replace("[limits]", '[limits]\nsaturation = "+-0.1"'), encoding="utf-8")
    assert read_suite(str(own), None).limits[0].limited == "shift"
