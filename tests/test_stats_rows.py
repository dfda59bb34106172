"""The sign-flip test of whole rows, against every pattern gone through by hand, and the values of groups of rows."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats

WHOLE = st.integers(-20, 20)


def rows_of(columns: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(WHOLE, min_size=columns, max_size=columns), min_size=2, max_size=7)


def by_hand(rows: list[list[int]]) -> float:
    """All 2^n patterns in exact fractions."""
    contrasts = [[Fraction(value) - Fraction(sum(row), len(row)) for value in row] for row in rows]

    def size(signs: tuple[int, ...]) -> Fraction:
        sums = [
            sum(sign * row[place] for sign, row in zip(signs, contrasts, strict=True)) for place in range(len(rows[0]))
        ]
        return sum(value * value for value in sums)

    observed = size((1,) * len(rows))
    patterns = [*itertools.product((1, -1), repeat=len(rows))]
    return sum(size(signs) >= observed for signs in patterns) / len(patterns)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4).flatmap(rows_of))
def test_the_share_of_all_patterns(rows):
    assert stats.sign_flip_rows_p(rows) == pytest.approx(by_hand(rows))


@settings(max_examples=60, deadline=None)
@given(rows_of(2))
def test_two_columns_are_the_test_of_their_difference(rows):
    differences = [one - other for one, other in rows]
    assert stats.sign_flip_rows_p(rows) == pytest.approx(stats.sign_flip_p(differences))


@settings(max_examples=40, deadline=None)
@given(rows_of(3), st.lists(WHOLE, min_size=7, max_size=7))
def test_what_a_row_has_in_all_columns_does_not_matter(rows, shifts):
    moved = [[value + shift for value in row] for row, shift in zip(rows, shifts, strict=False)]
    assert stats.sign_flip_rows_p(moved) == pytest.approx(stats.sign_flip_rows_p(rows))


def test_many_rows_take_random_patterns_and_hold_the_level_with_unequal_spreads():
    dice = np.random.default_rng(3)
    spreads = np.array([1.0, 5.0, 0.2])
    rejected = [stats.sign_flip_rows_p(dice.normal(size=(24, 3)) * spreads, flips=199) <= 0.05 for _ in range(400)]
    assert np.mean(rejected) < 0.085  # 5 % and three standard errors
    clear = dice.normal(size=(24, 3)) + [0.0, 0.0, 1.5]
    assert stats.sign_flip_rows_p(clear) < 0.005


def test_equal_columns_tell_nothing_and_one_row_or_column_has_no_test():
    assert stats.sign_flip_rows_p([[0.1, 0.1], [0.7, 0.7], [3.0, 3.0]]) == 1.0
    assert stats.sign_flip_rows_p([[1.0, 2.0]]) is None
    assert stats.sign_flip_rows_p([[1.0], [2.0]]) is None
    with pytest.raises(ValueError, match="finite"):
        stats.sign_flip_rows_p([[1.0, float("nan")], [1.0, 2.0]])


def test_groups_of_rows_keep_the_means_of_the_columns():
    rows = np.random.default_rng(0).normal(size=(6, 3))
    groups = ["a", "a", "b", "c", "c", "c"]
    found = stats.group_rows(rows, groups)
    assert found.shape == (3, 3)
    assert found.mean(axis=0) == pytest.approx(rows.mean(axis=0))
    assert stats.group_rows(rows).tolist() == rows.tolist()
