"""Intervals of means and of proportions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from bench.stats.effects import Floats, finite, mean, rescaled, sd, tails

CHUNK = 2**18
"""Values drawn at once: fits a cache and bounds the memory."""


def bootstrap_bca(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (low, high) of the mean of per-prompt values.

    This is the cluster bootstrap when ``values`` are means over the samples of a prompt: whole prompts
    are drawn again. With z0 the normal quantile of the share of resampled means below the mean (equal
    ones by half) and a = sum(d^3) / (6 sum(d^2)^1.5), d = value - mean, the ends are the resampled
    means' quantiles at Phi(z0 + (z0 + z) / (1 - a (z0 + z))) for z = Phi^-1((1 -+ level) / 2).

    The result is seeded and the same for any order of the values; that of ``-values`` is its exact mirror
    image. Constant values give an interval of zero width. Two-sided 90 % ends are one-sided 95 % bounds.
    Under about 30 values it covers too little: show ``t_interval`` beside it.

    Raises:
        ValueError: fewer than 2 values.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987). ``scipy.stats.bootstrap``
    agrees within Monte Carlo error and takes ten times as long (0.20 s for 500 values).
    """
    data = np.sort(finite(values, at_least=2))
    ends_at = tails(level)
    if data[0] == data[-1]:
        return float(data[0]), float(data[0])
    centre = mean(data)
    deviations, sign = _canonical(data - centre)
    means = _resampled_means(deviations, resamples, seed)
    # Means of equal draws in another order differ by rounding; they are ties, not shifts.
    scaled, scale = rescaled(deviations)
    tiny = 1e-12 * scale
    below = float(np.mean(means < -tiny) + 0.5 * np.mean(np.abs(means) <= tiny))
    bias = float(ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples)))
    acceleration = math.fsum(scaled * scaled * scaled) / (6 * math.fsum(scaled**2) ** 1.5)
    z = ndtri(np.array(ends_at)) + bias
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    ends = sorted((centre + sign * float(low), centre + sign * float(high)))
    return ends[0], ends[1]


def t_interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval (low, high) of the mean: mean -+ t(n - 1) sd / sqrt(n), sd with n - 1.

    It assumes near-normal values; constant ones give an interval of zero width.

    Raises:
        ValueError: fewer than 2 values.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    data = finite(values, at_least=2)
    half = float(stdtrit(len(data) - 1, tails(level)[1])) * sd(data) / math.sqrt(len(data))
    return mean(data) - half, mean(data) + half


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion, in [0, 1], without continuity correction.

    With p = successes / n and z the normal quantile,
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). A tie is half a success.

    Raises:
        ValueError: n < 1 or ``successes`` outside [0, n].

    Source: E. B. Wilson, "Probable inference", JASA 22 (1927).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs n >= 1 and 0 <= successes <= n, not {successes} of {n}")
    z = float(ndtri(tails(level)[1]))
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 or n successes an end is exactly 0 or 1, which rounding would miss.
    low = 0.0 if successes == 0 else (centre - half) / (1 + z * z / n)
    high = 1.0 if successes == n else (centre + half) / (1 + z * z / n)
    return low, high


def _canonical(deviations: Floats) -> tuple[Floats, int]:
    """Of sorted deviations and their sorted mirror image, the lexicographically smaller, and its sign."""
    mirrored = -deviations[::-1]
    return (deviations, 1) if deviations.tolist() <= mirrored.tolist() else (mirrored, -1)


def _resampled_means(data: Floats, resamples: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, CHUNK // len(data))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = data[rng.integers(len(data), size=(stop - start, len(data)))].mean(axis=1)
    return means
