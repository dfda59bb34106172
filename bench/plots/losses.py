"""Verdicts of a gate as rows of a forest: their losses as shares of what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench import wording as text
from bench.gate.outcomes import WORDS
from bench.plots.costs import TIMING_TITLES
from bench.records import Gate, Outcome, Verdict

FARTHEST = (-2.5, 3.5)
"""Shares of the margin beyond which a forest shows an arrow in place of the mark."""
_NEAREST = (-0.6, 1.6)


@dataclass(frozen=True)
class LossRow:
    """One verdict with its loss and interval as shares of its margin: 0 is no loss, 1 the margin.

    The shares are None where the verdict has no number or no margin over 0.
    """

    verdict: Verdict
    title: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LossGroup:
    """The verdicts on one candidate against one reference, in the gate's order."""

    title: str
    rows: tuple[LossRow, ...]


@dataclass(frozen=True)
class Reach:
    """The part of a row that a window shows, and on which side more lies outside it."""

    low: float
    high: float
    at: float | None
    """None where the loss itself lies outside."""
    beyond: tuple[Literal["left", "right"], ...]


def within_run(gate: Gate) -> bool:
    """Whether two variants of one run were compared, not a run with a baseline."""
    return gate.baseline_is_run and gate.baseline_id == gate.run_id


def loss_groups(gate: Gate) -> tuple[LossGroup, ...]:
    """The verdicts by pair of candidate and reference, in the gate's order."""
    pairs = dict.fromkeys((one.candidate, one.reference) for one in gate.verdicts)
    return tuple(
        LossGroup(
            pair_title(gate, candidate, reference),
            tuple(_row(one) for one in gate.verdicts if (one.candidate, one.reference) == (candidate, reference)),
        )
        for candidate, reference in pairs
    )


def pair_title(gate: Gate, candidate: str, reference: str) -> str:
    """``spo against base``, or ``spo against spo of the baseline``."""
    return f"{candidate} against {reference}" + ("" if within_run(gate) else " of the baseline")


def word(outcome: Outcome) -> str:
    """What an outcome is called where it stands alone."""
    return WORDS[outcome].capitalize()


def title_of(verdict: Verdict) -> str:
    """The metric's name, or what a timed quantity is called in reports."""
    if verdict.kind == "metric":
        return verdict.name
    return next((title for name, title in TIMING_TITLES.items() if name == verdict.name), verdict.name)


def _row(verdict: Verdict) -> LossRow:
    margin, found = verdict.margin, verdict.interval
    if margin is None or margin <= 0:
        return LossRow(verdict, title_of(verdict), None, None, None)
    return LossRow(
        verdict,
        title_of(verdict),
        None if verdict.loss is None else verdict.loss / margin,
        None if found is None else found.low / margin,
        None if found is None else found.high / margin,
    )


def window(groups: tuple[LossGroup, ...]) -> tuple[float, float]:
    """The shares of the margin that a forest shows: all of it, but no more than ``FARTHEST``."""
    rows = [row for group in groups for row in group.rows]
    shares = [share for row in rows for share in (row.at, row.low, row.high) if share is not None]
    low = max(FARTHEST[0], min(_NEAREST[0], *shares, 0.0) - 0.1)
    return low, min(FARTHEST[1], max(_NEAREST[1], *shares, 0.0) + 0.1)


def reach(row: LossRow, ends: tuple[float, float]) -> Reach | None:
    """What the window ``ends`` shows of a row; None for a row without a loss."""
    if row.at is None:
        return None
    low, high = (row.at if end is None else end for end in (row.low, row.high))
    low, high = min(low, row.at), max(high, row.at)

    def shown(share: float) -> float:
        return min(max(share, ends[0]), ends[1])

    sides: list[Literal["left", "right"]] = []
    if low < ends[0]:
        sides.append("left")
    if high > ends[1]:
        sides.append("right")
    inside = ends[0] <= row.at <= ends[1]
    return Reach(shown(low), shown(high), row.at if inside else None, tuple(sides))


def far(row: LossRow, found: Reach) -> str:
    """``14 × margin`` for a loss outside the window, which an arrow stands for; else empty."""
    if row.at is None or found.at is not None:
        return ""
    return f"{text.number(row.at, 0 if abs(row.at) >= 10 else 1)} × margin"


def scale(ends: tuple[float, float]) -> tuple[tuple[float, str], ...]:
    """Places and labels of the axis: whole margins, and halves where the window is narrow."""
    step = 0.5 if ends[1] - ends[0] <= 3 else 1.0
    first, last = -int(-ends[0] / step), int(ends[1] / step)
    return tuple(
        (step * number, text.number(step * number, 1 if step < 1 and number % 2 else 0))
        for number in range(first, last + 1)
    )
