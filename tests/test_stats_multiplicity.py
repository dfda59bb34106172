"""Oracles: scipy.stats, enumeration by hand, and the closure principle."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench import stats

finite = st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False, allow_subnormal=False)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=7)
quick = settings(max_examples=40, deadline=None)


# --- the sign-flip test --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 4.0], 2 / 8),  # only all plus and all minus reach 7
        ([1.0, 2.0, -4.0], 8 / 8),  # the observed sum is the smallest there is
        ([3.0, 2.0, -1.0], 4 / 8),  # 4 is reached by 6, 4 and their mirror images
        ([0.1, 0.2, 0.3, -0.6], 1.0),  # a sum of 0 but for rounding
        ([0.1] * 6, 2 / 64),
        ([0.0, 0.0, 5.0], 1.0),
        ([0.0] * 9, 1.0),
        ([0.0] * 90, 1.0),
        ([5e-324, 5e-324], 0.5),
        ([1e308, 1e308, 1e308], 0.25),
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float) -> None:
    assert stats.sign_flip_p(differences) == pytest.approx(p)


@pytest.mark.parametrize("n", [2, 7, 14])
def test_sign_flip_agrees_with_scipy_where_it_is_exact(n: int) -> None:
    values = np.random.default_rng(n).normal(0.4, 1, n)
    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert stats.sign_flip_p(values) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.35])
def test_random_flips_agree_with_scipy(shift: float) -> None:
    values = np.random.default_rng(3).standard_t(4, 61) + shift
    rng = np.random.default_rng(9)
    flipped = np.abs((rng.choice([-1.0, 1.0], size=(40_000, 61)) * values).sum(axis=1))
    plain = float(np.mean(flipped >= abs(values.sum())))
    # 10,000 flips have a standard error of 0.005 at most.
    assert stats.sign_flip_p(values) == pytest.approx(plain, abs=0.02)
    assert stats.sign_flip_p(values) == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, abs=0.05)


def test_exact_and_random_flips_agree_where_they_meet() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, 14)
    exact, random = stats.sign_flip_p(values), stats.sign_flip_p([*values, 0.0])
    assert exact == pytest.approx(random, abs=0.02)


def test_a_clear_difference_has_the_smallest_p_that_flips_can_give() -> None:
    values = np.random.default_rng(0).normal(2, 0.1, 80)
    assert stats.sign_flip_p(values) == 1 / 10_001
    assert stats.sign_flip_p(values, flips=99) == 0.01


def test_one_difference_has_no_p() -> None:
    assert stats.sign_flip_p([3.0]) is None


@quick
@given(arrays(np.float64, st.integers(2, 40), elements=finite), st.randoms(use_true_random=False))
def test_sign_flip_ignores_order_and_side(values: np.ndarray, random: object) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    p = stats.sign_flip_p(values)
    assert p is not None
    assert 0 < p <= 1
    assert stats.sign_flip_p(shuffled) == stats.sign_flip_p(-values) == p


@pytest.mark.parametrize("n", [10, 40])
def test_a_null_is_rejected_as_often_as_said(n: int) -> None:
    rng = np.random.default_rng(n)
    rejected = sum((stats.sign_flip_p(rng.laplace(size=n), flips=999) or 0) <= 0.05 for _ in range(1000))
    # 5 % of 1,000 has a standard deviation of 6.9.
    assert 28 <= rejected <= 72


def test_500_prompts_take_milliseconds() -> None:
    values = np.random.default_rng(0).normal(size=500)
    start = time.process_time()
    for _ in range(10):
        stats.sign_flip_p(values)
    assert time.process_time() - start < 1


# --- adjustment ----------------------------------------------------------------------------


@quick
@given(p_values)
def test_benjamini_hochberg_agrees_with_scipy(found: list[float]) -> None:
    theirs = scipy.stats.false_discovery_control(found, method="bh")
    assert stats.benjamini_hochberg(found) == pytest.approx(tuple(theirs))


@quick
@given(p_values)
def test_holm_is_bonferroni_closed(found: list[float]) -> None:
    # A hypothesis is rejected if Bonferroni rejects every set that holds it: the largest of those p-values.
    sets = [s for size in range(1, len(found) + 1) for s in itertools.combinations(range(len(found)), size)]
    closed = [
        max(min(1.0, len(s) * min(found[k] for k in s)) for s in sets if number in s) for number in range(len(found))
    ]
    assert stats.holm(found) == pytest.approx(tuple(closed))


@quick
@given(p_values, st.randoms(use_true_random=False))
def test_adjusted_values_keep_order_and_are_never_smaller(found: list[float], random: object) -> None:
    places = list(range(len(found)))
    random.shuffle(places)  # type: ignore[attr-defined]
    for adjust in (stats.holm, stats.benjamini_hochberg):
        adjusted = adjust(found)
        assert all(p <= q <= 1 or q == pytest.approx(p) for p, q in zip(found, adjusted, strict=True))
        assert adjust([found[place] for place in places]) == tuple(adjusted[place] for place in places)
    for one, other in zip(stats.benjamini_hochberg(found), stats.holm(found), strict=True):
        assert one <= other or one == pytest.approx(other)


def test_adjustment_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert stats.benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.04, 0.04))
    assert stats.holm([]) == stats.benjamini_hochberg([]) == ()


@pytest.mark.parametrize("wrong", [[1.5], [-0.1, 0.5], [float("nan")], [[0.1]]])
def test_what_is_no_p_value_is_refused(wrong: list[float]) -> None:
    for adjust in (stats.holm, stats.benjamini_hochberg):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjust(wrong)
