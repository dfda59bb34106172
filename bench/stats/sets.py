"""What one number of many prompts is worth: the jackknife, and the mean over pairs of prompts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from bench.stats.effects import Floats, finite, tails
from bench.stats.groups import group_numbers

MIN_UNITS = 3
"""Prompts, or groups of them, that an interval needs."""
RESAMPLES = 10_000
CHUNK_DRAWS = 512


class Estimate(NamedTuple):
    """An interval (low, high) and a p-value."""

    low: float
    high: float
    p: float


def jackknife(
    whole: float, without: ArrayLike, *, level: float = 0.95, freedom: float | None = None
) -> Estimate | None:
    """Interval and two-sided p-value of a number that is computed once over all prompts, from leaving each one out.

    whole -+ t se with se = sqrt((G - 1) / G sum((theta_i - mean)^2)) and G - 1 degrees of freedom. A bootstrap would
    be shifted here: a prompt that is drawn twice is a duplicate, which lowers any diversity.

    Args:
        whole: the number over all prompts.
        without: (G,) the number without each prompt, or group of prompts.
        level: two-sided coverage.
        freedom: stands in the place of G - 1 where groups are of unequal size.

    Returns:
        None under ``MIN_UNITS``.

    Source: B. Efron and C. Stein, "The jackknife estimate of variance", Ann. Stat. 9 (1981).
    """
    left_out = finite(without)
    count = len(left_out)
    if count < MIN_UNITS:
        return None
    degrees = count - 1 if freedom is None else freedom
    error = math.sqrt((count - 1) / count * float(np.sum((left_out - left_out.mean()) ** 2)))
    half = float(stdtrit(degrees, tails(level)[1])) * error
    scores = abs(whole) / error if error > 0 else (0.0 if whole == 0 else math.inf)
    return Estimate(whole - half, whole + half, float(2 * stdtr(degrees, -scores)))


def pair_mean(matrix: Floats) -> float:
    """The mean of a (P, P) matrix over pairs of two different prompts, P >= 2."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def pair_interval(
    matrix: Floats, groups: Sequence[Hashable], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval (low, high) of ``pair_mean``, by a bootstrap over prompts, or groups of them.

    A prompt that is drawn w times counts w times, and pairs of its copies count for nothing: with the diagonal 0 a
    draw is w'Hw / ((sum w)^2 - sum w^2). It covers too much near 0; whether there is any difference is for
    ``swap_p``. Seeded.

    Args:
        matrix: (P, P), symmetric.
        groups: (P,) the group of each prompt.
        level: two-sided coverage.
        resamples: draws.
        seed: of the draws.

    Returns:
        None under ``MIN_UNITS``.
    """
    owner, count = _owner_of(groups)
    if count < MIN_UNITS:
        return None
    hollow, dice = _hollow(matrix), np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, CHUNK_DRAWS):
        drawn = dice.multinomial(count, np.full(count, 1 / count), size=min(CHUNK_DRAWS, resamples - start))
        weights = drawn[:, owner].astype(np.float64)
        pairs = weights.sum(axis=1) ** 2 - np.sum(weights**2, axis=1)
        sums = np.sum((weights @ hollow) * weights, axis=1)
        found.append(sums[pairs > 0] / pairs[pairs > 0])
    low, high = np.quantile(np.concatenate(found), tails(level))
    return float(low), float(high)


def swap_p(matrix: Floats, groups: Sequence[Hashable], *, draws: int = RESAMPLES, seed: int = 0) -> float | None:
    """How often ``pair_mean`` is as large when the two sides are swapped, prompt by prompt, at random.

    Swapping the sides of prompt p turns the sign of H_pq, so that a draw is s'Hs with random signs s, one a prompt or
    group of prompts. One-sided; exact where there are no more than ``draws`` ways, else seeded, and never 0.

    Args:
        matrix: (P, P), symmetric.
        groups: (P,) the group of each prompt.
        draws: random ones, or the most that are counted out.
        seed: of the draws.

    Returns:
        None under ``MIN_UNITS``.
    """
    owner, count = _owner_of(groups)
    if count < MIN_UNITS:
        return None
    hollow = _hollow(matrix)
    members = (owner == np.arange(count)[:, None]).astype(np.float64)
    blocks = members @ hollow @ members.T
    observed = float(blocks.sum())
    exact = 2 ** (count - 1) <= draws
    if exact:  # all signs turned at once change nothing, so that the first one may stay
        ways = np.arange(2 ** (count - 1))
        signs = 1.0 - 2.0 * ((ways[:, None] >> np.arange(count)[None]) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, count))
    sums = np.sum((signs @ blocks) * signs, axis=1)
    reached = int(np.sum(sums >= observed - 1e-9 * float(np.abs(blocks).sum())))
    return reached / len(signs) if exact else (reached + 1) / (draws + 1)


def _owner_of(groups: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    owner = group_numbers(groups)
    return owner, int(owner.max()) + 1 if len(owner) else 0


def _hollow(matrix: Floats) -> Floats:
    hollow: Floats = matrix - np.diag(np.diag(matrix))
    return hollow
