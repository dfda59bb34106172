"""Checked arrays, sizes of paired effects, and order statistics."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of an exactly rounded sum: the same for any order, negated for negated values."""
    if (
        isinstance(values, (list, tuple)) and values and all(map(math.isfinite, values))
    ):  # an array of four takes ten times as long
        return float(min(max(math.fsum(values) / len(values), min(values)), max(values)))
    data = finite(values)
    # Equal values are their own mean, though their rounded sum over n may not be.
    return min(max(math.fsum(data) / len(data), float(data.min())), float(data.max()))


def finite(values: ArrayLike, *, at_least: int = 1) -> Floats:
    """``values`` as a (n,) float64 array.

    Raises:
        ValueError: another number of dimensions, fewer than ``at_least`` values, or one that is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise ValueError(f"values must be one-dimensional, not of shape {data.shape}")
    if len(data) < at_least:
        raise ValueError(f"needs {at_least} or more values, not {len(data)}")
    if not np.isfinite(data).all():
        raise ValueError("values must be finite")
    return data


def tails(level: float) -> tuple[float, float]:
    """The two probabilities (1 -+ level) / 2 between which a two-sided interval of ``level`` in (0, 1) lies.

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    return (1 - level) / 2, (1 + level) / 2


def is_constant(data: Floats) -> bool:
    """Whether all values are one and the same."""
    return bool(data.min() == data.max())


def sd(data: Floats) -> float:
    """Standard deviation with n - 1, exactly 0 for equal values."""
    if is_constant(data):
        return 0.0
    scaled, scale = rescaled(data - mean(data))
    return scale * math.sqrt(math.fsum(scaled**2) / (len(data) - 1))


def rescaled(deviations: Floats) -> tuple[Floats, float]:
    """Deviations over their largest size, so that no square or cube vanishes or overflows; and that size."""
    scale = float(np.abs(deviations).max())
    return deviations / scale, scale


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


def win_rate(differences: ArrayLike) -> WinCount:
    """Share of paired differences that are positive, ties by half; a tie is a difference of exactly 0."""
    data = finite(differences)
    wins, losses = int(np.sum(data > 0)), int(np.sum(data < 0))
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


def spearman_rho(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation of pairs, Pearson's of their ranks, in [-1, 1]; equal values share their mean rank.

    ``scipy.stats.spearmanr`` gives the same number, and takes half a second to import.

    Raises:
        ValueError: ``x`` and ``y`` of different length, or a side that is constant.

    Source: C. Spearman, "The proof and measurement of association between two things", Am. J. Psychol. 15 (1904).
    """
    sides = finite(x), finite(y)
    if len(sides[0]) != len(sides[1]) or any(map(is_constant, sides)):
        raise ValueError("a rank correlation needs pairs, and two different values on each side")
    correlations = np.asarray(np.corrcoef(np.column_stack([_ranks(side) for side in sides]), rowvar=False))
    return float(correlations[1, 0])


def _ranks(values: Floats) -> Floats:
    """Places from 1 in rising order; of equal values the mean of theirs."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[number]
    return ranks


def quantiles(values: ArrayLike) -> Quantiles:
    """Median, 90 % quantile, interquartile range and minimum, linear between order statistics.

    Source: R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages" (1996), definition 7.
    """
    data = finite(values)
    quarter, median, three_quarters, p90 = (float(q) for q in np.quantile(data, (0.25, 0.5, 0.75, 0.9)))
    return Quantiles(median, p90, three_quarters - quarter, float(data.min()))
