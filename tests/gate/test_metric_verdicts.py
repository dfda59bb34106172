"""Verdicts on one metric, from values whose statistics is known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from fakes import make_run
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.gate.check import new_check
from bench.gate.quality import check_metric
from bench.records import Prompt
from bench.stats.bounds import detectable_loss, mean_bounds, prompts_for
from bench.suite.limits import parse_limit

(FACTS,) = (facts for facts in make_run("r", prompts=2).info.metrics if facts.name == "mini-aesthetic")
LOWER = replace(FACTS, higher_is_better=False)


def verdict(ours, theirs, limit="0.1", facts=FACTS, equal=False, reference="spo"):
    check = new_check(
        parse_limit("mini-aesthetic", limit), "spo", reference, unit="points", samples=2, equal_weights=equal
    )
    return check_metric(check, facts, [Prompt(id=f"p{at:02d}", text="") for at in range(len(ours))], ours, theirs)


def pair(n, loss, sd, seed=0):
    """Scores of two sides whose losses have exactly this mean and standard deviation."""
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=n)
    losses = loss + sd * (losses - losses.mean()) / losses.std(ddof=1)
    theirs = rng.normal(5, 1, n)
    return (theirs - losses).tolist(), theirs.tolist()


@pytest.mark.parametrize(("loss", "outcome"), [(0.0, "pass"), (-0.5, "pass"), (0.5, "fail"), (0.1, "inconclusive")])
def test_the_interval_and_the_margin_decide(loss, outcome):
    found = verdict(*pair(100, loss, 0.2))
    assert found.outcome == outcome
    assert found.loss == pytest.approx(loss, abs=1e-12)
    assert (found.margin, found.n, found.samples) == (0.1, 100, 2)
    assert found.interval.level == 0.9
    assert found.detectable == pytest.approx(detectable_loss(100, 0.2))
    assert (found.needed is None) == (outcome != "inconclusive")


def test_the_edges_of_the_margin_belong_to_pass_and_to_doubt():
    ours, theirs = pair(50, 0.05, 0.2)
    low, high = mean_bounds(np.array(theirs) - np.array(ours))
    assert verdict(ours, theirs, limit=f"{high + 1e-9:.12f}").outcome == "pass"
    assert verdict(ours, theirs, limit=f"{high - 1e-9:.12f}").outcome == "inconclusive"
    shifted = (np.array(ours) - 1).tolist()
    assert verdict(shifted, theirs, limit=f"{low + 1 - 1e-9:.12f}").outcome == "fail"
    assert verdict(shifted, theirs, limit=f"{low + 1 + 1e-9:.12f}").outcome == "inconclusive"


def test_where_lower_is_better_a_rise_is_the_loss():
    ours, theirs = pair(100, 0.5, 0.2)
    assert verdict(ours, theirs, facts=LOWER).outcome == "pass"
    found = verdict(theirs, ours, facts=LOWER)
    assert (found.outcome, found.loss) == ("fail", pytest.approx(0.5))
    assert "rose by 0.500" in found.sentence
    assert "a rise of at most 0.100 is allowed" in found.sentence


@given(st.integers(0, 10_000), st.sampled_from([-0.3, 0.0, 0.09, 0.2]))
def test_turning_the_direction_and_the_sides_turns_nothing_else(seed, loss):
    ours, theirs = pair(30, loss, 0.3, seed)
    one, other = verdict(ours, theirs), verdict(theirs, ours, facts=LOWER)
    assert (one.outcome, one.loss, one.interval, one.needed) == (
        other.outcome,
        other.loss,
        other.interval,
        other.needed,
    )


def test_what_would_decide_it_is_planned_for_the_loss_that_was_seen():
    found = verdict(*pair(50, 0.04, 0.5))
    assert found.needed == pytest.approx(prompts_for(0.06, 0.5), abs=1)
    assert f"about {found.needed:,} prompts would probably decide it" in found.sentence
    nearly = verdict(*pair(50, 0.1, 0.5))
    assert nearly.needed == pytest.approx(prompts_for(0.01, 0.5), rel=0.01)
    # However lucky the estimate, more prompts than there are.
    assert verdict(*pair(12, -0.02, 0.25)).needed > 12


def test_the_ten_worst_prompts_stand_first_and_gains_are_not_among_them():
    theirs = [1.0] * 20 + [2.0]
    ours = [1.0 - loss for loss in (0.5, 0.9, 0.1, *([0.2] * 8), *([-0.3] * 9))] + [2.0]
    found = verdict(ours, theirs)
    assert [one.prompt_id for one in found.worst] == [
        "p01",
        "p00",
        "p03",
        "p04",
        "p05",
        "p06",
        "p07",
        "p08",
        "p09",
        "p10",
    ]
    assert (found.worst[0].candidate, found.worst[0].reference) == (pytest.approx(0.1), 1.0)
    assert found.worst[0].loss == pytest.approx(0.9)
    assert verdict([1.0, 1.2] * 6, [1.0] * 12).worst == ()


@pytest.mark.parametrize("n", [2, 5, 9])
@pytest.mark.parametrize("loss", [-3.0, 0.0, 3.0])
def test_under_ten_prompts_nothing_passes_or_fails(n, loss):
    found = verdict(*pair(n, loss, 0.001))
    assert found.outcome == "inconclusive"
    assert found.needed >= 10
    assert "fewer than 10 prompts decide nothing" in found.sentence
    assert found.detectable is None


@pytest.mark.parametrize("limit", ["0.1", "0.1sd"])
def test_one_prompt(limit):
    found = verdict([1.0], [2.0], limit=limit)
    assert (found.outcome, found.needed, found.interval) == ("inconclusive", 10, None)
    assert "over 1 prompt;" in found.sentence


@pytest.mark.parametrize("values", [[5.0], [5.0, 6.0] * 2, [1.0, 2.0, 3.0] * 6])
@pytest.mark.parametrize("limit", ["0.1", "0.1sd"])
def test_equal_weights_with_equal_values_pass_and_say_so(values, limit):
    found = verdict(values, list(values), limit=limit, equal=True)
    assert (found.outcome, found.loss, found.equal_weights) == ("pass", 0.0, True)
    assert "the weights on both sides are equal" in found.sentence


@pytest.mark.parametrize("n", [2, 9, 30])
@pytest.mark.parametrize("limit", ["0.1", "0.1sd"])
def test_equal_weights_do_not_excuse_a_metric_that_says_the_same_of_every_prompt(n, limit):
    found = verdict([5.0] * n, [5.0] * n, limit=limit, equal=True)
    assert found.outcome == "invalid"
    assert "the same score on both sides" in found.sentence


def test_equal_weights_with_other_values_are_judged_as_any_others():
    found = verdict(*pair(100, 0.5, 0.2), equal=True)
    assert found.outcome == "fail"
    assert "the weights on both sides are equal, so the change is not the model's" in found.sentence
    assert verdict(*pair(5, 0.0, 0.2), equal=True).outcome == "inconclusive"


def test_no_prompt_changed_although_the_weights_differ():
    values = [float(at % 7) for at in range(30)]
    found = verdict(values, list(values))
    assert (found.outcome, found.loss) == ("pass", 0.0)
    assert "no prompt changed, over 30 prompts, although the weights differ" in found.sentence
    assert verdict(values[:9], values[:9]).outcome == "inconclusive"


def test_the_same_change_on_every_prompt_needs_no_interval():
    theirs = [float(at % 8) for at in range(30)]
    assert verdict([value - 0.0625 for value in theirs], theirs).outcome == "pass"
    assert verdict([value - 0.25 for value in theirs], theirs).outcome == "fail"


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([], [], "there is no prompt"),
        ([1.0, None, 2.0], [1.0, 2.0, 3.0], r"the candidate lacks scores of 1 prompt of 3 \(p01\)"),
        ([1.0, 2.0], [None, None], "the reference lacks scores of 2 prompts of 2"),
        ([math.inf] + [1.0] * 20, [1.0] * 21, "the candidate has scores that are infinite or not a number, on p00"),
        ([1.0] * 21, [1.0] * 20 + [math.nan], "the reference has scores .* on p20"),
        ([1e200] * 20, [float(at) for at in range(20)], "infinite or not a number"),
        ([3.0] * 20, [3.0] * 20, "the same score on both sides"),
        ([3.0] * 20, [2.0] * 20, "the same score on both sides"),
    ],
)
def test_what_cannot_be_judged(ours, theirs, words):
    found = verdict(ours, theirs)
    assert found.outcome == "invalid"
    assert found.needed is None
    assert re.search(words, found.sentence)


@pytest.mark.parametrize(
    ("low", "high", "better", "limit", "outcome"),
    [
        (0.0, 100.0, True, "0.1", "pass"),
        (0.0, 100.0, True, "4.9", "pass"),
        (0.0, 100.0, True, "5", "invalid"),
        (0.0, 100.0, True, "1000sd", "invalid"),
        (None, 100.0, True, "1000sd", "pass"),
        (0.0, 6.0, False, "0.9", "pass"),
        (0.0, 6.0, False, "1", "invalid"),
        (0.0, None, False, "1", "pass"),
    ],
)
@pytest.mark.parametrize("equal", [False, True])
def test_a_limit_that_no_loss_could_exceed_is_invalid(low, high, better, limit, outcome, equal):
    values = [4.5, 5.5] * 10  # mean 5
    found = verdict(
        values, values, limit=limit, facts=replace(FACTS, low=low, high=high, higher_is_better=better), equal=equal
    )
    assert found.outcome == outcome
    assert ("no loss could exceed" in found.sentence) == (outcome == "invalid")


@pytest.mark.parametrize("limit", ["0.1sd", "0.5"])
@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_scores_that_do_not_vary_from_prompt_to_prompt_are_invalid_on_either_side(limit, spread):
    varied = [float(at % 3) for at in range(20)]
    flat = [1.0 + spread * value for value in varied]
    for ours, theirs, side in ((flat, varied, "the candidate"), (varied, flat, "the reference")):
        found = verdict(ours, theirs, limit=limit)
        assert (found.outcome, found.margin) == ("invalid", None)
        assert side in found.sentence
        assert "say nothing of its images" in found.sentence
    half = [0.5 * value for value in varied]
    assert verdict(half, varied, limit=limit).outcome != "invalid"


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=10, max_size=25),
    st.sampled_from(["0.001", "0.1sd", "1000"]),
)
def test_whatever_the_scores_pass_and_fail_mean_what_they_say(scores, limit):
    found = verdict([one for one, _ in scores], [other for _, other in scores], limit=limit)
    if found.outcome in ("pass", "fail"):
        assert found.interval.low <= found.interval.high
        assert (found.interval.high <= found.margin) if found.outcome == "pass" else found.interval.low > found.margin
        assert (found.outcome == "pass") == (found.loss <= found.margin)
    assert found.sentence.endswith(".")
    assert "nan" not in found.sentence


@pytest.mark.parametrize(
    ("loss", "moved", "reason"),
    [
        (0.031, "fell by 0.0310", "the fall is larger than that: at least 0.02"),
        (-0.2, "rose by 0.2000", "with 95 % confidence there is none."),
        (0.001, "fell by 0.0010", "with 95 % confidence it is no larger than 0.005"),
    ],
)
def test_the_sentences(loss, moved, reason):
    sentence = f"mini-aesthetic of spo {moved} on average over 240 prompts; a fall of at most 0.0100 is allowed, and "
    assert (sentence + reason) in verdict(*pair(240, loss, 0.04), limit="0.01").sentence


def test_another_reference_is_named():
    assert verdict(*pair(20, 0.0, 0.1), reference="base").sentence.startswith("mini-aesthetic of spo against base ")


@pytest.mark.parametrize("slope", [-0.2, 0.0, 0.2])
def test_a_limit_in_sd_holds_its_level_as_one_of_these_prompts(slope):
    """Skewed scores, losses that hang on them, and a true loss of exactly 0.25 sd of the prompts at hand."""
    rng = np.random.default_rng(5)
    count, outcomes = 600, []
    for _ in range(count):
        theirs = rng.exponential(size=40)
        losses = 0.25 * theirs.std(ddof=1) + slope * (theirs - 1) + rng.normal(0, 0.2, 40)
        outcomes.append(verdict((theirs - losses).tolist(), theirs.tolist(), limit="0.25sd").outcome)
    assert 0.01 < outcomes.count("pass") / count < 0.08
    assert 0.01 < outcomes.count("fail") / count < 0.08


def test_a_face_on_every_picture_of_the_reference_is_no_broken_score():
    faces = replace(FACTS, low=0.0, high=1.0)
    lost = [0.0] * 30 + [1.0] * 70
    assert verdict(lost, [1.0] * 100, limit="0.05", facts=faces).outcome == "fail"
    assert verdict([1.0] * 100, lost, limit="0.05", facts=faces).outcome == "pass"
    assert verdict(lost, [0.0] * 100, limit="0.05", facts=faces).outcome == "invalid"
