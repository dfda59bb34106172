"""Bands that hold a whole curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats


def walks(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Curves of mean 0 whose columns hang together, as those of steps do."""
    return rng.normal(size=(rows, 1)) + 0.7 * np.cumsum(rng.normal(size=(rows, columns)), axis=1)


def test_the_band_holds_the_whole_curve_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    bands = [stats.simultaneous_band(walks(rng, 40, 10), resamples=400, seed=n) for n in range(400)]
    held = np.mean([((one.low <= 0) & (one.high >= 0)).all() for one in bands])
    single = np.mean([one.low[0] <= 0 <= one.high[0] for one in bands])
    assert 0.92 <= held <= 0.98
    assert single > held  # each step by itself is held more often


def test_one_column_is_as_wide_as_students_interval() -> None:
    values = np.random.default_rng(2).normal(size=(60, 1))
    low, high = stats.t_interval(values[:, 0])
    band = stats.simultaneous_band(values)
    assert band.high[0] - band.low[0] == pytest.approx(high - low, rel=0.06)


@given(st.integers(0, 100), st.floats(0.01, 100), st.floats(-100, 100))
def test_the_band_goes_with_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    values = np.random.default_rng(seed).normal(size=(8, 3))
    plain = stats.simultaneous_band(values, resamples=200)
    moved = stats.simultaneous_band(scale * values + shift, resamples=200)
    np.testing.assert_allclose(moved.low, scale * plain.low + shift, rtol=1e-6, atol=1e-6 * scale)


def test_a_constant_column_has_no_width_and_widens_no_other() -> None:
    values = np.random.default_rng(3).normal(size=(20, 2))
    alone, beside = (stats.simultaneous_band(one) for one in (values, np.column_stack([values, np.full(20, 0.1)])))
    assert beside.low[2] == beside.high[2] == pytest.approx(0.1)
    np.testing.assert_array_equal(alone.low, beside.low[:2])


@pytest.mark.parametrize("values", [np.zeros((1, 3)), np.zeros(4), np.array([[0.0], [np.nan]])])
def test_too_few_rows_and_what_is_not_finite_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2 or more rows"):
        stats.simultaneous_band(values)


def test_a_share_near_one_leaves_the_other_columns_their_bands() -> None:
    """Most draws lack the one row that is not like the others: they say nothing against the other columns."""
    rng = np.random.default_rng(6)
    early = rng.integers(0, 2, size=(95, 3)).astype(float)
    late = np.ones((95, 1))
    late[7] = 0.0
    alone, beside = (stats.simultaneous_band(one) for one in (early, np.hstack([early, late])))
    assert np.isfinite(beside.high).all()
    widened = (beside.high - beside.low)[:3] / (alone.high - alone.low)
    assert (widened >= 1).all()
    assert (widened < 1.5).all()


def test_two_rows_say_nothing() -> None:
    """In half of the draws one row stands alone, so no width is wide enough."""
    assert np.isinf(stats.simultaneous_band(np.array([[0.0, 1.0], [1.0, 3.0]])).high).all()
