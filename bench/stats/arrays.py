"""What the rest is made of: checked arrays, exact means, standard deviations, bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CHUNK = 2**18
"""Values drawn at once: fits a cache and bounds the memory."""


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of an exactly rounded sum: the same for any order, negated for negated values."""
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


def chunks(resamples: int, width: int) -> Iterator[slice]:
    """Slices that cover ``resamples`` rows, each of at most about ``CHUNK`` values when a row has ``width``."""
    rows = max(1, CHUNK // width)
    for start in range(0, resamples, rows):
        yield slice(start, min(start + rows, resamples))
