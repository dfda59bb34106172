"""Tests of single differences, and what looking at many of them costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.effects import Floats, finite, rescaled

EXACT_UP_TO = 14
"""Up to this many differences all patterns of signs are gone through."""
_BYTE_SIGNS = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_GROUPS = 64  # of eight: their tables fit a cache
_EQUAL = 1e-12
"""Share of the sum of sizes up to which two sums differ by rounding alone."""
_CHUNK = 1_000
"""Patterns of signs of whole rows that are drawn at once."""


def sign_flip_p(differences: ArrayLike, *, flips: int = 10_000, seed: int = 0) -> float | None:
    """Two-sided p-value in (0, 1] of the sign-flip test that paired differences are symmetric around 0.

    p is the share of patterns of signs s for which |sum(s d)| reaches |sum(d)|. Up to 14 differences all
    patterns are gone through and p is exact, at least 2^(1 - n); above, ``flips`` seeded random ones and
    the observed one, p = (1 + reached) / (1 + flips), which is valid at any number of flips. No normality
    is assumed, unlike by a t test, whose p-values far out in the tails need it most and have it least.

    The result is the same for any order of the differences and for their mirror image. Differences that
    are all 0 give 1; None with fewer than 2.

    Source: R. A. Fisher, "The Design of Experiments" (1935), section 21; B. Phipson and G. K. Smyth,
    "Permutation p-values should never be zero", Stat. Appl. Genet. Mol. Biol. 9 (2010).
    """
    data = finite(differences)
    if len(data) < 2:
        return None
    if not data.any():
        return 1.0
    sizes, _ = rescaled(data[np.argsort(-np.abs(data), kind="stable")])
    observed = abs(math.fsum(sizes)) - _EQUAL * math.fsum(np.abs(sizes))
    sizes = np.abs(sizes)
    if len(sizes) <= EXACT_UP_TO:
        return float(np.mean(np.abs(_all_sums(sizes)) >= observed))
    reached = int(np.sum(np.abs(_random_sums(sizes, flips, seed)) >= observed))
    return (1 + reached) / (1 + flips)


def sign_flip_rows_p(rows: ArrayLike, *, flips: int = 10_000, seed: int = 0) -> float | None:
    """p-value in (0, 1] of the sign-flip test that all columns have one and the same mean.

    For paired data: a row holds what one prompt gives in each of k conditions. With c = row - its own mean and S the
    sum of the c of all rows, the statistic is sum(S^2), the spread of the columns' means. Under patterns of signs, one
    sign a row, p is the share of patterns whose statistic reaches the observed one: all patterns up to 14 rows, above
    ``flips`` seeded random ones and the observed one, as in ``sign_flip_p``, which this equals for k = 2.

    A row is flipped whole, so that columns may have spreads of their own and depend on one another in any way; what is
    assumed under the null hypothesis is that the contrasts of a row are as likely as their mirror image.

    Rows that are all constant give 1; None with fewer than 2 rows or columns.

    Raises:
        ValueError: not of two dimensions, or values that are not finite.

    Source: as ``sign_flip_p``; E. J. G. Pitman, "Significance tests which may be applied to samples from any
    populations. III", Biometrika 29 (1938), for the statistic.
    """
    data = np.asarray(rows, dtype=np.float64)
    if data.ndim != 2 or not np.isfinite(data).all():
        raise ValueError("rows must be a finite (n, k) array")
    if min(data.shape) < 2:
        return None
    contrasts = data - data.mean(axis=1, keepdims=True)
    scale = float(np.abs(contrasts).max())
    if scale <= _EQUAL * float(np.abs(data).max()):
        return 1.0  # each row is constant but for rounding
    contrasts = contrasts / scale
    observed = _size(contrasts.sum(axis=0)) - _EQUAL * float(np.abs(contrasts).sum())
    if len(contrasts) <= EXACT_UP_TO:
        patterns = np.array([*itertools.product((1.0, -1.0), repeat=len(contrasts) - 1)])
        return float(np.mean(_size(contrasts[0] + patterns @ contrasts[1:]) >= observed))
    rng, reached = np.random.default_rng(seed), 0
    for start in range(0, flips, _CHUNK):
        signs = rng.integers(2, size=(min(_CHUNK, flips - start), len(contrasts))) * 2.0 - 1.0
        reached += int(np.sum(_size(signs @ contrasts) >= observed))
    return (1 + reached) / (1 + flips)


def _size(sums: Floats) -> Floats:
    """Length of vectors: (..., k) -> (...)."""
    found: Floats = np.sqrt(np.square(sums).sum(axis=-1))
    return found


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: they hold the chance of any false find in the family.

    With p(1) <= ... <= p(m), adjusted p(i) = min(1, max over j <= i of (m - j + 1) p(j)). No assumption on
    how the tests depend on one another.

    Raises:
        ValueError: a p-value outside [0, 1].

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979).
    """
    data = _checked(p_values)
    order = np.argsort(data, kind="stable")
    factors = np.arange(len(data), 0, -1)
    adjusted = np.empty(len(data))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * data[order]))
    return tuple(adjusted.tolist())


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values, in the order given: they hold the share of false finds.

    With p(1) <= ... <= p(m), adjusted p(i) = min(1, min over j >= i of m p(j) / j). Valid for independent
    tests and for positively dependent ones, as those on the same images mostly are.

    Raises:
        ValueError: a p-value outside [0, 1].

    Source: Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", JRSS B 57 (1995).
    """
    data = _checked(p_values)
    order = np.argsort(-data, kind="stable")
    factors = len(data) / np.arange(len(data), 0, -1)
    adjusted = np.empty(len(data))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(factors * data[order]))
    return tuple(adjusted.tolist())


def _checked(p_values: Sequence[float]) -> Floats:
    data = np.asarray(p_values, dtype=np.float64)
    if data.ndim != 1 or not ((data >= 0) & (data <= 1)).all():
        raise ValueError("p-values must be one-dimensional and lie between 0 and 1")
    return data


def _all_sums(sizes: Floats) -> Floats:
    """Sums under every pattern of signs with the first one plus: the others are their mirror images."""
    sums = sizes[:1]
    for size in sizes[1:]:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def _random_sums(sizes: Floats, flips: int, seed: int) -> Floats:
    """Sums under random signs. A byte draws eight signs at once: their 256 sums are looked up."""
    groups = np.concatenate([sizes, np.zeros(-len(sizes) % 8)]).reshape(-1, 8)
    rng = np.random.default_rng(seed)
    sums = np.zeros(flips)
    for start in range(0, len(groups), _GROUPS):
        tables = groups[start : start + _GROUPS] @ _BYTE_SIGNS.T
        drawn = rng.integers(256, size=(flips, len(tables)), dtype=np.uint8)
        for table, bytes_drawn in zip(tables, drawn.T, strict=True):  # one table of 2 KiB at a time stays in the cache
            sums += table.take(bytes_drawn)
    return sums
