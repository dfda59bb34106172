"""The gate's interval against Hall's transformation solved by bisection, and the power against drawn gates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from bench.stats.bounds import MIN_PROMPTS, detectable_loss, hall_quantile, mean_bounds, power_of_pass, prompts_for

values = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=30)


def transformed(t, a):
    """Hall's g: t + a t^2 / 3 + a^2 t^3 / 27 + a / 6, with a the skewness over sqrt(n)."""
    return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6


@pytest.mark.parametrize("a", [-0.9, -0.2, 1e-3, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("q", [-2.4, -1.65, -0.3, 0.0, 1.65, 2.4])
def test_halls_quantile_is_the_inverse_of_his_transformation(a, q):
    # g is monotone, (1 + a t / 3)^2 >= 0, so there is one solution.
    solved = optimize.brentq(lambda t: transformed(t, a) - q, -1e3, 1e3, xtol=1e-13)
    assert hall_quantile(q, a) == pytest.approx(solved, abs=1e-9)


def test_without_skewness_the_transformation_does_nothing():
    assert hall_quantile(1.7, 0.0) == pytest.approx(1.7)
    assert hall_quantile(1.7, 1e-14) == pytest.approx(1.7, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [5, 25, 200])
def test_each_end_is_the_wider_of_students_and_halls(seed, n):
    data = np.random.default_rng(seed).exponential(size=n) * (-1) ** seed
    t = scipy_stats.t.ppf(0.95, n - 1)
    step = data.std(ddof=1) / math.sqrt(n)
    a = scipy_stats.skew(data) / math.sqrt(n)
    hall = [
        data.mean() - step * optimize.brentq(lambda x, q=q: transformed(x, a) - q, -1e4, 1e4, xtol=1e-13)
        for q in (t, -t)
    ]
    low, high = mean_bounds(data)
    assert low == pytest.approx(min(hall[0], data.mean() - t * step), rel=1e-7)
    assert high == pytest.approx(max(hall[1], data.mean() + t * step), rel=1e-7)
    # A long tail on one side widens that side.
    assert (hall[1] > data.mean() + t * step) == (a > 0)


@given(values)
@example([232.0, 594.0, 1000.0, 1.4257947101400532, 540.2284840808215, 540.2284840808215, -265.0980637238923])
def test_the_negated_values_have_the_mirror_image(data):
    low, high = mean_bounds(data)
    assert mean_bounds([-value for value in data]) == (-high, -low)


@given(values, st.randoms())
def test_the_order_does_not_matter(data, random):
    shuffled = list(data)
    random.shuffle(shuffled)
    assert mean_bounds(shuffled) == mean_bounds(data)


@given(values, st.sampled_from([1e-150, 1e-9, 1e9, 1e150]))
def test_the_interval_scales_with_the_values(data, scale):
    assume(len(set(data)) > 1 and np.ptp(data) > 1e-3)
    low, high = mean_bounds(data)
    scaled = mean_bounds([scale * value for value in data])
    assert scaled == pytest.approx((scale * low, scale * high), rel=1e-6, abs=1e-6 * scale * np.ptp(data))


@given(values)
def test_it_holds_the_mean_and_students_interval(data):
    low, high = mean_bounds(data)
    t = scipy_stats.t.ppf(0.95, len(data) - 1) * np.std(data, ddof=1) / math.sqrt(len(data))
    slack = 1e-9 * (1 + np.abs(data).max())
    assert low <= np.mean(data) - t + slack
    assert high >= np.mean(data) + t - slack


def test_constant_values_have_no_width():
    assert mean_bounds([0.3] * 7) == (0.3, 0.3)


@pytest.mark.parametrize("data", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_what_has_no_interval_is_refused(data):
    with pytest.raises(ValueError):
        mean_bounds(data)


@pytest.mark.parametrize(("n", "margin", "loss"), [(12, 0.9, 0.0), (25, 0.5, 0.0), (60, 0.3, 0.1), (200, 0.2, 0.0)])
def test_gates_pass_as_often_as_the_formula_says(n, margin, loss):
    rng = np.random.default_rng(n)
    passed = sum(mean_bounds(rng.normal(loss, 1.0, n))[1] <= margin for _ in range(2500))
    # Three standard errors of the simulated share.
    assert power_of_pass(n, 1.0, margin, loss) == pytest.approx(passed / 2500, abs=0.03)


@pytest.mark.parametrize("n", [10, 40, 1000])
def test_the_power_is_a_little_under_students(n):
    nct = scipy_stats.nct.sf(scipy_stats.t.ppf(0.95, n - 1), n - 1, 2.5)
    ours = power_of_pass(n, 2.0, 2.0 * 2.5 / math.sqrt(n), 0.0)
    assert nct - 0.5 / n <= ours < nct


def test_a_gate_passes_a_loss_of_its_margin_in_at_most_one_of_twenty():
    for n in (10, 25, 400):
        assert 0.03 < power_of_pass(n, 1.0, 0.3, 0.3) <= 0.05


def test_too_few_prompts_never_pass_and_no_spread_leaves_no_doubt():
    assert power_of_pass(MIN_PROMPTS - 1, 1.0, 100.0, 0.0) == 0.0
    assert power_of_pass(50, 0.0, 0.1, 0.1) == 1.0
    assert power_of_pass(50, 0.0, 0.1, 0.2) == 0.0
    assert prompts_for(0.1, 0.0) == MIN_PROMPTS
    assert detectable_loss(MIN_PROMPTS - 1, 1.0) is None


@given(st.floats(0.05, 2.0), st.floats(0.0, 0.9), st.floats(0.1, 0.99))
def test_the_number_of_prompts_is_the_smallest_with_the_power(margin, part, power):
    n = prompts_for(margin, 1.0, part * margin, power)
    assert power_of_pass(n, 1.0, margin, part * margin) >= power
    assert n == MIN_PROMPTS or power_of_pass(n - 1, 1.0, margin, part * margin) < power


@pytest.mark.parametrize("n", [10, 25, 400])
def test_the_detectable_loss_is_the_margin_passed_in_eighty_of_a_hundred(n):
    found = detectable_loss(n, 3.0)
    assert power_of_pass(n, 3.0, found, 0.0) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0, math.nan])
def test_a_power_that_is_none_is_refused(power):
    with pytest.raises(ValueError):
        prompts_for(0.1, 1.0, 0.0, power)
    with pytest.raises(ValueError):
        detectable_loss(50, 1.0, power)


def test_a_loss_of_the_margin_can_be_planned_for_by_no_number():
    with pytest.raises(ValueError, match="no number of prompts"):
        prompts_for(0.1, 1.0, 0.1)
