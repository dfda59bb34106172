"""Sizes of paired effects, and order statistics."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.arrays import finite, is_constant, mean, rescaled, sd


class Quantiles(NamedTuple):
    """Order statistics of a sample, in the sample's unit."""

    median: float
    p90: float
    iqr: float
    """75 % quantile minus 25 % quantile."""
    minimum: float


class WinCount(NamedTuple):
    """How often a paired difference is positive, a tie, negative; rate is (wins + ties / 2) / n."""

    wins: int
    ties: int
    losses: int
    rate: float


def d_z(differences: ArrayLike) -> float | None:
    """Cohen's d_z: mean of the paired differences over their standard deviation (n - 1), without unit.

    None with fewer than 2 differences or when all are equal.

    Source: J. Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988), section 2.3.5.
    """
    data = finite(differences)
    return None if is_constant(data) else mean(data) / sd(data)


def win_rate(differences: ArrayLike, *, tie: float = 0.0) -> WinCount:
    """Share of paired differences that are positive, ties by half.

    A difference of at most ``tie`` >= 0, either way, is a tie; 0 means exact equality.
    """
    if not tie >= 0:
        raise ValueError(f"tie must be 0 or more, not {tie}")
    data = finite(differences)
    wins, losses = int(np.sum(data > tie)), int(np.sum(data < -tie))
    ties = len(data) - wins - losses
    return WinCount(wins, ties, losses, (wins + ties / 2) / len(data))


def pearson_r(x: ArrayLike, y: ArrayLike) -> float | None:
    """Pearson's correlation of pairs, in [-1, 1]; None with fewer than 2 or when a side is constant.

    Raises:
        ValueError: ``x`` and ``y`` of different length.

    Source: K. Pearson, "Notes on regression and inheritance", Proc. R. Soc. 58 (1895).
    """
    left, right = finite(x), finite(y)
    if len(left) != len(right):
        raise ValueError(f"a correlation needs pairs, not {len(left)} and {len(right)} values")
    if is_constant(left) or is_constant(right):
        return None
    left, right = (rescaled(side - mean(side))[0] for side in (left, right))
    r = math.fsum(left * right) / math.sqrt(math.fsum(left**2) * math.fsum(right**2))
    return min(1.0, max(-1.0, r))


def quantiles(values: ArrayLike) -> Quantiles:
    """Median, 90 % quantile, interquartile range and minimum, linear between order statistics.

    Source: R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages" (1996), definition 7.
    """
    data = finite(values)
    quarter, median, three_quarters, p90 = (float(q) for q in np.quantile(data, (0.25, 0.5, 0.75, 0.9)))
    return Quantiles(median, p90, three_quarters - quarter, float(data.min()))
