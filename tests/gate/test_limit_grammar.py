"""Limits as they are written, and what they come to."""

from __future__ import annotations

import statistics

import pytest
from fakes import make_run
from msgspec.structs import replace

from bench.errors import UsageError
from bench.gate.check import timing_margin
from bench.records import Limit
from bench.suite.limits import check_metric_limit, metric_margin, parse_limit

FACTS = {facts.name: facts for facts in make_run("r", prompts=2).info.metrics}


@pytest.mark.parametrize(
    ("name", "text", "kind", "amount", "floor"),
    [
        ("mini-clip", "0.05", "absolute", 0.05, None),
        ("mini-clip", "0.1sd", "sd", 0.1, None),
        ("mini-clip", "2%", "relative", 0.02, None),
        ("mini-clip", "0.1sd floor 0.01", "sd", 0.1, 0.01),
        ("end_to_end", "5% floor 20ms", "relative", 0.05, 0.02),
        ("end_to_end", "20ms", "absolute", 0.02, None),
        ("denoise_step", "1.5us", "absolute", 1.5e-6, None),
        ("load", "2s", "absolute", 2.0, None),
        ("peak_allocated", "3%", "relative", 0.03, None),
        ("peak_rss", "3% floor 64MiB", "relative", 0.03, 64 * 2**20),
        ("peak_process", "1.5GiB", "absolute", 1.5 * 2**30, None),
        ("peak_rss", "512B", "absolute", 512, None),
    ],
)
def test_every_form(name, text, kind, amount, floor):
    found = parse_limit(name, text)
    assert (found.name, found.text, found.kind) == (name, text, kind)
    assert found.amount == pytest.approx(amount)
    assert found.floor == (None if floor is None else pytest.approx(floor))


@pytest.mark.parametrize(
    "text", ["", "much", "--0.1", "nan", "inf", "0,1", "1e3", " 0.1", "0.1 sd", "5% floor", "٣%", "%"]
)
def test_what_is_no_limit_is_refused_with_the_forms(text):
    with pytest.raises(UsageError, match=r'limits\.mini-clip is .*"0\.05".*"0\.1sd"') as caught:
        parse_limit("mini-clip", text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("text", ["0", "0.0sd", "0%", "5% floor 0", "9" * 400])
def test_an_amount_of_nothing_or_of_everything_is_refused(text):
    with pytest.raises(UsageError, match="over 0 and finite"):
        parse_limit("mini-clip", text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mini-clip", "20ms", "'ms' does not fit mini-clip"),
        ("mini-clip", "5MiB", "'MiB' does not fit"),
        ("mini-clip", "2% floor 20ms", "'ms' does not fit"),
        ("end_to_end", "0.1sd", "'sd' does not fit end_to_end.*20ms"),
        ("end_to_end", "20MiB", "'MiB' does not fit"),
        ("end_to_end", "0.05", "a number without a unit does not fit"),
        ("end_to_end", "5% floor 20", "a number without a unit"),
        ("peak_allocated", "20ms", "'ms' does not fit peak_allocated.*64MiB"),
        ("peak_reserved", "3%", "reported and not gated"),
    ],
)
def test_a_unit_that_does_not_fit_is_refused(name, text, words):
    with pytest.raises(UsageError, match=words):
        parse_limit(name, text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("saturation", "0.1", "only describes"),
        ("ssim-to-base", "0.1", "a distance to the reference"),
        ("mini-clip", "2%", "does not mean none"),
        ("mini-aesthetic", "2%", "does not mean none"),
        ("mini-clip", "2", "no loss could exceed"),
        ("mini-clip", "0.1sd floor 2", "no loss could exceed"),
    ],
)
def test_a_limit_that_says_nothing_of_its_metric_is_refused(name, text, words):
    facts = FACTS[name]
    if name == "ssim-to-base":
        facts = replace(facts, higher_is_better=True)
    with pytest.raises(UsageError, match=words):
        check_metric_limit(parse_limit(name, text), facts)


def test_a_share_of_all_that_there_is_is_refused_only_where_more_is_better():
    facts = replace(FACTS["mini-aesthetic"], low=0.0)
    check_metric_limit(parse_limit("mini-aesthetic", "99%"), facts)
    with pytest.raises(UsageError, match="no loss could exceed"):
        check_metric_limit(parse_limit("mini-aesthetic", "100%"), facts)
    check_metric_limit(parse_limit("mini-aesthetic", "150%"), replace(facts, higher_is_better=False))


MEANS = (1.0, 2.0, 4.0, 9.0)


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("0.3", 0.3),
        ("0.1sd", 0.1 * statistics.stdev(MEANS)),
        ("5%", 0.05 * statistics.fmean(MEANS)),
        ("5% floor 0.1", 0.05 * statistics.fmean(MEANS)),
        ("5% floor 0.7", 0.7),
    ],
)
def test_margins_of_metrics(text, margin):
    assert metric_margin(parse_limit("m", text), MEANS) == (pytest.approx(margin), "")


def test_no_margin_comes_with_its_reason():
    assert metric_margin(parse_limit("m", "0.1sd"), [2.0, 2.0]) == (
        None,
        "its limit is in standard deviations, and the reference scores the same on every prompt",
    )
    assert "which is 0" in metric_margin(parse_limit("m", "2%"), [0.0, 0.0])[1]
    assert "one prompt" in metric_margin(parse_limit("m", "0.1sd"), [2.0])[1]
    assert metric_margin(parse_limit("m", "0.1sd floor 0.4"), [2.0, 2.0]) == (0.4, "")


def test_margins_of_times_are_shares_of_the_reference():
    def limit(text: str) -> Limit:
        return parse_limit("end_to_end", text)

    assert timing_margin(limit("5% floor 20ms"), 0.1) == pytest.approx(0.2)
    assert timing_margin(limit("5% floor 20ms"), 1.0) == pytest.approx(0.05)
    assert timing_margin(limit("30ms"), 0.6) == pytest.approx(0.05)
