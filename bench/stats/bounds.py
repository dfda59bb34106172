"""The bounds that the gate decides by, and how often a gate of a given size passes."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import ArrayLike
from scipy.special import nctdtr, stdtrit

from bench.stats.effects import Floats, finite, is_constant, mean, rescaled, tails

LEVEL = 0.90
"""Two-sided: each end is a one-sided 95 % bound."""
MIN_PROMPTS = 10
"""With fewer prompts no interval of a mean holds its level for skewed values, so no gate decides."""
METHOD = "wider of t and Hall"
_MOST_PROMPTS = 10**12
_NODES = hermegauss(24)


def mean_bounds(values: ArrayLike, level: float = LEVEL, freedom: float | None = None) -> tuple[float, float]:
    """Interval (low, high) of the mean of per-prompt values that holds its level for skewed values too.

    On each side the wider of Student's and Hall's bound. With m the mean, s the standard deviation (n - 1),
    g the skewness (sum d^3 / n) / (sum d^2 / n)^1.5, a = g / sqrt(n) and q = -+ t(n - 1), Student's bounds are
    m - q s / sqrt(n) and Hall's m - T(q) s / sqrt(n) with T(q) = 3 / a ((1 + a (q - a / 6))^(1/3) - 1), the
    inverse of a monotone cubic transformation of t that takes its skewness away. Student's interval is too
    short on the side of the long tail, Hall's on the other one.

    Closed form, O(n); the same for any order of the values, the exact mirror image for ``-values``. Constant
    values give an interval of zero width. ``tests/figures/gating.py`` computes its error rates.

    Args:
        values: one a prompt, or a group of prompts (``bench.stats.groups.group_units``).
        level: two-sided coverage.
        freedom: degrees of freedom of t, of groups of unequal size; None for n - 1.

    Raises:
        ValueError: fewer than 2 values.

    Source: P. Hall, "On the removal of skewness by transformation", JRSS B 54 (1992), 221-228, (2.2) and (3.1).
    """
    data = finite(values, at_least=2)
    upper_tail = tails(level)[1]
    centre = mean(data)
    if is_constant(data):
        return centre, centre
    scaled, scale = rescaled(data - centre)
    n = len(data)
    squares = math.fsum(scaled**2)
    step = scale * math.sqrt(squares / (n - 1)) / math.sqrt(n)
    # a = g / sqrt(n), with the n of the moments multiplied out. As products: numpy's power rounds otherwise at the end
    # of an array than within it.
    a = math.fsum(scaled * scaled * scaled) / squares**1.5
    t = float(stdtrit(n - 1 if freedom is None else freedom, upper_tail))
    low = centre - step * max(t, hall_quantile(t, a))
    high = centre - step * min(-t, hall_quantile(-t, a))
    return low, high


def hall_quantile(q: float, a: float) -> float:
    """Hall's T(q) = 3 / a ((1 + a (q - a / 6))^(1/3) - 1), without unit; its limit q at a = 0.

    Args:
        q: quantile of the transformed statistic.
        a: skewness of the values over the square root of their number.
    """
    shift = q - a / 6
    root = math.copysign(abs(1 + a * shift) ** (1 / 3), 1 + a * shift)
    # (c - 1) = (c^3 - 1) / (c^2 + c + 1) keeps its digits where a is near 0.
    return 3 * shift / (root * root + root + 1)


def power_of_pass(n: int, sd: float, margin: float, true_loss: float) -> float:
    """Probability in [0, 1] that the upper end of ``mean_bounds`` holds the margin, for normal per-prompt losses.

    P(T >= c), T of Student's noncentral distribution with n - 1 degrees of freedom and noncentrality
    (margin - true_loss) sqrt(n) / sd; c is t(n - 1) at 95 % or, where the sample's skewness makes it so, Hall's.
    It is averaged over the skewness of normal samples, which has variance 6 (n - 2) / ((n + 1) (n + 3)) and is
    independent of mean and standard deviation. By symmetry it is also the probability that a gate fails at a
    true loss of margin + (margin - true_loss). 0 with fewer than ``MIN_PROMPTS``, which a gate never passes.

    Args:
        n: prompts.
        sd: standard deviation of the per-prompt losses, 0 or more.
        margin: largest allowed loss, in the unit of ``sd``.
        true_loss: in the same unit.

    Raises:
        ValueError: a negative or non-finite number.

    Source: Student's part: N. L. Johnson and B. L. Welch, Biometrika 31 (1940); the variance: R. A. Fisher,
    Proc. R. Soc. A 130 (1930).
    """
    if n < 0 or not (math.isfinite(sd) and sd >= 0 and math.isfinite(margin) and math.isfinite(true_loss)):
        raise ValueError(f"needs finite numbers and no negative n or sd: n {n}, sd {sd}, {margin}, {true_loss}")
    if n < MIN_PROMPTS:
        return 0.0
    if sd == 0:
        return float(true_loss <= margin)
    return _power((margin - true_loss) / sd, n)


def prompts_for(margin: float, sd: float, true_loss: float = 0.0, power: float = 0.8) -> int:
    """Smallest number of prompts with which a gate passes with probability ``power``, by ``power_of_pass``.

    About ((z_0.95 + z_power) sd / (margin - true_loss))^2; at least ``MIN_PROMPTS``, at most 10^12.

    Args:
        margin: largest allowed loss.
        sd: standard deviation of the per-prompt losses, 0 or more, in the unit of ``margin``.
        true_loss: under the margin, in the same unit.
        power: in (0, 1).

    Raises:
        ValueError: a true loss that is not under the margin, which no number of prompts will pass; a power
            outside (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power must lie between 0 and 1, not {power}")
    if not margin > true_loss:
        raise ValueError(f"no number of prompts passes a loss of {true_loss} with a margin of {margin}")
    low, high = MIN_PROMPTS - 1, MIN_PROMPTS
    while high < _MOST_PROMPTS and power_of_pass(high, sd, margin, true_loss) < power:
        low, high = high, min(2 * high, _MOST_PROMPTS)
    while high - low > 1:
        middle = (low + high) // 2
        if power_of_pass(middle, sd, margin, true_loss) >= power:
            high = middle
        else:
            low = middle
    return high


def detectable_loss(n: int, sd: float, power: float = 0.8) -> float | None:
    """Smallest true loss beyond the margin that a gate fails with probability ``power``, in the unit of ``sd``.

    About (z_0.95 + z_power) sd / sqrt(n), and by symmetry also the smallest margin that is passed with that
    probability at no true loss. None with fewer than ``MIN_PROMPTS``, where a gate neither passes nor fails.

    Raises:
        ValueError: a negative or non-finite ``sd``, a power outside (0, 1).
    """
    if not (math.isfinite(sd) and sd >= 0 and 0 < power < 1):
        raise ValueError(f"needs a finite sd of 0 or more and a power between 0 and 1: {sd}, {power}")
    return None if n < MIN_PROMPTS else sd * _detectable_sds(n, power)


@lru_cache(maxsize=256)
def _detectable_sds(n: int, power: float) -> float:
    low, high = 0.0, 1.0
    while _power(high, n) < power:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n) >= power else (middle, high)
    return high


def _power(effect: float, n: int) -> float:
    critical, weights = _critical_values(n)
    return float(weights @ (1 - nctdtr(n - 1, effect * math.sqrt(n), critical)))


@lru_cache(maxsize=4096)
def _critical_values(n: int) -> tuple[Floats, Floats]:
    """What t must reach to pass, over the skewness of normal samples, and the weight of each value."""
    nodes, weights = _NODES
    spread = math.sqrt(6 * (n - 2) / ((n + 1) * (n + 3) * n))
    t = float(stdtrit(n - 1, tails(LEVEL)[1]))
    critical = np.array([max(t, -hall_quantile(-t, spread * float(node))) for node in nodes])
    return critical, weights / weights.sum()
