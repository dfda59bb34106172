"""Verdicts on timed quantities, against scipy's t intervals of the log medians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.baseline import freeze_round
from bench.gate.check import new_check
from bench.gate.timing import check_timing
from bench.records import FrozenRound, SessionNoise
from bench.suite.limits import parse_limit


def verdict(ours, theirs, *, limit="5%", name="end_to_end", one_session=True, noise=None, equal=False):
    unit = "byte" if name.startswith("peak") else "second"
    check = new_check(parse_limit(name, limit), "spo", "base", unit=unit, samples=10, equal_weights=equal)
    frozen = ([freeze_round(values) for values in side] for side in (ours, theirs))
    return check_timing(check, *frozen, one_session=one_session, noise=noise)


def noise(sd, sessions=4, name="end_to_end"):
    return SessionNoise(name=name, sd_log_ratio=sd, sessions=sessions)


def rounds(count, centre, spread, seed=0, images=7):
    rng = np.random.default_rng([seed, count])
    return [list(centre * np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, 0.01, images))) for _ in range(count)]


def log_medians(side):
    """To seven digits, as they are frozen."""
    return np.log([float(f"{np.median(values):.7g}") for values in side])


@pytest.mark.parametrize("count", [2, 5, 12])
def test_rounds_of_one_session_are_paired(count):
    ours, theirs = rounds(count, 1.1, 0.02, 1), rounds(count, 1.0, 0.02, 2)
    interval = scipy_stats.ttest_rel(log_medians(ours), log_medians(theirs)).confidence_interval(0.9)
    found = verdict(ours, theirs)
    assert found.interval.low == pytest.approx(math.exp(interval.low) - 1)
    assert found.interval.high == pytest.approx(math.exp(interval.high) - 1)
    assert found.loss == pytest.approx(math.exp((log_medians(ours) - log_medians(theirs)).mean()) - 1)
    assert found.loss == pytest.approx(found.candidate_mean / found.reference_mean - 1)
    assert (found.n, found.interval.method) == (count, "t over rounds, paired")


@pytest.mark.parametrize(("count", "other"), [(3, 3), (3, 8)])
def test_two_sessions_are_welchs(count, other):
    ours, theirs = rounds(count, 1.1, 0.02, 1), rounds(other, 1.0, 0.03, 2)
    welch = scipy_stats.ttest_ind(log_medians(ours), log_medians(theirs), equal_var=False).confidence_interval(0.9)
    found = verdict(ours, theirs, one_session=False, noise=noise(0.0))
    assert found.interval.low == pytest.approx(math.exp(welch.low) - 1)
    assert found.interval.high == pytest.approx(math.exp(welch.high) - 1)
    assert found.n == min(count, other)


def test_one_session_with_another_number_of_rounds_is_not_paired():
    ours, theirs = rounds(3, 1.1, 0.02, 1), rounds(5, 1.0, 0.03, 2)
    welch = scipy_stats.ttest_ind(log_medians(ours), log_medians(theirs), equal_var=False).confidence_interval(0.9)
    assert verdict(ours, theirs).interval.high == pytest.approx(math.exp(welch.high) - 1)


def test_the_noise_between_sessions_is_a_third_component_with_its_own_freedom():
    ours, theirs = rounds(4, 1.02, 0.03, 1), rounds(6, 1.0, 0.02, 2)
    above, below = log_medians(ours), log_medians(theirs)
    parts = [(above.var(ddof=1) / 4, 3), (below.var(ddof=1) / 6, 5), (0.015**2, 2)]
    total = sum(variance for variance, _ in parts)
    df = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    half = scipy_stats.t.ppf(0.95, df) * math.sqrt(total)
    found = verdict(ours, theirs, one_session=False, noise=noise(0.015, sessions=3))
    shift = above.mean() - below.mean()
    assert found.interval.low == pytest.approx(math.exp(shift - half) - 1)
    assert found.interval.high == pytest.approx(math.exp(shift + half) - 1)
    assert "sessions" in found.interval.method


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (0.8, "pass"), (1.2, "fail"), (1.05, "inconclusive")])
def test_the_interval_and_the_margin_decide(factor, outcome):
    found = verdict(rounds(8, factor, 0.005, 1), rounds(8, 1.0, 0.005, 2))
    assert found.outcome == outcome
    assert found.margin == pytest.approx(0.05)
    assert (found.needed is not None) == (outcome == "inconclusive")


def test_a_floor_is_a_share_of_the_reference():
    found = verdict(rounds(8, 0.0115, 0.002, 1), rounds(8, 0.01, 0.002, 2), limit="5% floor 2ms")
    assert found.margin == pytest.approx(0.2, rel=0.02)
    assert found.outcome == "pass"


@pytest.mark.parametrize("known", [None, SessionNoise(name="end_to_end", sd_log_ratio=0.01, sessions=1)])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_without_calibrated_noise_two_sessions_are_never_decided(known, factor):
    found = verdict(rounds(9, factor, 0.001, 1), rounds(9, 1.0, 0.001, 2), one_session=False, noise=known)
    assert (found.outcome, found.needed) == ("inconclusive", None)
    assert "hotart-bench calibrate" in found.sentence


def test_a_single_round_decides_nothing():
    found = verdict([[1.0, 1.0]], [[9.0, 9.0]])
    assert (found.outcome, found.interval, found.needed) == ("inconclusive", None, None)
    assert "a single round decides nothing" in found.sentence


def test_memory_that_repeats_exactly_is_decided_by_two_rounds():
    same = [[1e9], [1e9]]
    assert verdict([[1.02e9], [1.02e9]], same, limit="3%", name="peak_allocated").outcome == "pass"
    found = verdict([[1.04e9], [1.04e9]], same, limit="3%", name="peak_allocated")
    assert found.outcome == "fail"
    assert found.sentence.startswith("peak_allocated of spo against base took up 4.0 % more (992 MiB against 954 MiB")


def test_noise_that_more_rounds_cannot_mend_is_told():
    ours, theirs = rounds(5, 1.03, 0.01, 1), rounds(5, 1.0, 0.01, 2)
    found = verdict(ours, theirs, one_session=False, noise=noise(0.05, sessions=40))
    assert (found.outcome, found.needed) == ("inconclusive", None)
    assert "more rounds would not decide it" in found.sentence


def test_the_number_of_rounds_would_decide_it():
    ours, theirs = [[1.0], [1.06], [0.98], [1.07]], [[1.0]] * 4
    found = verdict(ours, theirs)
    spread = (log_medians(ours) - log_medians(theirs)).std(ddof=1)
    away = abs(math.log(1.05) - math.log1p(found.loss))
    reach = [
        (scipy_stats.t.ppf(0.95, n - 1) + scipy_stats.t.ppf(0.8, n - 1)) * spread / math.sqrt(n)
        for n in (found.needed - 1, found.needed)
    ]
    assert found.outcome == "inconclusive"
    assert reach[1] <= max(away, 0.1 * math.log(1.05)) < reach[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((), [[1.0]], "the candidate has no values"),
        ([[1.0]], (), "the reference has no values"),
        ([[1.0], [0.0]], [[1.0], [1.0]], "0 or less or infinite"),
        ([[1.0], [1.0]], [[1.0], [-1.0]], "the reference has a value that is 0 or less"),
        ([[1.0], [math.inf]], [[1.0], [1.0]], "infinite"),
        ([[1.0], [math.nan]], [[1.0], [1.0]], "0 or less or infinite"),
    ],
)
def test_what_no_clock_gives_is_invalid(ours, theirs, words):
    found = verdict(ours, theirs)
    assert found.outcome == "invalid"
    assert words in found.sentence


@pytest.mark.parametrize("median", [None, 0.0, -1.0, math.inf, math.nan])
def test_a_frozen_median_that_no_clock_gives_is_invalid(median):
    check = new_check(parse_limit("end_to_end", "5%"), "spo", "base", unit="second", samples=10)
    sound, strange = FrozenRound(median=1.0, values=3), FrozenRound(median=median, values=3)
    for sides in (([sound, strange], [sound] * 2), ([sound] * 2, [strange, sound])):
        assert check_timing(check, *sides, one_session=True, noise=None).outcome == "invalid"


@given(st.lists(st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)), min_size=2, max_size=5), st.booleans())
def test_whatever_the_times_the_verdict_means_what_it_says(times, one_session):
    found = verdict([[a] for a, _ in times], [[b] for _, b in times], one_session=one_session, noise=noise(0.01))
    assert found.interval.low <= found.interval.high
    if found.outcome == "pass":
        assert found.interval.high <= found.margin
    if found.outcome == "fail":
        assert found.interval.low > found.margin


def test_gates_at_the_margin_pass_and_fail_in_one_of_twenty():
    """Two sessions, each with a shift of its own, of which calibration tells the variance from as many sessions."""
    rng = np.random.default_rng(3)
    count, outcomes = 1500, []
    for _ in range(count):
        shift = rng.normal(0, 0.01, 2) + (math.log(1.05), 0.0)
        sides = [[[math.exp(at + error)] for error in rng.normal(0, 0.01, 4)] for at in shift]
        # What calibrate sees of a session is its median, with the noise of its rounds: var = 2 (s^2 + r^2 / 4).
        true = 2 * (0.01**2 + 0.01**2 / 4)
        sd = math.sqrt(true * rng.chisquare(5) / 5)
        outcomes.append(verdict(*sides, one_session=False, noise=noise(sd, sessions=6)).outcome)
    # The rounds' noise counts twice, so less than the nominal 5 %; three standard errors above it would be 6.7 %.
    assert 0.01 < outcomes.count("pass") / count < 0.067
    assert 0.01 < outcomes.count("fail") / count < 0.067


def test_energy_is_in_joules():
    check = new_check(parse_limit("energy_per_image", "5%"), "spo", "base", unit="joule", samples=3)
    sides = [[FrozenRound(median=size * at, values=3) for at in (1.0, 1.001, 0.999)] for size in (220.0, 200.0)]
    found = check_timing(check, *sides, one_session=True, noise=None)
    assert (found.outcome, found.unit) == ("fail", "joule")
    assert found.sentence.startswith(
        "energy_per_image of spo against base used 10.0 % more (220 J against 200 J, 3 rounds)"
    )


def test_the_words():
    ours, theirs = rounds(8, 0.2, 0.002, 1), rounds(8, 0.16, 0.002, 2)
    found = verdict(ours, theirs, equal=True).sentence
    assert found.startswith("end_to_end of spo against base took 2")
    assert "% longer (2" in found
    assert "8 rounds); at most 5.0 % longer is allowed, and the true figure is larger than that" in found
    assert found.endswith("; the weights on both sides are equal, so the change is not the model's.")
