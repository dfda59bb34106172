"""Oracles: the likelihood written anew and maximised numerically, two players by hand, cliques by search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats

quick = settings(max_examples=40, deadline=None)
tables = st.tuples(st.integers(2, 12), st.integers(2, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 3).map(float), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


def _maximised(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Strengths and nu by a general optimiser on Davidson's likelihood, with half a win and loss a pair."""
    players = scores.shape[1]

    def loss(parameters: np.ndarray) -> float:
        p, nu, total = np.exp([*parameters[:-1], -sum(parameters[:-1])]), math.exp(parameters[-1]), 0.0
        for i, j in itertools.combinations(range(players), 2):
            tie = nu * math.sqrt(p[i] * p[j])
            whole = p[i] + p[j] + tie
            wins, losses = (scores[:, i] > scores[:, j]).sum() + 0.5, (scores[:, i] < scores[:, j]).sum() + 0.5
            ties = (scores[:, i] == scores[:, j]).sum()
            total -= wins * math.log(p[i] / whole) + losses * math.log(p[j] / whole) + ties * math.log(tie / whole)
        return total

    found = scipy.optimize.minimize(loss, np.zeros(players), method="Nelder-Mead", options={
        "xatol": 1e-9, "fatol": 1e-11, "maxiter": 40_000, "maxfev": 40_000, "adaptive": True,
    })  # fmt: skip
    return np.array([*found.x[:-1], -sum(found.x[:-1])]), math.exp(found.x[-1])


@pytest.mark.parametrize("players", [2, 3, 4])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_strengths_maximise_the_likelihood(players: int, spread: float) -> None:
    rng = np.random.default_rng(players)
    scores = np.round(rng.normal(spread * np.linspace(0, 1, players), 1, size=(40, players)) / 0.8)
    strengths, nu = _maximised(scores)
    fit = stats.fit_davidson(scores)
    assert fit.strengths == pytest.approx(tuple(strengths), abs=1e-5)
    assert fit.tie == pytest.approx(nu, rel=1e-4)


def test_two_players_by_hand() -> None:
    # 9 wins, 4 ties, 3 losses and the two halves: a saturated model, in closed form.
    scores = [[1.0, 0.0]] * 9 + [[1.0, 1.0]] * 4 + [[0.0, 1.0]] * 3
    fit = stats.fit_davidson(scores)
    difference = math.log(9.5 / 3.5)
    assert fit.strengths == pytest.approx((difference / 2, -difference / 2))
    assert fit.tie == pytest.approx(4 / math.sqrt(9.5 * 3.5))
    assert (fit.wins, fit.ties, fit.losses) == ((9, 3), (4, 4), (3, 9))
    low, high = fit.intervals[0]
    # Variance of the log odds 1 / 9.5 + 1 / 3.5; half of it a player; t(15) at 97.5 % is 2.131450; n / (n - 1)
    # widens what was seen, but not the halves.
    plain = 2.131450 * math.sqrt(1 / 9.5 + 1 / 3.5) / 2
    assert plain < (high - low) / 2 < plain * math.sqrt(16 / 15)


def test_without_ties_it_is_bradley_and_terry() -> None:
    # Of one pair p / (1 - p) = 7.5 / 2.5, and nu is no parameter.
    fit = stats.fit_davidson([[1.0, 0.0]] * 7 + [[0.0, 1.0]] * 2)
    assert fit.tie == 0
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(math.log(7.5 / 2.5))


@pytest.mark.parametrize("n", [2, 12, 5000])
def test_who_always_wins_has_a_finite_strength_and_an_interval_with_width(n: int) -> None:
    fit = stats.fit_davidson(np.tile([3.0, 2.0, 1.0], (n, 1)))
    assert fit.strengths[0] > fit.strengths[1] > fit.strengths[2]
    assert all(math.isfinite(end) for ends in fit.intervals for end in ends)
    assert all(high - low > 1 for low, high in fit.intervals)
    assert all((p <= 0.05) == (n > 2) for p in fit.pair_p.values())


def test_only_the_order_of_scores_counts() -> None:
    extreme = stats.fit_davidson([[1e308, -1e308, 5e-324], [5e-324, 0.0, 1e308], [0.0, -0.0, 1.0]])
    assert extreme == stats.fit_davidson([[3.0, 1.0, 2.0], [2.0, 1.0, 3.0], [1.0, 1.0, 2.0]])


def test_all_ties_are_equal_strengths() -> None:
    fit = stats.fit_davidson(np.ones((12, 3)))
    assert fit.strengths == pytest.approx((0, 0, 0), abs=1e-9)
    # Of each pair 12 ties beside half a win and half a loss.
    assert fit.tie == pytest.approx(24)
    assert set(fit.pair_p.values()) == {1.0}


@quick
@given(tables)
def test_every_table_has_an_answer(rows: list[list[float]]) -> None:
    fit = stats.fit_davidson(rows)
    n, players = len(rows), len(rows[0])
    assert sum(fit.strengths) == pytest.approx(0, abs=1e-6)
    assert all(low <= one <= high for one, (low, high) in zip(fit.strengths, fit.intervals, strict=True))
    for one in range(players):
        assert fit.wins[one] + fit.ties[one] + fit.losses[one] == n * (players - 1)
    # Where all meet equally often, the stronger one has the more points.
    points = np.array(fit.wins) - np.array(fit.losses)
    for i, j in itertools.combinations(range(players), 2):
        assert np.sign(points[i] - points[j]) == np.sign(round(fit.strengths[i] - fit.strengths[j], 8))
        assert 0 < fit.pair_p[i, j] <= 1


@quick
@given(tables, st.randoms(use_true_random=False))
def test_players_and_rounds_in_another_order_are_the_same(rows: list[list[float]], random: object) -> None:
    places = list(range(len(rows[0])))
    random.shuffle(places)  # type: ignore[attr-defined]
    moved = [[row[place] for place in places] for row in reversed(rows)]
    ours, theirs = stats.fit_davidson(rows), stats.fit_davidson(moved)
    assert theirs.strengths == pytest.approx(tuple(ours.strengths[place] for place in places), abs=1e-6)
    assert theirs.tie == pytest.approx(ours.tie, rel=1e-6)
    for i, j in theirs.pair_p:
        pair = places[i], places[j]
        assert theirs.pair_p[i, j] == pytest.approx(ours.pair_p[min(pair), max(pair)])


@quick
@given(tables)
def test_the_other_direction_mirrors_the_strengths(rows: list[list[float]]) -> None:
    ours, theirs = stats.fit_davidson(rows), stats.fit_davidson(-np.array(rows))
    assert theirs.strengths == pytest.approx([-one for one in ours.strengths], abs=1e-6)
    assert theirs.pair_p == pytest.approx(ours.pair_p)


def test_intervals_hold_the_true_strength_though_comparisons_of_a_round_depend() -> None:
    # 100,000 rounds put the true strengths to within about 0.01, a thirtieth of the intervals' half width.
    rng = np.random.default_rng(0)
    means = np.array([0.0, 0.3, 0.9])

    def draw(n: int) -> np.ndarray:
        return np.round(means + rng.normal(size=(n, 1)) + rng.normal(size=(n, 3)))

    truth = stats.fit_davidson(draw(100_000)).strengths
    trials, held = 300, 0
    for _ in range(trials):
        held += sum(
            low <= one <= high for one, (low, high) in zip(truth, stats.fit_davidson(draw(40)).intervals, strict=True)
        )
    assert 0.92 <= held / (3 * trials) <= 0.99


def test_equal_players_are_told_apart_as_seldom_as_said() -> None:
    rng = np.random.default_rng(5)
    fits = [stats.fit_davidson(np.round(rng.normal(size=(14, 4)) / 0.7)) for _ in range(400)]
    false = sum(min(fit.pair_p.values()) <= 0.05 for fit in fits)
    assert 0 < false <= 33  # 5 % of 400 is 20, with a standard deviation of 4.4


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, math.nan], [1.0, 2.0]]])
def test_what_is_no_table_of_scores_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"finite \(n, k\)"):
        stats.fit_davidson(wrong)


# --- tied sets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "apart", "sets"),
    [
        (3, [], ((0, 1, 2),)),
        (3, [(0, 2)], ((0, 1), (1, 2))),
        (3, [(0, 1), (0, 2), (1, 2)], ((0,), (1,), (2,))),
        (4, [(0, 2), (0, 3)], ((0, 1), (1, 2, 3))),
    ],
)
def test_tied_sets_by_hand(players: int, apart: list[tuple[int, int]], sets: tuple[tuple[int, ...], ...]) -> None:
    assert stats.tied_sets(players, apart) == sets


@quick
@given(st.integers(1, 6), st.data())
def test_tied_sets_are_the_largest_without_a_pair_apart(players: int, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(players), 2))
    apart = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    every = [set(s) for size in range(1, players + 1) for s in itertools.combinations(range(players), size)]
    good = [s for s in every if not any(set(pair) <= s for pair in apart)]
    largest = sorted(tuple(sorted(s)) for s in good if not any(s < other for other in good))
    assert stats.tied_sets(players, apart) == tuple(largest)
