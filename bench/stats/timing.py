"""Ratios of timed quantities, with intervals over rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from bench.stats.effects import Floats, finite, tails

_LARGEST_LOG = 700.0
"""exp of more overflows."""


def ratio_of_medians(candidate_rounds: Sequence[ArrayLike], reference_rounds: Sequence[ArrayLike]) -> float:
    """Median of the candidate's values of all rounds over the reference's, without unit.

    Raises:
        ValueError: no rounds on a side, or a reference median of 0.
    """
    sides = (_rounds(side, at_least=1) for side in (candidate_rounds, reference_rounds))
    candidate, reference = (float(np.median(np.concatenate(side))) for side in sides)
    if reference == 0:
        raise ValueError("the reference's median is 0, so there is no ratio to it")
    return candidate / reference


def ratio_of_medians_interval(
    candidate_rounds: Sequence[ArrayLike], reference_rounds: Sequence[ArrayLike], *, level: float = 0.95
) -> tuple[float, float]:
    """Student's t interval of the ratio of medians, from the logs of the rounds' medians.

    A round is a fresh process, and processes differ more than the values inside one, so a round counts as one
    observation. The two sides are taken to spread alike (pooled variance, as many degrees of freedom as rounds less
    2). Simulated 95 % intervals held the true ratio in 95 to 96 % with 2 to 8 rounds, of one value or of ten; where
    one side spread four times as widely as the other, in 91 to 94 %. With two rounds the percentiles of a bootstrap
    over rounds held it in 67 % (one value a round) to 98 %.

    Each side is one array a round; lengths may differ.

    Raises:
        ValueError: fewer than 2 rounds on a side, or a value that is not over 0.

    Source: R. A. Fisher, "Applications of Student's distribution", Metron 5 (1925).
    """
    sides = [_rounds(side, at_least=2) for side in (candidate_rounds, reference_rounds)]
    if min(float(values.min()) for side in sides for values in side) <= 0:
        raise ValueError("values must be over 0 for a ratio of their medians")
    tail = tails(level)[1]
    candidate, reference = (np.log([np.median(values) for values in side]) for side in sides)
    freedom = len(candidate) + len(reference) - 2
    squares = sum(float(np.square(logs - logs.mean()).sum()) for logs in (candidate, reference))
    error = math.sqrt(squares / freedom * (1 / len(candidate) + 1 / len(reference)))
    half = float(stdtrit(freedom, tail)) * error
    shift = float(candidate.mean() - reference.mean())
    return _exp(shift - half), _exp(shift + half)


def _exp(value: float) -> float:
    """The exponential, held to what a float can be: two rounds that lie far apart allow for any ratio."""
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, value)))


def _rounds(rounds: Sequence[ArrayLike], *, at_least: int) -> list[Floats]:
    if len(rounds) < at_least:
        raise ValueError(f"needs {at_least} or more rounds, not {len(rounds)}")
    return [finite(values) for values in rounds]
