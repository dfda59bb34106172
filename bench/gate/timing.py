"""The verdict on one timed quantity: is the ratio of medians within its margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from scipy.special import stdtrit

from bench.gate.check import NEAREST, invalid, timing_margin, with_interval
from bench.gate.outcomes import timing_sentence
from bench.records import FrozenRound, SessionNoise, TimingName, Verdict
from bench.stats.bounds import LEVEL
from bench.stats.effects import Floats, mean, sd
from bench.suite.limits import limit_outcome

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
_LARGEST_LOG = 700.0
"""exp of more overflows."""


def check_timing(
    check: Verdict,
    ours: Sequence[FrozenRound],
    theirs: Sequence[FrozenRound],
    *,
    one_session: bool,
    noise: SessionNoise | None,
) -> Verdict:
    """The verdict on medians by round: loss = ratio of medians - 1, from the logs of the rounds' medians.

    Rounds of one session are interleaved, so they are paired and the interval is Student's, of the mean log
    ratio. Two sessions are Welch's, with the calibrated variance between sessions of the same weights added as
    a third component; without it the outcome is inconclusive at best. pass: the upper end of the 90 % interval
    is at most the margin; fail: the lower end is over it; else inconclusive, and always so with a single
    round. invalid: no values on a side, or one that no clock or memory counter gives.

    Args:
        check: the limit and the two variants.
        ours: the candidate's rounds, in seconds, bytes or joules.
        theirs: the reference's.
        one_session: whether both were measured in one run.
        noise: of this quantity between sessions; None where it was not calibrated.

    Source: B. L. Welch, Biometrika 34 (1947); F. E. Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    reason = _unusable(ours, "the candidate") or _unusable(theirs, "the reference")
    if reason:
        return invalid(check, reason)
    above, below = (np.log([one.median for one in side if one.median]) for side in (ours, theirs))
    shift, reference = mean(above) - mean(below), math.exp(mean(below))
    margin = timing_margin(check.limit, reference)
    check = replace(
        check,
        outcome="inconclusive",
        n=min(len(above), len(below)),
        margin=margin,
        loss=_ratio_less_1(shift),
        candidate_mean=math.exp(mean(above)),
        reference_mean=reference,
    )
    if check.n < 2:
        return replace(check, sentence=timing_sentence(check))
    paired = one_session and len(above) == len(below)
    sides = [above - below] if paired else [above, below]
    calibrated = noise is not None and noise.sessions > 1
    between = [(noise.sd_log_ratio**2, noise.sessions - 1.0)] if noise and calibrated and not one_session else []
    error, df = _error(sides, between)
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    low, high = _ratio_less_1(shift - half), _ratio_less_1(shift + half)
    method = ("t over rounds, paired" if paired else "Welch's t over rounds") + (" and sessions" if between else "")
    check = replace(
        with_interval(check, low, high, method), detectable=(1 + margin) * _ratio_less_1(_reach(sides, between))
    )
    if not one_session and not calibrated:
        return replace(check, sentence=timing_sentence(check, NOT_CALIBRATED))
    check = replace(check, outcome=limit_outcome(low, high, margin))
    if check.outcome == "inconclusive":
        away = max(abs(math.log1p(margin) - shift), NEAREST * math.log1p(margin))
        check = replace(check, needed=_needed(check.n, sides, between, away))
    return replace(check, sentence=timing_sentence(check))


def _unusable(rounds: Sequence[FrozenRound], side: str) -> str:
    if not rounds:
        return f"{side} has no values of it"
    if not all(one.median is not None and 0 < one.median < math.inf for one in rounds):
        return f"{side} has a value that is 0 or less or infinite, which no clock or memory counter gives"
    return ""


def _error(
    sides: Sequence[Floats], between: Sequence[tuple[float, float]], rounds: int | None = None
) -> tuple[float, float]:
    """Standard error of the mean log ratio and its degrees of freedom.

    Args:
        sides: logs of the rounds' medians, or their paired differences.
        between: variance and degrees of freedom between sessions, where they count.
        rounds: instead of those there are.
    """
    parts: list[tuple[float, float]] = [
        (sd(side) ** 2 / (rounds or len(side)), (rounds or len(side)) - 1) for side in sides
    ]
    parts += between
    largest = max(variance for variance, _ in parts)
    if largest == 0:
        return 0.0, min(df for _, df in parts)
    # Over the largest, so that no square vanishes.
    shares = [(variance / largest, df) for variance, df in parts]
    total = math.fsum(share for share, _ in shares)
    return math.sqrt(largest * total), total**2 / math.fsum(share**2 / df for share, df in shares)


def _reach(sides: Sequence[Floats], between: Sequence[tuple[float, float]], rounds: int | None = None) -> float:
    """How far beyond the margin a true log ratio is found out in 80 of 100 gates, about."""
    error, df = _error(sides, between, rounds)
    return float(stdtrit(df, (1 + LEVEL) / 2) + stdtrit(df, _POWER)) * error


def _needed(n: int, sides: Sequence[Floats], between: Sequence[tuple[float, float]], away: float) -> int | None:
    """Rounds of each side with which a gate would find a log ratio that lies ``away`` from the margin; None: none."""
    if _reach(sides, between, _MOST_ROUNDS) > away:
        return None
    low, high = n, _MOST_ROUNDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reach(sides, between, middle) <= away else (middle, high)
    return high


def _ratio_less_1(log_ratio: float) -> float:
    return math.expm1(min(log_ratio, _LARGEST_LOG))
