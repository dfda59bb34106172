"""Ranking three or more from paired comparisons: Davidson's model of wins, ties and losses."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, stdtrit

from bench.stats.effects import Floats, tails
from bench.stats.groups import effective_groups, group_sums
from bench.stats.multiplicity import holm, sign_flip_p

PRIOR = 0.5
"""Of a win and of a loss that each pair is given beside what was seen."""
_STEPS = 100
_NEVER = -1e6
"""Log weight of a tie where none was seen: its chance is exactly 0."""


class DavidsonFit(NamedTuple):
    """Strengths of k players on the log scale with mean 0: exp of a difference is the odds of win to loss."""

    strengths: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    """Of each strength."""
    tie: float
    """Davidson's nu: among equals the odds of a tie to a win; 0 where no pair tied."""
    wins: tuple[int, ...]
    ties: tuple[int, ...]
    losses: tuple[int, ...]
    """Of each player over all its comparisons, n (k - 1) of them."""
    pair_p: dict[tuple[int, int], float]
    """Two-sided p-value of no difference for each pair i < j, Holm-adjusted over the pairs."""


class _Pairs(NamedTuple):
    """Every pair of players: what happened, and how its chances depend on the strengths and log nu."""

    signs: Floats
    """(rounds, pairs): 1 where the pair's first player won, 0 for a tie, -1 where it lost."""
    counts: Floats
    """(pairs, 3): wins, ties and losses of the first player, the prior with them."""
    basis: Floats
    """(pairs, 3, k + 1): derivatives of each outcome's log weight by the k strengths and log nu."""
    tied: bool
    """Whether any pair tied: if not, nu is 0 and no parameter."""


def fit_davidson(scores: ArrayLike, *, level: float = 0.95, groups: Sequence[Hashable] | None = None) -> DavidsonFit:
    """Davidson's Bradley-Terry model with ties, fitted to who scores higher in each of n rounds.

    P(i beats j) : P(tie) : P(j beats i) = p_i : nu sqrt(p_i p_j) : p_j, strength = log p. It maximises the
    likelihood of every pair's wins, ties and losses, to which half a win and half a loss a pair are added:
    strengths stay finite where one always wins, and a share of 1 / (n + 1) is what they shrink by otherwise.
    Where no pair tied, nu is 0.

    Intervals are Wald's with the sandwich variance clustered by round and t(n - 1): the comparisons of one
    round are not independent. The added halves count in it as comparisons of their own, so that an
    interval stays wide where all rounds agree; a bootstrap over rounds would have no width there. Simulated
    95 % intervals held the true strength in 96 to 99 % with 12 rounds, in 94 to 97 % from 100 on.

    Whether two differ is tested by flipping the signs of their differences in points (a win 1, a loss -1)
    round by round, which is exact under exchange of the two. Wald's test would not do: it grows blind where
    one always wins (W. W. Hauck and A. Donner, JASA 72, 1977).

    Rounds of one group are not independent: the sandwich is clustered by group, t has as many degrees of freedom as
    effective groups (``bench.stats.groups``) less one, and a group's signs are flipped together.

    Args:
        scores: (n, k), higher wins, equal ties; rounds (prompts) by players (variants), n >= 2, k >= 2.
        level: two-sided coverage of the intervals.
        groups: (n,) the group of each round; None where each is one of its own.

    Raises:
        ValueError: another shape, values that are not finite, or a single group.

    Source: R. R. Davidson, "On extending the Bradley-Terry model to accommodate ties in paired comparison
    experiments", JASA 65 (1970); K.-Y. Liang and S. L. Zeger, Biometrika 73 (1986) for the variance.
    """
    data = np.asarray(scores, dtype=np.float64)
    if data.ndim != 2 or min(data.shape) < 2 or not np.isfinite(data).all():
        raise ValueError(f"scores must be a finite (n, k) array with n and k of 2 or more, not of shape {data.shape}")
    n, players = data.shape
    owners = list(range(n)) if groups is None else groups
    if len(set(owners)) < 2:
        raise ValueError("rounds of one group show no spread")
    pairs = _pairs(data)
    estimate = _maximise(pairs)
    covariance = _sandwich(pairs, estimate, owners)
    errors = np.sqrt(np.diag(covariance)[:players])
    freedom = max(1.0, effective_groups(owners) - 1)
    half = float(stdtrit(freedom, tails(level)[1])) * errors
    strengths = estimate[:players]
    beaten = np.sum(data[:, :, None] > data[:, None, :], axis=0)
    wins, losses = beaten.sum(axis=1), beaten.sum(axis=0)
    return DavidsonFit(
        strengths=tuple(strengths.tolist()),
        intervals=tuple(zip((strengths - half).tolist(), (strengths + half).tolist(), strict=True)),
        tie=math.exp(estimate[players]) if pairs.tied else 0.0,
        wins=tuple(wins.tolist()),
        ties=tuple((n * (players - 1) - wins - losses).tolist()),
        losses=tuple(losses.tolist()),
        pair_p=_pair_p(pairs.signs, players, owners),
    )


def tied_sets(players: int, apart: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The largest sets of players of which no two are ``apart``; two share a set unless they are apart.

    Each set is sorted, and the sets are. With the players numbered from the strongest down, the first set
    is that of the strongest. This is the compact letter display by insertion and absorption.

    Source: H.-P. Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons",
    J. Comput. Graph. Stat. 13 (2004).
    """
    sets = {frozenset(range(players))}
    for pair in apart:
        split = {kept - {one} for kept in sets if kept.issuperset(pair) for one in pair}
        whole = {kept for kept in sets if not kept.issuperset(pair)}
        sets = whole | {part for part in split if not any(part < other for other in whole | split)}
    return tuple(sorted(tuple(sorted(kept)) for kept in sets))


def _pairs(scores: Floats) -> _Pairs:
    players = scores.shape[1]
    first, second = np.triu_indices(players, k=1)
    above = scores[:, first] > scores[:, second]
    below = scores[:, first] < scores[:, second]
    signs = above.astype(np.float64) - below
    seen = np.stack([(signs == outcome).sum(axis=0) for outcome in (1, 0, -1)], axis=1)
    rows = np.arange(len(first))
    basis = np.zeros((len(first), 3, players + 1))
    basis[rows, 0, first] = basis[rows, 2, second] = 1.0
    basis[rows, 1, first] = basis[rows, 1, second] = 0.5
    basis[:, 1, players] = 1.0
    return _Pairs(signs, seen + np.array([PRIOR, 0.0, PRIOR]), basis, bool(seen[:, 1].any()))


def _log_weights(pairs: _Pairs, parameters: Floats) -> Floats:
    weights: Floats = pairs.basis @ parameters + np.array([0.0, 0.0 if pairs.tied else _NEVER, 0.0])
    return weights


def _log_likelihood(pairs: _Pairs, parameters: Floats) -> float:
    weights = _log_weights(pairs, parameters)
    return float(np.sum(pairs.counts * (weights - logsumexp(weights, axis=1, keepdims=True))))


def _derivatives(pairs: _Pairs, parameters: Floats) -> tuple[Floats, Floats, Floats]:
    """The outcomes' chances (pairs, 3), the log likelihood's gradient, and its negative second derivative.

    All strengths plus a constant are the same model; what is added to the matrix fixes their sum at 0. Log
    nu is fixed likewise where it is no parameter.
    """
    weights = _log_weights(pairs, parameters)
    chances: Floats = np.exp(weights - logsumexp(weights, axis=1, keepdims=True))
    total = pairs.counts.sum(axis=1, keepdims=True)
    gradient = np.einsum("po,poc->c", pairs.counts - total * chances, pairs.basis)
    centred = pairs.basis - np.einsum("po,poc->pc", chances, pairs.basis)[:, None, :]
    curvature = np.einsum("po,poc,pod->cd", total * chances, centred, centred)
    curvature[:-1, :-1] += 1.0
    if not pairs.tied:
        curvature[-1, -1] += 1.0
    return chances, gradient, curvature


def _maximise(pairs: _Pairs) -> Floats:
    """Strengths and log nu of the largest likelihood: Newton steps, halved where they overshoot."""
    parameters = np.zeros(pairs.basis.shape[2])
    if pairs.tied:
        ties, others = pairs.counts[:, 1].sum(), pairs.counts[:, ::2].sum()
        parameters[-1] = math.log(2 * ties / others)
    reached = _log_likelihood(pairs, parameters)
    for _ in range(_STEPS):
        _, gradient, curvature = _derivatives(pairs, parameters)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        # The likelihood is concave, so only steps that are too long can lose; rounding is no loss.
        while _log_likelihood(pairs, parameters + size * step) < reached - 1e-12 * abs(reached):
            size /= 2
        parameters = parameters + size * step
        reached = _log_likelihood(pairs, parameters)
        if np.abs(step).max() < 1e-9:
            return parameters
    raise ArithmeticError(f"Davidson's model did not converge in {_STEPS} Newton steps")


def _sandwich(pairs: _Pairs, parameters: Floats, groups: Sequence[Hashable]) -> Floats:
    """Covariance of the strengths and log nu, clustered by group: H^-1 M H^-1 with M the scores' squares."""
    chances, _, curvature = _derivatives(pairs, parameters)
    centred = pairs.basis - np.einsum("po,poc->pc", chances, pairs.basis)[:, None, :]
    # A sign moves the pair's two strengths by half of it, either way; a tie moves log nu as well.
    half = (pairs.basis[:, 0] - pairs.basis[:, 2]) / 2
    scores = (pairs.signs - (chances[:, 0] - chances[:, 2])) @ half
    scores[:, -1] = ((pairs.signs == 0) - chances[:, 1]).sum(axis=1)
    if len(set(groups)) < len(scores):
        scores = np.column_stack([group_sums(column, groups) for column in scores.T])
    n = len(scores)
    meat = scores.T @ scores * n / (n - 1)
    meat += PRIOR * np.einsum("poc,pod->cd", centred[:, ::2], centred[:, ::2])
    inverse = np.linalg.inv(curvature)
    covariance: Floats = inverse @ meat @ inverse
    return covariance


def _pair_p(signs: Floats, players: int, groups: Sequence[Hashable]) -> dict[tuple[int, int], float]:
    """Holm-adjusted p-values of equal strength: the sign-flip test on two players' points in each round.

    Where every pair meets in every round, two have the same strength just if they have the same points.
    """
    first, second = np.triu_indices(players, k=1)
    points = np.zeros((len(signs), players))
    for pair, (one, other) in enumerate(zip(first, second, strict=True)):
        points[:, one] += signs[:, pair]
        points[:, other] -= signs[:, pair]
    differences = [points[:, one] - points[:, other] for one, other in zip(first, second, strict=True)]
    found = [sign_flip_p(group_sums(difference, groups)) for difference in differences]
    adjusted = holm([p for p in found if p is not None])
    return dict(zip(zip(first.tolist(), second.tolist(), strict=True), adjusted, strict=True))
