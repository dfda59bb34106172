"""Votes: shares, Davidson's strengths and metrics beside votes, against brute force and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import t as student

from bench.stats import t_interval
from bench.stats.ranking import PRIOR
from bench.stats.votes import (
    MIN_VOTERS,
    clusters_of,
    constant_agreement,
    fit_votes,
    metric_agreement,
    mutual_agreement,
    share_of_votes,
    spread_between,
    tie_threshold,
    two_way,
    voted_bounds,
    votes_needed,
)


def panel(seed: int, votes: int = 400, players: int = 3, voters: int = 10, prompts: int = 20):
    """Random votes: pairs, outcomes, sides, prompts, voters."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(players, 2, replace=False) for _ in range(votes)])
    strength = np.linspace(-0.6, 0.6, players)
    sides = rng.choice([-1.0, 1.0], votes)
    half = (strength[pairs[:, 0]] - strength[pairs[:, 1]] + 0.4 * sides) / 2
    logs = np.stack([half, np.full(votes, -0.5), -half], axis=1) + rng.gumbel(size=(votes, 3))
    places = rng.integers(prompts, size=votes), rng.integers(voters, size=votes)
    return pairs, 1.0 - logs.argmax(axis=1), sides, *(place.tolist() for place in places)


def minus_log_likelihood(parameters, pairs, outcomes, sides, players):
    """Davidson's model written out vote by vote, with half a win and half a loss of each pair of players."""
    strengths, left, log_tie = parameters[:players], parameters[players], parameters[players + 1]
    total = 0.0
    for (first, second), outcome, side in zip(pairs, outcomes, sides, strict=True):
        d = strengths[first] - strengths[second] + left * side / 2
        weights = {1.0: math.exp(d / 2), 0.0: math.exp(log_tie), -1.0: math.exp(-d / 2)}
        total += math.log(weights[outcome] / sum(weights.values()))
    for first, second in {tuple(sorted(pair)) for pair in pairs.tolist()}:
        d = strengths[first] - strengths[second]
        sum_of = math.exp(d / 2) + math.exp(log_tie) + math.exp(-d / 2)
        total += PRIOR * (math.log(math.exp(d / 2) / sum_of) + math.log(math.exp(-d / 2) / sum_of))
    return -total + 0.5 * float(np.sum(strengths)) ** 2


def test_strengths_are_those_of_the_largest_likelihood_by_another_optimiser():
    pairs, outcomes, sides, prompts, voters = panel(1, votes=150)
    found = fit_votes(pairs, outcomes, sides, prompts, voters, players=3)
    best = minimize(minus_log_likelihood, np.zeros(5), args=(pairs, outcomes, sides, 3), method="BFGS").x
    assert found.strengths == pytest.approx(best[:3] - best[:3].mean(), abs=1e-4)
    assert found.left == pytest.approx(best[3], abs=1e-4)
    assert math.log(found.tie) == pytest.approx(best[4], abs=1e-4)


def test_without_ties_there_is_no_tie_parameter():
    pairs, outcomes, sides, prompts, voters = panel(2)
    decided = outcomes != 0
    found = fit_votes(
        pairs[decided], outcomes[decided], sides[decided],
        np.array(prompts)[decided].tolist(), np.array(voters)[decided].tolist(), players=3,
    )  # fmt: skip
    assert found.tie == 0
    assert sum(found.strengths) == pytest.approx(0, abs=1e-9)


def test_who_never_loses_has_a_finite_strength_and_an_interval_with_a_width():
    pairs = [(0, 1)] * 40
    found = fit_votes(pairs, [1.0] * 40, [1.0, -1.0] * 20, [n % 10 for n in range(40)], list(range(40)), players=2)
    assert 1 < found.strengths[0] < 10
    low, high = found.intervals[0]
    assert low < found.strengths[0] < high


def test_exchanging_the_players_of_votes_changes_nothing():
    pairs, outcomes, sides, prompts, voters = panel(3)
    flip = np.random.default_rng(0).random(len(pairs)) < 0.5
    other = np.where(flip[:, None], pairs[:, ::-1], pairs)
    sign = np.where(flip, -1.0, 1.0)
    one = fit_votes(pairs, outcomes, sides, prompts, voters, players=3)
    two = fit_votes(other, sign * outcomes, sign * sides, prompts, voters, players=3)
    assert two.strengths == pytest.approx(one.strengths)
    assert two.left == pytest.approx(one.left)
    assert np.array(two.intervals) == pytest.approx(np.array(one.intervals))


def test_few_voters_give_the_t_interval_over_prompts():
    rng = np.random.default_rng(4)
    points = rng.choice([0.0, 0.5, 1.0], 90)
    prompts, voters = [n % 30 for n in range(90)], [n // 30 for n in range(90)]
    found = share_of_votes(points, prompts, voters)
    means = [float(np.mean(points[prompt::30])) for prompt in range(30)]
    assert (found.low, found.high) == pytest.approx(t_interval(means))
    assert found.share == pytest.approx(np.mean(means))
    assert found.spread.extra == 0


def test_prompts_of_one_group_are_one_unit():
    points = [1.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0]
    prompts = list(range(8))
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    found = share_of_votes(points, prompts, ["v"] * 8, units=groups)
    means = [np.mean(points[2 * number : 2 * number + 2]) for number in range(4)]
    assert (found.low, found.high) == pytest.approx(np.clip(t_interval(means), 0, 1))
    assert list(found.by_prompt.values()) == points


def squares(residuals, owners):
    sums = {}
    for residual, owner in zip(residuals, owners, strict=True):
        sums[owner] = sums.get(owner, 0.0) + residual
    return sum(one * one for one in sums.values()) * len(sums) / (len(sums) - 1)


def test_many_voters_give_the_two_way_variance_written_out():
    rng = np.random.default_rng(5)
    liking = rng.normal(size=12)
    votes = [(prompt, voter) for prompt in range(25) for voter in range(12) if rng.random() < 0.6]
    points = [float(rng.random() < 1 / (1 + math.exp(-2 * liking[voter]))) for _, voter in votes]
    prompts, voters = map(list, zip(*votes, strict=True))
    found = share_of_votes(points, prompts, voters)
    means = {
        prompt: np.mean([y for y, own in zip(points, prompts, strict=True) if own == prompt]) for prompt in prompts
    }
    share = np.mean(list(means.values()))
    residuals = [(y - share) / (len(means) * prompts.count(own)) for y, own in zip(points, prompts, strict=True)]
    own = np.var(list(means.values()), ddof=1) / len(means)
    by_voter, by_both = squares(residuals, voters), squares(residuals, votes)
    assert by_voter > by_both
    variance = own + by_voter - by_both
    assert found.spread.variance == pytest.approx(variance)
    sizes = [voters.count(voter) for voter in set(voters)]
    effective = sum(sizes) ** 2 / sum(size**2 for size in sizes)
    freedom = variance**2 / (own**2 / (len(means) - 1) + by_voter**2 / (effective - 1))
    half = student.ppf(0.975, freedom) * math.sqrt(variance)
    assert found.high - found.low == pytest.approx(2 * half)


def test_voters_that_differ_widen_the_interval():
    votes = list(itertools.product(range(20), range(10)))
    prompts, voters = map(list, zip(*votes, strict=True))
    rng = np.random.default_rng(6)
    alike = share_of_votes(rng.choice([0.0, 1.0], 200), prompts, voters)
    split = share_of_votes([float(voter < 5) for voter in voters], prompts, voters)
    assert split.high - split.low > 2 * (alike.high - alike.low) or split.spread.extra > 0


def test_a_share_of_all_votes_has_an_interval_with_a_width():
    found = share_of_votes([1.0] * 24, list(range(24)), list(range(24)))
    assert found.share == 1
    assert 0.8 < found.low < 0.95
    assert found.high == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 6), st.integers(0, 11)), min_size=2, max_size=60
    )
)
def test_any_votes_have_a_share_within_its_interval(votes):
    points, prompts, voters = map(list, zip(*votes, strict=True))
    found = share_of_votes(points, prompts, voters)
    assert 0 <= found.low <= found.share <= found.high <= 1
    flipped = share_of_votes([1 - point for point in points], prompts, voters)
    assert flipped.share == pytest.approx(1 - found.share)
    assert (flipped.low, flipped.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_points_beyond_a_win_are_refused():
    with pytest.raises(ValueError, match="lie in"):
        share_of_votes([2.0, 0.0], [0, 1], [0, 0])


def test_under_eight_voters_nothing_is_added():
    residuals = np.array([0.1, -0.1, 0.2, -0.2])
    clusters = clusters_of([0, 1, 2, 3], [0, 0, 1, 1])
    assert two_way(residuals, clusters, own=0.5, freedom=3) == (0.5, 3, 0.0, 0.0, 2)
    assert MIN_VOTERS == 8


def test_votes_needed_grow_with_the_square():
    assert votes_needed(100, 0.10, 0.05) == 400
    assert votes_needed(100, 0.05, 0.05) == 100


def test_the_difference_of_two_panels_adds_what_their_voters_add():
    values = np.random.default_rng(7).normal(0, 0.2, 30)
    found = spread_between(values, None, [(0.001, 1e-7), (0.002, 2e-7), (-0.5, 0.0)], 9)
    own = np.var(values, ddof=1) / 30
    assert found.variance == pytest.approx(own + 0.003)
    assert found.freedom == pytest.approx((own + 0.003) ** 2 / (own**2 / 29 + 3e-7))
    alone = spread_between(values, None, [], 9)
    narrow, wide = (voted_bounds(values, spread, 0.9) for spread in (alone, found))
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    low, high = voted_bounds([0.5] * 12, alone, 0.9)
    assert low < high, "prompts that all agree leave a doubt"


# Metrics beside votes.


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(-3, 3).map(float)), min_size=1, max_size=25))
def test_the_threshold_is_the_best_of_all_by_trying_them(pairs):
    said, found = map(list, zip(*pairs, strict=True))

    def right(eps: float) -> int:
        return sum(one == 0 if abs(gap) <= eps else one * gap > 0 for one, gap in zip(said, found, strict=True))

    candidates = [-1.0, *sorted({abs(one) for one in found})]
    best = max(candidates, key=lambda eps: (right(eps), -eps))
    assert right(tie_threshold(said, found)) == right(best)


def test_a_metric_that_knows_the_votes_agrees_and_a_coin_does_not():
    rng = np.random.default_rng(8)
    said = rng.choice([-1.0, 0.0, 1.0], 600)
    units = [n % 40 for n in range(600)]
    knowing = said + rng.normal(0, 0.1, 600)
    assert metric_agreement(said, knowing, units).mean() > 0.95
    coin = metric_agreement(said, rng.normal(size=600), units).mean()
    assert coin == pytest.approx(1 / 3, abs=0.07)
    flattering = max(
        np.mean(np.where(np.abs(knowing) <= eps, said == 0, said * knowing > 0)) for eps in np.linspace(0, 3, 50)
    )
    assert metric_agreement(said, knowing, units).mean() <= flattering + 1e-9


def test_the_threshold_comes_from_other_prompts():
    said = [0.0] * 10 + [1.0] * 10
    gaps = [1.0] * 20
    units = ["a"] * 10 + ["b"] * 10
    assert not metric_agreement(said, gaps, units).any(), "each prompt is judged by what the other one says"
    with pytest.raises(ValueError, match="2 of them"):
        metric_agreement(said, gaps, ["a"] * 20)


def test_always_the_same_answer_is_that_of_other_prompts():
    said = [1.0] * 8 + [-1.0] * 8
    kinds = ["x"] * 8 + ["y"] * 8
    units = [n % 4 for n in range(16)]
    assert constant_agreement(said, kinds, units).all()


def test_mutual_agreement_counts_other_voters():
    assert mutual_agreement([1.0, 1.0, -1.0], ["q", "q", "q"]) == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert mutual_agreement([1.0, 1.0], ["q", "r"]) is None
