"""Votes of people between two pictures: the share won, strengths with ties, and intervals over prompts and voters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, stdtrit

from bench.stats.bounds import mean_bounds
from bench.stats.effects import Floats, finite, is_constant, mean, tails
from bench.stats.groups import group_numbers, group_units
from bench.stats.ranking import PRIOR
from bench.stats.rates import paired_rate_interval

MIN_VOTERS = 8
"""From so many voters on an interval is also over voters; with fewer it is for these voters only."""
_STEPS = 100


class Spread(NamedTuple):
    """What the variance of a mean over prompts and voters is made of (``two_way``)."""

    variance: float
    """Of the mean, over prompts and, from ``MIN_VOTERS`` on, over voters."""
    freedom: float
    """Degrees of freedom of t, by Satterthwaite."""
    extra: float
    """What voters add to the variance over prompts; under 0 by chance where they do not differ. 0 for these voters
    only."""
    noise: float
    """What that is uncertain by, as the share of voters in Satterthwaite's formula."""
    voters: int


class VoteShare(NamedTuple):
    """The share of votes that one of two wins, a tie being half a win, in [0, 1]."""

    share: float
    """Mean over the prompts of each one's share."""
    low: float
    high: float
    by_prompt: dict[Hashable, float]
    """In the order in which prompts are first met."""
    spread: Spread


class VoteStrengths(NamedTuple):
    """Davidson's model of votes; the strengths of k players are log odds with mean 0."""

    strengths: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    """Of each strength."""
    tie: float
    """Davidson's nu: among equals the odds of a tie to a win; 0 where nobody chose a tie."""
    left: float
    """Log odds that the left of two equals gains by its side."""
    left_interval: tuple[float, float]


def share_of_votes(
    points: ArrayLike,
    prompts: Sequence[Hashable],
    voters: Sequence[Hashable],
    *,
    units: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> VoteShare:
    """The share of votes won, a mean of the prompts' means, with its interval by t.

    The variance is that over prompts, V_p = sd^2 / n of their means. From ``MIN_VOTERS`` on it is over both prompts
    and voters, V_p + V_v - V_pv: with w_i = 1 / (prompts x votes of the prompt) and r_i = w_i (y_i - share), V_v and
    V_pv are the sums of squares of the sums of r over each voter, and over each prompt and voter, times G / (G - 1).
    Where every prompt has the same share, the interval is Agresti and Min's (``paired_rate_interval``), which then has
    a width. The table in docs/votes.md has how often 95 % intervals hold the truth.

    Args:
        points: (n,) of each vote: 1 for a win, 0.5 for a tie, 0 for a loss.
        prompts: (n,) what each vote is about.
        voters: (n,) whose it is.
        units: (n,) the group of each vote's prompt, where prompts are not independent.
        level: two-sided coverage.

    Raises:
        ValueError: no vote, or points outside [0, 1].

    Source: A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering", J. Bus. Econ.
    Stat. 29 (2011); F. E. Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    data = finite(points)
    if data.min() < 0 or data.max() > 1:
        raise ValueError("points of votes lie in [0, 1]")
    owner = group_numbers(prompts)
    counts = np.bincount(owner)
    means = np.bincount(owner, data) / counts
    share = mean(means)
    names = list(dict.fromkeys(prompts))
    of_prompt = _units_of(names, prompts, units)
    residuals = (data - share) / (len(means) * counts[owner])
    grouped = group_units(means, of_prompt)
    own = float(np.var(grouped.values, ddof=1)) / len(grouped.values) if len(grouped.values) > 1 else math.inf
    clusters = clusters_of([of_prompt[place] for place in owner], voters)
    spread = two_way(residuals, clusters, own=own, freedom=grouped.freedom)
    low, high = _ends(share, spread, level)
    if is_constant(means):
        low, high = (
            (1 + end) / 2 for end in _of_equal_prompts(2 * grouped.values - 1, 4 * spread.extra, spread, level)
        )
    by_prompt = dict(zip(names, means.tolist(), strict=True))
    return VoteShare(share, max(0.0, low), min(1.0, high), by_prompt, spread)


def _units_of(
    names: Sequence[Hashable], prompts: Sequence[Hashable], units: Sequence[Hashable] | None
) -> list[Hashable]:
    if units is None:
        return list(names)
    known = dict(zip(prompts, units, strict=True))
    return [known[name] for name in names]


def _ends(centre: float, spread: Spread, level: float) -> tuple[float, float]:
    if not math.isfinite(spread.variance):
        return -math.inf, math.inf
    half = float(stdtrit(spread.freedom, tails(level)[1])) * math.sqrt(spread.variance)
    return centre - half, centre + half


class Clusters(NamedTuple):
    """(n,) the number of each vote's prompt or group of prompts, of its voter, and of both together."""

    prompts: NDArray[np.intp]
    voters: NDArray[np.intp]
    both: NDArray[np.intp]


def clusters_of(prompts: Sequence[Hashable], voters: Sequence[Hashable]) -> Clusters:
    """The clusters of votes."""
    by_prompt, by_voter = group_numbers(prompts), group_numbers(voters)
    return Clusters(by_prompt, by_voter, np.unique(by_prompt * len(by_voter) + by_voter, return_inverse=True)[1])


def two_way(residuals: Floats, clusters: Clusters, *, own: float, freedom: float) -> Spread:
    """The variance of a sum of residuals over prompts and voters, from that over prompts.

    Args:
        residuals: (n,) what each vote adds to the error of the estimate.
        clusters: of the votes.
        own: the variance over prompts.
        freedom: its degrees of freedom.
    """
    people = int(clusters.voters.max()) + 1
    if people < MIN_VOTERS or not math.isfinite(own):
        return Spread(own, freedom, 0.0, 0.0, people)
    by_voter, by_both = _squares(residuals, clusters.voters), _squares(residuals, clusters.both)
    extra = by_voter - by_both
    # By chance it may fall under what single votes alone make of it; that much there always is.
    variance = max(own + extra, by_both)
    noise = by_voter**2 / max(1.0, _effective(clusters.voters) - 1) if extra > 0 else 0.0
    return Spread(variance, _freedom(variance, own, freedom, noise), variance - own, noise, people)


def _freedom(variance: float, own: float, freedom: float, noise: float) -> float:
    whole = own**2 / freedom + noise
    return max(1.0, variance**2 / whole) if whole else freedom


def _squares(residuals: Floats, numbers: NDArray[np.intp]) -> float:
    sums = np.bincount(numbers, residuals)
    return float(sums @ sums) * len(sums) / max(1, len(sums) - 1)


def _effective(numbers: NDArray[np.intp]) -> float:
    """How many clusters of one size these are worth, as ``groups.effective_groups``."""
    sizes = np.bincount(numbers).astype(np.float64)
    return len(numbers) ** 2 / float(sizes @ sizes)


def spread_between(
    values: ArrayLike, units: Sequence[Hashable] | None, sides: Sequence[tuple[float, float]], voters: int
) -> Spread:
    """The spread of the mean difference of two shares of votes, whose voters are taken to be others.

    Args:
        values: (n,) differences, one a prompt, n >= 2.
        units: (n,) the prompts' groups.
        sides: ``extra`` and ``noise`` of each share's ``Spread``.
        voters: of the side with fewer.
    """
    grouped = group_units(values, units)
    own = float(np.var(grouped.values, ddof=1)) / len(grouped.values)
    extra, noise = sum(max(0.0, one) for one, _ in sides), sum(one for _, one in sides)
    return Spread(own + extra, _freedom(own + extra, own, grouped.freedom, noise), extra, noise, voters)


def voted_bounds(values: ArrayLike, spread: Spread, level: float) -> tuple[float, float]:
    """Interval of a mean of shares of votes, or of their differences, in [-1, 1], for gates and findings.

    ``mean_bounds`` of the prompts' values, as wide as the variance over prompts and voters makes it; where all prompts
    agree ``paired_rate_interval``, which has a width.

    Args:
        values: one a prompt, or a group of prompts.
        spread: of the mean over prompts and voters.
        level: two-sided coverage.
    """
    data = finite(values, at_least=2)
    if is_constant(data):
        return _of_equal_prompts(data, spread.extra, spread, level)
    low, high = mean_bounds(data, level, freedom=spread.freedom)
    own = float(np.var(data, ddof=1)) / len(data)
    wider = math.sqrt(max(1.0, spread.variance / own))
    return mean(data) + wider * (low - mean(data)), mean(data) + wider * (high - mean(data))


def _of_equal_prompts(values: Floats, extra: float, spread: Spread, level: float) -> tuple[float, float]:
    """``paired_rate_interval`` of differences in [-1, 1], and what voters add to their variance."""
    low, high = paired_rate_interval(values, level=level)
    centre, more = (low + high) / 2, float(stdtrit(spread.freedom, tails(level)[1])) ** 2 * max(0.0, extra)
    half = math.sqrt(((high - low) / 2) ** 2 + more)
    return max(-1.0, centre - half), min(1.0, centre + half)


def votes_needed(votes: int, half_width: float, margin: float) -> int:
    """Votes with which an interval is +- ``margin`` wide: votes (half_width / margin)^2.

    More prompts and more voters in proportion are meant; with the same voters for ever their differences stay.
    """
    return max(1, math.ceil(votes * (half_width / margin) ** 2))


# Strengths.


class _Table(NamedTuple):
    signs: Floats
    """(n,) 1 where the first of the pair won, 0 for a tie, -1 where it lost."""
    design: Floats
    """(n, k + 1): the derivative of d = l_i - l_j + left by the strengths and by the side's log odds."""
    pseudo: Floats
    """(pairs, k + 1): the same of each pair of players, of which half a win and half a loss are added."""
    tied: bool


def fit_votes(
    pairs: ArrayLike,
    outcomes: ArrayLike,
    sides: ArrayLike,
    prompts: Sequence[Hashable],
    voters: Sequence[Hashable],
    *,
    players: int,
    level: float = 0.95,
) -> VoteStrengths:
    """Davidson's strengths of what is voted on, by maximum likelihood, with intervals over prompts and voters.

    With d = l_i - l_j + s g, where s is +1/2 if i is shown left and -1/2 if right, P(i) : P(tie) : P(j) =
    exp(d / 2) : nu : exp(-d / 2). Half a win and half a loss of each pair are added, so that strengths stay finite.
    Intervals are Wald's with the sandwich variance clustered by prompt and, from ``MIN_VOTERS`` on, by prompt and voter
    (``two_way``), and t. The strengths are those of an average prompt and voter: where these differ, nearer to 0
    than each one's own.

    Args:
        pairs: (n, 2) numbers of the two players of each vote.
        outcomes: (n,) 1 where the first was chosen, 0 for a tie, -1 where the second was.
        sides: (n,) 1 where the first was shown on the left, -1 on the right.
        prompts: (n,) what each vote is about, or its group.
        voters: (n,) whose it is.
        players: how many there are, each met in a vote and connected by votes with all others.
        level: two-sided coverage.

    Raises:
        ValueError: fewer than 2 players, or 2 prompts; every vote is for the left one or every one for the right one,
            where g would be infinite.

    Source: R. R. Davidson, JASA 65 (1970); side: R. R. Davidson and R. J. Beaver, Biometrics 33 (1977); K.-Y. Liang and
    S. L. Zeger, Biometrika 73 (1986); Cameron, Gelbach and Miller (2011).
    """
    if players < 2 or len(set(prompts)) < 2:
        raise ValueError("strengths need 2 players and 2 prompts")
    if set(finite(outcomes) * finite(sides)) in ({1.0}, {-1.0}):
        raise ValueError("strengths need votes for both sides, or a tie")
    table = _table(np.asarray(pairs), finite(outcomes), finite(sides), players)
    estimate = _maximise(table)
    scores, curvature = _scores(table, estimate)
    influence = scores @ np.linalg.inv(curvature)
    clusters = clusters_of(prompts, voters)
    freedom = max(1.0, _effective(clusters.prompts) - 1)
    spreads = [
        two_way(column, clusters, own=_squares(column, clusters.prompts), freedom=freedom) for column in influence.T
    ]
    intervals = [_ends(float(value), spread, level) for value, spread in zip(estimate, spreads, strict=True)]
    return VoteStrengths(
        strengths=tuple(estimate[:players].tolist()),
        intervals=tuple(intervals[:players]),
        tie=math.exp(estimate[-1]) if table.tied else 0.0,
        left=float(estimate[players]),
        left_interval=intervals[players],
    )


def _table(pairs: NDArray[np.int64], signs: Floats, sides: Floats, players: int) -> _Table:
    design = _differences(pairs, players)
    design[:, players] = sides / 2
    return _Table(
        signs, design, _differences(np.unique(np.sort(pairs, axis=1), axis=0), players), bool((signs == 0).any())
    )


def _differences(pairs: NDArray[np.int64], players: int) -> Floats:
    found = np.zeros((len(pairs), players + 1))
    rows = np.arange(len(pairs))
    found[rows, pairs[:, 0]] = 1.0
    found[rows, pairs[:, 1]] = -1.0
    return found


def _chances(design: Floats, parameters: Floats, tied: bool) -> Floats:
    """(n, 3) chances that the first is chosen, of a tie, and that the second is."""
    half = design @ parameters[:-1] / 2
    ties = np.full_like(half, parameters[-1] if tied else -np.inf)
    logs = np.stack([half, ties, -half], axis=1)
    chances: Floats = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return chances


def _log_likelihood(table: _Table, parameters: Floats) -> float:
    chances = _chances(table.design, parameters, table.tied)
    chosen = chances[np.arange(len(chances)), 1 - table.signs.astype(np.intp)]
    added = _chances(table.pseudo, parameters, table.tied)[:, ::2]
    return float(np.log(chosen).sum() + PRIOR * np.log(added).sum())


def _parts(design: Floats, chances: Floats) -> tuple[Floats, Floats]:
    """(n, c) derivatives of the mean sign by the parameters' design, and the information of n votes."""
    first, tie, second = chances.T
    difference = first - second
    own = (first + second - difference**2) / 4
    cross = -tie * difference / 2
    strengths = design.T @ (own[:, None] * design)
    mixed = design.T @ cross
    information = np.zeros((design.shape[1] + 1,) * 2)
    information[:-1, :-1] = strengths
    information[-1, :-1] = information[:-1, -1] = mixed
    information[-1, -1] = float((tie * (1 - tie)).sum())
    return difference, information


def _scores(table: _Table, parameters: Floats) -> tuple[Floats, Floats]:
    """(n, c) derivatives of each vote's log likelihood, and minus the second derivative of the sum.

    All strengths plus a constant are the same model; what is added to the matrix fixes their sum at 0, and log nu
    where nobody chose a tie.
    """
    chances = _chances(table.design, parameters, table.tied)
    difference, curvature = _parts(table.design, chances)
    scores = np.column_stack(
        [table.design * ((table.signs - difference) / 2)[:, None], (table.signs == 0) - chances[:, 1]]
    )
    added = _chances(table.pseudo, parameters, table.tied)
    curvature += 2 * PRIOR * _parts(table.pseudo, added)[1]
    players = table.design.shape[1] - 1
    curvature[:players, :players] += 1.0
    if not table.tied:
        curvature[-1, -1] += 1.0
    return scores, curvature


def _gradient(table: _Table, parameters: Floats) -> tuple[Floats, Floats]:
    scores, curvature = _scores(table, parameters)
    added = _chances(table.pseudo, parameters, table.tied)
    gradient = scores.sum(axis=0)
    gradient[:-1] -= table.pseudo.T @ (added[:, 0] - added[:, 2]) * PRIOR
    gradient[-1] -= 2 * PRIOR * float(added[:, 1].sum()) if table.tied else 0.0
    return gradient, curvature


def _maximise(table: _Table) -> Floats:
    """The parameters of the largest likelihood: Newton steps, halved where they overshoot."""
    parameters: Floats = np.zeros(table.design.shape[1] + 1)
    reached = _log_likelihood(table, parameters)
    for _ in range(_STEPS):
        gradient, curvature = _gradient(table, parameters)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        # The likelihood is concave, so only steps that are too long can lose; rounding is no loss.
        while _log_likelihood(table, parameters + size * step) < reached - 1e-12 * abs(reached):
            size /= 2
        parameters += size * step
        reached = _log_likelihood(table, parameters)
        if np.abs(step).max() < 1e-9:
            return parameters
    raise ArithmeticError(f"Davidson's model of votes did not converge in {_STEPS} Newton steps")


# Metrics beside votes.

FOLDS = 5


def metric_agreement(votes: ArrayLike, differences: ArrayLike, units: Sequence[Hashable]) -> NDArray[np.bool_]:
    """(n,) whether a metric says of two pictures what each vote said, its threshold for a tie chosen on other prompts.

    The metric calls |difference| <= eps a tie. For each of ``FOLDS`` parts of the prompts eps is the one with which it
    agrees with most votes of the others; chosen on the same prompts it would flatter a metric that knows nothing.

    Args:
        votes: (n,) 1 where the first was chosen, 0 for a tie, -1 where the second was.
        differences: (n,) the metric's value of the first less that of the second, in its better direction.
        units: (n,) the prompt of each, or its group; at least 2.

    Source: D. Deutsch, G. Foster and M. Freitag, "Ties matter", EMNLP 2023 (acc_eq).
    """
    said, found = finite(votes), finite(differences)
    parts = _folds(units)
    right = np.zeros(len(said), dtype=bool)
    for part in range(int(parts.max()) + 1):
        inside = parts == part
        eps = tie_threshold(said[~inside], found[~inside])
        right[inside] = _agrees(said[inside], found[inside], eps)
    return right


def _folds(units: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers = group_numbers(units)
    if numbers.max() < 1:
        raise ValueError("choosing on other prompts needs 2 of them")
    return numbers % FOLDS


def tie_threshold(votes: ArrayLike, differences: ArrayLike) -> float:
    """The largest |difference| to call a tie so that most votes agree; the smallest of those that are as good.

    -1 where calling nothing a tie is best.
    """
    said, found = finite(votes), finite(differences)
    sizes = np.abs(found)
    order = np.argsort(sizes, kind="stable")
    # Called a tie or not: what each vote counts for then.
    tied, told = (said == 0).astype(np.int64)[order], (said * np.sign(found) > 0).astype(np.int64)[order]
    counts = np.concatenate([[0], np.cumsum(tied - told)]) + told.sum()
    candidates = np.concatenate([[-1.0], sizes[order]])
    # Of equal sizes all are called ties, or none.
    last = np.append(candidates[1:] != candidates[:-1], True)
    best = int(np.argmax(np.where(last, counts, -1)))
    return float(candidates[best])


def _agrees(votes: Floats, differences: Floats, eps: float) -> NDArray[np.bool_]:
    called: Floats = np.where(np.abs(differences) <= eps, 0.0, np.sign(differences))
    return np.where(np.abs(differences) > eps, called * votes > 0, votes == 0)


def constant_agreement(votes: ArrayLike, kinds: Sequence[Hashable], units: Sequence[Hashable]) -> NDArray[np.bool_]:
    """(n,) whether the commonest answer of other prompts, to a question of its kind, is each vote: what knowing nothing
    of the pictures reaches. Arguments as ``metric_agreement``; ``kinds`` (n,) is what is asked."""
    said, numbers, parts = finite(votes), group_numbers(kinds), _folds(units)
    right = np.zeros(len(said), dtype=bool)
    for part in range(int(parts.max()) + 1):
        for kind in range(int(numbers.max()) + 1):
            inside, others = (parts == part) & (numbers == kind), (parts != part) & (numbers == kind)
            answers = (1.0, 0.0, -1.0)
            commonest = max(answers, key=lambda answer: int(np.sum(said[others] == answer)))
            right[inside] = said[inside] == commonest
    return right


def mutual_agreement(votes: ArrayLike, questions: Sequence[Hashable]) -> float | None:
    """How often another voter says of a question what a voter says, in [0, 1]; None where no two answered one.

    Over the votes on questions of n >= 2 answers the mean of (number of equal answers - 1) / (n - 1).
    """
    said, numbers = finite(votes), group_numbers(questions)
    totals = np.bincount(numbers)
    counts = np.stack([np.bincount(numbers[said == answer], minlength=len(totals)) for answer in (1, 0, -1)])
    alike = (counts * (counts - 1)).sum(axis=0)
    several = totals >= 2
    if not several.any():
        return None
    return float((alike[several] / (totals[several] - 1)).sum() / totals[several].sum())
