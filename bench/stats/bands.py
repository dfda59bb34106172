"""Bands that hold a whole curve at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.effects import Floats, tails

CHUNK_RESAMPLES = 500


class Band(NamedTuple):
    """A mean curve (k,) and the ends of its band (k,)."""

    mean: Floats
    low: Floats
    high: Floats


def simultaneous_band(values: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Band:
    """The mean of each column with a band that holds the whole true curve with probability ``level``.

    The sup-t band, studentised: rows are drawn again with replacement, in each draw the largest
    |mean* - mean| / se* over the columns is taken, and the band is mean -+ c se with c its quantile at ``level`` and
    se = sd / sqrt(n). A column that is constant has a band of no width. One that is constant in a draw of several rows,
    such as a share near 1, has se in the place of se* there. The result is seeded.

    Args:
        values: (n, k), n >= 2 rows that are independent (prompts, or groups of them), k columns.
        level: two-sided coverage of all columns together.
        resamples: draws.
        seed: of the draws.

    Raises:
        ValueError: fewer than 2 rows, or values that are not finite.

    Source: J. L. Montiel Olea and M. Plagborg-Moller, "Simultaneous confidence bands", J. Appl. Econometrics 34 (2019).
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or len(data) < 2 or not np.isfinite(data).all():
        raise ValueError("a band needs 2 or more rows of finite values")
    tails(level)
    n, centre = len(data), data.mean(axis=0)
    spread = data.std(axis=0, ddof=1)
    # Scaled to one spread, and what is as good as constant left out, so that no column decides by its rounding.
    moving = spread > 1e-12 * np.maximum(np.abs(data).max(axis=0), np.finfo(float).tiny)
    half = np.zeros(data.shape[1])
    if moving.any():
        scaled = (data[:, moving] - centre[moving]) / spread[moving]
        dice = np.random.default_rng(seed)
        largest = []
        for start in range(0, resamples, CHUNK_RESAMPLES):
            count = min(CHUNK_RESAMPLES, resamples - start)
            drawn = dice.multinomial(n, np.full(n, 1 / n), size=count) / n
            means = drawn @ scaled
            variances = np.maximum(drawn @ scaled**2 - means**2, 0) * n / (n - 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = np.abs(means) / np.sqrt(variances)
            # A draw of one row alone has no spread; it says that the mean may be anywhere.
            alone = (drawn > 0).sum(axis=1, keepdims=True) == 1
            flat = np.where(alone, np.inf, np.abs(means))
            largest.append(np.where(variances > 1e-12, ratios, flat).max(axis=1) * np.sqrt(n))
        critical = float(np.quantile(np.concatenate(largest), level, method="higher"))
        half[moving] = critical * spread[moving] / np.sqrt(n)
    return Band(centre, centre - half, centre + half)
