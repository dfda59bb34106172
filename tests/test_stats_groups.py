"""Statistics of prompts in groups: what singletons leave as it is, hand-worked groups, and the sandwich of others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.stats.bounds import mean_bounds
from bench.stats.groups import effective_groups

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(VALUES)
@settings(max_examples=40, deadline=None)
def test_where_every_group_is_one_prompt_all_numbers_stay_bit_for_bit(values):
    groups = [f"p{at}" for at in range(len(values))]
    units = stats.group_units(values, groups)
    assert units.values.tolist() == values
    assert (units.effective, units.freedom) == (len(values), max(1, len(values) - 1))
    assert mean_bounds(units.values, freedom=units.freedom) == mean_bounds(values)
    assert stats.t_interval(units.values, freedom=units.freedom) == stats.t_interval(values)
    assert stats.group_sums(values, groups).tolist() == values
    assert stats.effective_share([float(value > 0) for value in values], groups) == len(values)


@given(VALUES, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_copies_of_a_prompt_add_nothing(values, copies):
    """A group of equal prompts is one prompt: the same interval, whatever their number."""
    often = [value for value in values for _ in range(copies)]
    groups = [at for at in range(len(values)) for _ in range(copies)]
    units = stats.group_units(often, groups)
    assert units.effective == pytest.approx(len(values))
    assert units.values == pytest.approx(np.array(values), abs=1e-9 * max(map(abs, values), default=1))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(-100, 100)), min_size=8, max_size=40).filter(
        lambda pairs: len({group for group, _ in pairs}) > 1
    )
)
@settings(max_examples=40, deadline=None)
def test_the_variance_is_that_of_the_jackknife_over_groups(pairs):
    groups, values = zip(*pairs, strict=True)
    units = stats.group_units(values, groups)
    left_out = [
        np.mean([value for other, value in pairs if other != group])
        for group in dict.fromkeys(groups)
    ]  # fmt: skip
    count = len(left_out)
    expected = (count - 1) / count * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)
    assert units.values.var(ddof=1) / count == pytest.approx(expected, abs=1e-9)
    assert units.values.mean() == pytest.approx(np.mean(values), abs=1e-9)
    assert units.sd**2 / units.effective == pytest.approx(expected, abs=1e-9)


def test_unequal_groups_are_worth_fewer_than_they_are():
    assert effective_groups(["a"] * 5 + ["b"] * 5) == 2.0
    assert effective_groups(["a"] * 50 + list(range(50))) == pytest.approx(100**2 / (50**2 + 50))
    assert stats.group_units([1.0] * 9 + [2.0], ["a"] * 9 + ["b"]).freedom == 1.0


def test_one_group_is_one_value():
    units = stats.group_units([1.0, 2.0, 6.0], ["a", "a", "a"])
    assert (units.values.tolist(), units.effective) == ([3.0], 1.0)


def test_a_win_rate_of_groups_that_agree_rests_on_the_groups():
    groups = [at // 5 for at in range(100)]
    agree = [float(group % 2) for group in groups]
    assert stats.effective_share(agree, groups) == pytest.approx(20, rel=0.1)
    mixed = [float(at % 2) for at in range(100)]
    assert stats.effective_share(mixed, groups) == 100.0, "groups that differ inside are no gain"
    assert stats.effective_share([1.0] * 100, groups) == 20.0


def test_intervals_of_grouped_win_rates_hold_the_truth_where_plain_ones_do_not():
    rng, groups = np.random.default_rng(1), [at // 5 for at in range(100)]
    held = plain = 0
    for _ in range(400):
        shared, own = np.repeat(rng.normal(size=20), 5), rng.normal(size=100)
        wins = (np.sqrt(0.3) * shared + np.sqrt(0.7) * own > 0).astype(float)
        alone = stats.effective_share(wins, groups)
        low, high = stats.wilson_interval(wins.mean() * alone, alone)
        held += low <= 0.5 <= high
        low, high = stats.wilson_interval(wins.sum(), 100)
        plain += low <= 0.5 <= high
    assert held / 400 > 0.91
    assert plain / 400 < 0.90


def test_a_sign_flips_for_a_whole_group():
    """Two groups that agree are two signs, so that p is never under 1/2, however many prompts they have."""
    differences = [1.0, 1.1, 0.9, 1.2]
    assert stats.sign_flip_p(differences) == 0.125
    assert stats.sign_flip_p(stats.group_sums(differences, ["a", "a", "b", "b"])) == 0.5


def test_a_ranking_of_copied_rounds_is_that_of_the_rounds_alone():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(12, 3)) + [0.0, 0.4, 0.8]
    alone = stats.fit_davidson(scores)
    names = [at for at in range(12) for _ in range(4)]
    copied = stats.fit_davidson(np.repeat(scores, 4, axis=0), groups=names)
    plain = stats.fit_davidson(np.repeat(scores, 4, axis=0))
    widths = [[high - low for low, high in one.intervals] for one in (alone, copied, plain)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15), "but for what the prior shrinks"
    assert all(thin < 0.6 * wide for thin, wide in zip(widths[2], widths[1], strict=True))
    assert copied.pair_p == pytest.approx(alone.pair_p)
    assert stats.fit_davidson(scores, groups=list(range(12))) == alone
    with pytest.raises(ValueError, match="one group"):
        stats.fit_davidson(scores, groups=["a"] * 12)


# --- what features explain ------------------------------------------------------------------


def test_the_share_that_features_explain_agrees_with_scipys_analysis_of_variance():
    from scipy.stats import f_oneway

    rng = np.random.default_rng(0)
    owner = np.repeat([0, 1, 2], [7, 9, 14])
    values = rng.normal(size=30) + np.array([0.0, 1.0, 0.2])[owner]
    found = stats.explained_by(values, np.eye(3)[owner])
    assert found is not None
    assert found.p == pytest.approx(f_oneway(*(values[owner == at] for at in range(3))).pvalue)
    inner = sum(float(((values[owner == at] - values[owner == at].mean()) ** 2).sum()) for at in range(3))
    total = float(((values - values.mean()) ** 2).sum())
    assert found.share == pytest.approx(1 - inner / 27 / (total / 29))


def test_what_cannot_be_explained_has_no_share():
    assert stats.explained_by([1.0] * 10, [[float(at % 2)] for at in range(10)]) is None
    assert stats.explained_by([1.0, 2.0, 3.0], [[1.0], [1.0], [1.0]]) is None
    assert stats.explained_by([1.0, 2.0, 3.0], [[1.0], [0.0], [1.0]]) is None, "one degree of freedom is left"
    exact = stats.explained_by([1.0, 1.0, 2.0, 2.0, 2.0], [[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert exact is not None
    assert exact.share == pytest.approx(1.0)
    assert math.isclose(exact.p, 0.0, abs_tol=1e-12)
