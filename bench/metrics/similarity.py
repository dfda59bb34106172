"""Arithmetic of embeddings, in float64: how alike they are, and how far two sets lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST_EIGENVALUE = 1e-10
"""What is below is rounding: eigenvalues of a similarity matrix over n sum to 1 and are never negative."""
CHUNK_ROWS = 512
"""Images that a kernel is computed of at once, against all others."""
Matrix = NDArray[np.float64]
Kernel = Callable[[Matrix, Matrix], Matrix]
"""Rows (n, d) and (m, d) -> (n, m)."""


def log_vendi_score(rows: ArrayLike) -> float:
    """The natural logarithm of the Vendi score of order 1: how many different ones n embeddings are worth.

    With K the cosines of the rows and w the eigenvalues of K / n, it is -sum(w ln w), from 0 (all alike) to ln n (all
    orthogonal). It depends on n: compare equal n only.

    Args:
        rows: (n, d) of unit length, n >= 1.

    Source: D. Friedman and A. B. Dieng, "The Vendi score: a diversity evaluation metric for machine learning",
    TMLR 2023, arXiv 2210.02410.
    """
    unit = _unit_rows(rows)
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    weights = np.linalg.eigvalsh(gram / len(unit))
    weights = weights[weights > SMALLEST_EIGENVALUE]
    weights /= weights.sum()
    return min(max(0.0, -float(weights @ np.log(weights))), math.log(len(unit)))


def mean_squared_cosine(rows: ArrayLike) -> float:
    """Mean of the squared cosines of every two of n embeddings, in [0, 1]; it does not depend on n.

    (sum K^2 - n) / (n (n - 1)) with K the cosines: what the Vendi score of order 2, n^2 / sum K^2, says without n.

    Args:
        rows: (n, d), n >= 2.

    Source: A. Pasarkar and A. B. Dieng, "Cousins of the Vendi score", AISTATS 2024, arXiv 2310.12952, for order 2.
    """
    unit = _unit_rows(rows)
    cosines = unit @ unit.T
    return float(np.mean(cosines[~np.eye(len(unit), dtype=bool)] ** 2))


def mean_cosine_distance(rows: ArrayLike) -> float:
    """Mean of 1 - cosine over every two of n >= 2 embeddings (n, d), in [0, 2]."""
    unit = _unit_rows(rows)
    return float(1 - np.mean((unit @ unit.T)[~np.eye(len(unit), dtype=bool)]))


def paired_cosine_distance(rows: ArrayLike, others: ArrayLike) -> float:
    """Mean of 1 - cosine of each row and the other side's row of the same place, (n, d) twice, in [0, 2]."""
    return float(np.mean(1 - np.sum(_unit_rows(rows) * _unit_rows(others), axis=1)))


def _unit_rows(rows: ArrayLike) -> Matrix:
    data = np.asarray(rows, dtype=np.float64)
    if data.ndim != 2 or not len(data) or not np.isfinite(data).all():
        raise ValueError(f"embeddings must be finite rows (n, d), not of shape {data.shape}")
    unit: Matrix = data / np.linalg.norm(data, axis=1, keepdims=True)
    return unit


# Two sets of the same prompts: squared maximum mean discrepancy without pairs of one prompt.


def pair_matrix(sides: tuple[Sequence[Matrix], Sequence[Matrix]], kernel: Kernel) -> Matrix:
    """H of every two prompts, (P, P): how much more alike two images of one side are than images of the two sides.

    H_pq is the mean over the images x, y of prompt p and x', y' of prompt q of k(x, x') + k(y, y') - k(x, y') -
    k(y, x'); on the diagonal 0, which counts for nothing. The mean of H over p != q is the squared maximum mean
    discrepancy of the two sides without pairs of one prompt. The usual unbiased estimator is not unbiased where both
    sides drew the same prompts: images of one prompt are alike, and there are more such pairs across the sides than
    within one.

    Args:
        sides: for each prompt (n_p, d), of the two sides in the same order of prompts.
        kernel: of any two images.

    Source: A. Gretton et al., "A kernel two-sample test", JMLR 13 (2012), lemma 6, with the pairs of a prompt left out.
    """
    one, other = (np.concatenate([np.asarray(rows, np.float64) for rows in side]) for side in sides)
    owners = [np.repeat(np.arange(len(side)), [len(rows) for rows in side]) for side in sides]
    means, other_means = (_averages(owner) for owner in owners)
    matrix = np.zeros((len(means), len(means)))
    for start in range(0, len(one), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        matrix += means[:, rows] @ (kernel(one[rows], one) @ means.T - kernel(one[rows], other) @ other_means.T)
    for start in range(0, len(other), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        matrix += other_means[:, rows] @ (
            kernel(other[rows], other) @ other_means.T - kernel(other[rows], one) @ means.T
        )
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _averages(owner: NDArray[np.intp]) -> Matrix:
    """(P, N): a row takes the mean over a prompt's images."""
    members = (owner == np.arange(owner.max() + 1)[:, None]).astype(np.float64)
    averages: Matrix = members / members.sum(axis=1, keepdims=True)
    return averages


def polynomial_kernel(rows: Matrix, others: Matrix) -> Matrix:
    """(x . y / d + 1)^3, that of the kernel inception distance (M. Binkowski et al., arXiv 1801.01401)."""
    shifted = rows @ others.T / rows.shape[1] + 1.0
    kernel: Matrix = shifted * shifted * shifted  # ten times as fast as a power
    return kernel


def gaussian_kernel(rows: Matrix, others: Matrix) -> Matrix:
    """exp(-|x - y|^2 / (2 * 10^2)), that of CMMD (S. Jayasumana et al., arXiv 2401.09603)."""
    squares = np.sum(rows**2, axis=1)[:, None] + np.sum(others**2, axis=1)[None] - 2.0 * rows @ others.T
    kernel: Matrix = np.exp(-np.maximum(squares, 0.0) / 200.0)
    return kernel
