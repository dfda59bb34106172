"""Prompts that are not independent: the values of whole groups, and how many independent ones they are worth."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc

from bench.stats.effects import Floats, finite, is_constant, mean, sd


class Units(NamedTuple):
    """The independent units of a sample: one value a group, whose mean is that of the sample."""

    values: Floats
    effective: float
    """How many groups of equal size they are worth: n^2 / sum(n_g^2); their number where all are of one size."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom: effective groups less one, at least 1."""
        return max(1.0, self.effective - 1.0)

    @property
    def sd(self) -> float:
        """Standard deviation of one effective unit: that of the mean is sd / sqrt(effective)."""
        return sd(self.values) * math.sqrt(self.effective / len(self.values))


def group_units(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> Units:
    """The values of groups of prompts, such that their ordinary standard error is the mean's clustered one.

    With n values in G groups, S_g the sum of a group's n_g deviations from the mean m of all values and
    e_g = S_g / (n - n_g), how far m moves when the group is left out, the value of a group is
    m + (G - 1) (e_g - mean(e)): the pseudo-value of the jackknife over groups, centred on m. Groups of one size have
    their own means as values; where every group is one value, the values are returned as they came, bit for bit.

    The variance is the one called CV3, and the degrees of freedom go by the effective number of groups: of the
    estimators for few groups of unequal sizes this pair held its level best (``tests/figures/gating.py``).

    Args:
        values: (n,) one a prompt.
        groups: (n,) the group of each; None where each is one of its own.

    Source: A. C. Cameron and D. L. Miller, "A practitioner's guide to cluster-robust inference", J. Hum. Resour. 50
    (2015); J. G. MacKinnon, M. O. Nielsen and M. D. Webb, "Cluster-robust inference: a guide to empirical practice",
    J. Econom. 232 (2023), for CV3; A. V. Carter, K. T. Schnepel and D. G. Steigerwald, "Asymptotic behavior of a
    t-test robust to cluster heterogeneity", Rev. Econ. Stat. 99 (2017), for the effective number.
    """
    data = finite(values)
    owner, sizes = _owners(groups, len(data))
    if len(sizes) == len(data):
        return Units(data, float(len(data)))
    effective = len(data) ** 2 / float(sizes @ sizes)
    if len(sizes) == 1 or is_constant(data):
        return Units(np.full(len(sizes), mean(data)), effective)
    deviations = np.bincount(owner, data - mean(data))
    moved = deviations / (len(data) - sizes)
    return Units(mean(data) + (len(sizes) - 1) * (moved - mean(moved)), effective)


def group_rows(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> Floats:
    """``group_units`` column by column: (n, k) values of prompts -> (groups, k) with the same means of columns."""
    return np.column_stack([group_units(column, groups).values for column in np.asarray(values, dtype=np.float64).T])


def group_sums(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> Floats:
    """The sum of each group's values, in the order in which groups are first met; one group is one random sign."""
    data = finite(values)
    owner, sizes = _owners(groups, len(data))
    return data if len(sizes) == len(data) else np.bincount(owner, data).astype(np.float64)


def group_numbers(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    """(n,) the number of each value's group, in the order in which groups are first met."""
    return _owners(groups, len(groups))[0]


def effective_groups(groups: Sequence[Hashable]) -> float:
    """How many groups of equal size these are worth: n^2 / sum(n_g^2), from 1 to the number of groups."""
    _, sizes = _owners(groups, len(groups))
    return len(groups) ** 2 / float(sizes @ sizes)


def effective_share(points: ArrayLike, groups: Sequence[Hashable] | None = None) -> float:
    """How many independent prompts a proportion of grouped ones rests on, at most n.

    n over the design effect, the ratio of the clustered variance of the mean of ``points`` in [0, 1] to the variance of
    independent ones; where all points are equal, which shows no effect, the effective number of groups.

    Source: E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Surv. Methodol. 24 (1998).
    """
    data = finite(points)
    units = group_units(data, groups)
    if len(units.values) == len(data):
        return float(len(data))
    if is_constant(data) or len(units.values) < 2:
        return units.effective
    alone = sd(data) ** 2 / len(data)
    return len(data) / max(1.0, sd(units.values) ** 2 / len(units.values) / alone)


class Explained(NamedTuple):
    """How much of the spread of values goes with features of theirs."""

    share: float
    """Adjusted R^2: under 0 where the features explain less than chance would."""
    p: float
    """Of the F test that they explain nothing."""


def explained_by(values: ArrayLike, features: ArrayLike) -> Explained | None:
    """The share of the variance of values that a linear model of their features explains, beyond what chance would.

    Adjusted R^2 = 1 - (RSS / (n - r)) / (TSS / (n - 1)) with r the rank of the features and the intercept, and the
    p-value of F = ((TSS - RSS) / (r - 1)) / (RSS / (n - r)).

    Args:
        values: (n,) one a prompt.
        features: (n, k), such as which tags each has, 1 or 0.

    Returns:
        None where the values are all equal, no feature tells them apart, or fewer than 2 degrees of freedom are left.

    Source: R. A. Fisher, "Statistical Methods for Research Workers" (1925), chapter VII.
    """
    data = finite(values)
    design: NDArray[np.float64] = np.column_stack([np.ones(len(data)), np.asarray(features, dtype=np.float64)])
    rank = int(np.linalg.matrix_rank(design))
    left = len(data) - rank
    if rank < 2 or left < 2 or is_constant(data):
        return None
    centred = (data - mean(data)) / sd(data)
    fitted = design @ np.linalg.lstsq(design, centred, rcond=None)[0]
    total, rest = float(centred @ centred), float(np.sum((centred - fitted) ** 2))
    if rest <= 0:
        return Explained(1.0, 0.0)
    f = (total - rest) / (rank - 1) / (rest / left)
    return Explained(1 - rest / left / (total / (len(data) - 1)), float(fdtrc(rank - 1, left, max(0.0, f))))


def _owners(groups: Sequence[Hashable] | None, n: int) -> tuple[NDArray[np.intp], Floats]:
    """The number of each value's group, in the order in which groups are first met, and the groups' sizes."""
    if groups is not None and len(groups) != n:
        raise ValueError(f"{n} values have {len(groups)} groups")
    if groups is None or len(set(groups)) == n:
        return np.arange(n), np.ones(n)
    numbers: dict[Hashable, int] = {}
    owner = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)
    return owner, np.bincount(owner, minlength=len(numbers)).astype(np.float64)
