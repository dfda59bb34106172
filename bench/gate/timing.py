"""The verdict on one timed quantity: is the ratio of medians within its margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from bench.gate.check import Check, Statistics, invalid, timing_margin, verdict
from bench.gate.outcomes import timing_sentence
from bench.records import FrozenRound, Outcome, SessionNoise, TimingName, Verdict
from bench.stats.bounds import LEVEL
from bench.stats.effects import Floats, mean, sd

ONLY_ON: dict[TimingName, tuple[str, ...]] = {
    "peak_allocated": ("cuda", "mps"),
    "peak_process": ("cuda",),
    "energy_per_image": ("cuda",),
}
"""Kinds of device that can tell it, where not every kind can."""
NOT_CALIBRATED = (
    "how far two sessions of the same weights lie apart on this machine is not known: hotart-bench calibrate tells "
    "it, and a baseline holds it"
)
_POWER = 0.8
_MOST_ROUNDS = 100_000
_NEAREST = 0.1
_LARGEST_LOG = 700.0
"""exp of more overflows."""

Rounds = Sequence[FrozenRound]
Part = tuple[float, float]
"""A variance and its degrees of freedom."""


def judge_timing(
    check: Check, ours: Rounds, theirs: Rounds, *, one_session: bool, noise: SessionNoise | None
) -> Verdict:
    """The verdict on medians by round: loss = ratio of medians - 1, from the logs of the rounds' medians.

    Rounds of one session are interleaved, so they are paired and the interval is Student's, of the mean log
    ratio. Two sessions are Welch's, with the calibrated variance between sessions of the same weights added as
    a third component; without it the outcome is inconclusive at best. pass: the upper end of the 90 % interval
    is at most the margin; fail: the lower end is over it; else inconclusive, and always so with a single
    round. invalid: no values on a side, or one that no clock or memory counter gives.

    Args:
        check: the limit and the two variants.
        ours: the candidate's rounds, in seconds or bytes.
        theirs: the reference's.
        one_session: whether both were measured in one run.
        noise: of this quantity between sessions; None where it was not calibrated.

    Source: B. L. Welch, Biometrika 34 (1947); F. E. Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    medians = [[one.median for one in side if one.median is not None] for side in (ours, theirs)]
    reason = _unusable(ours, medians[0], "the candidate") or _unusable(theirs, medians[1], "the reference")
    if reason:
        return invalid(check, reason)
    above, below = (np.log(side) for side in medians)
    shift = mean(above) - mean(below)
    reference = math.exp(mean(below))
    statistics = Statistics(
        n=min(len(above), len(below)),
        margin=timing_margin(check.limit, reference),
        loss=_ratio_less_1(shift),
        candidate_mean=math.exp(mean(above)),
        reference_mean=reference,
    )
    if statistics.n < 2:
        return verdict(check, "inconclusive", timing_sentence(check, "inconclusive", statistics), statistics)
    known = noise if noise is not None and noise.sessions > 1 else None
    paired = one_session and len(above) == len(below)
    between = [] if one_session or known is None else [(known.sd_log_ratio**2, known.sessions - 1.0)]
    spread = _Spread(_per_round(above, below, paired), tuple(between), paired)
    doubt = "" if one_session or known is not None else NOT_CALIBRATED
    return _judged(check, statistics, shift, spread, doubt)


class _Spread:
    """What the error of the mean log ratio is made of, for any number of rounds."""

    def __init__(self, rounds: tuple[Part, ...], between: tuple[Part, ...], paired: bool) -> None:
        # Of each part of ``rounds``: variance of one round, and the rounds there are.
        self._rounds = rounds
        self._between = between
        self.method = "t over rounds, paired" if paired else "Welch's t over rounds"
        if between:
            self.method += " and sessions"

    def error(self, rounds: int | None = None) -> Part:
        """Standard error and its degrees of freedom, with the rounds there are or with another number."""
        parts = [(variance / (rounds or there), (rounds or there) - 1) for variance, there in self._rounds]
        parts += self._between
        # Over the largest, so that no square vanishes.
        largest = max(variance for variance, _ in parts)
        if largest == 0:
            return 0.0, min(df for _, df in parts)
        shares = [(variance / largest, df) for variance, df in parts]
        total = math.fsum(share for share, _ in shares)
        return math.sqrt(largest * total), total**2 / math.fsum(share**2 / df for share, df in shares)

    def reach(self, rounds: int | None = None) -> float:
        """How far beyond the margin a true log ratio is found out in 80 of 100 gates, about."""
        error, df = self.error(rounds)
        return float(stdtrit(df, (1 + LEVEL) / 2) + stdtrit(df, _POWER)) * error


def _judged(check: Check, statistics: Statistics, shift: float, spread: _Spread, doubt: str) -> Verdict:
    margin = statistics.margin or 0.0
    error, df = spread.error()
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    low, high = _ratio_less_1(shift - half), _ratio_less_1(shift + half)
    outcome: Outcome = "inconclusive"
    if not doubt:
        outcome = "pass" if high <= margin else "fail" if low > margin else "inconclusive"
    away = max(abs(math.log1p(margin) - shift), _NEAREST * math.log1p(margin))
    statistics = replace(
        statistics,
        low=low,
        high=high,
        method=spread.method,
        detectable=(1 + margin) * _ratio_less_1(spread.reach()),
        needed=_needed(statistics.n, spread, away) if outcome == "inconclusive" and not doubt else None,
    )
    return verdict(check, outcome, timing_sentence(check, outcome, statistics, doubt), statistics)


def _per_round(above: Floats, below: Floats, paired: bool) -> tuple[Part, ...]:
    if paired:
        return ((sd(above - below) ** 2, len(above)),)
    return (sd(above) ** 2, len(above)), (sd(below) ** 2, len(below))


def _needed(n: int, spread: _Spread, away: float) -> int | None:
    """Rounds of each side with which a gate would find a log ratio that lies ``away`` from the margin; None: none."""
    if spread.reach(_MOST_ROUNDS) > away:
        return None
    low, high = n, _MOST_ROUNDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spread.reach(middle) <= away else (middle, high)
    return high


def _unusable(rounds: Rounds, medians: Sequence[float], side: str) -> str:
    if not rounds:
        return f"{side} has no values of it"
    if len(medians) < len(rounds) or not all(0 < median < math.inf for median in medians):
        return f"{side} has a value that is 0 or less or infinite, which no clock or memory counter gives"
    return ""


def _ratio_less_1(log_ratio: float) -> float:
    return math.expm1(min(log_ratio, _LARGEST_LOG))
