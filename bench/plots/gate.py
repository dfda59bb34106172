"""The figure of a gate: the loss of every quantity as a share of what is allowed, for print."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench import formatting as text
from bench.gate.outcomes import WORDS, formatted
from bench.plots import TIMING_TITLES
from bench.plots.style import INK, LINE, SOFT, Format, new_figure, shortened, write_figures
from bench.records import Gate, Outcome, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Verdicts of a gate as rows of a forest: their losses as shares of what is allowed.

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


# The figure of a gate: the loss of every quantity as a share of what is allowed, for print.

# Colour and marker say the same, for readers who cannot tell colours.
_MARKERS: dict[Outcome, tuple[str, str, bool]] = {
    "pass": ("#00664a", "o", True),
    "fail": ("#a83f00", "D", True),
    "inconclusive": ("#7a5200", "o", False),
    "invalid": (INK, "x", True),
}

_WIDTH_IN = 7.2


def write_gate_plot(gate: Gate, folder: Path, fmt: Format = "png", dpi: int = 150) -> tuple[Path, ...]:
    """Draws the forest of a gate into ``folder`` as ``gate.<fmt>``; no file for a gate without verdicts.

    Args:
        gate: what was judged.
        folder: where to; it is made.
        fmt: png, svg or pdf.
        dpi: dots per inch of a PNG, 50 to 1200.

    Raises:
        UsageError: another format, or dots per inch out of range.
        MachineError: the folder cannot be written.
    """
    return write_figures([("gate", lambda: draw_gate(gate))], folder, fmt, dpi)


def draw_gate(gate: Gate) -> Figure | None:
    """Forest of losses: a row a verdict, 90 % intervals, the zone beyond the margin shaded; None without verdicts."""
    groups = loss_groups(gate)
    if not groups:
        return None
    ends = window(groups)
    heights = [len(group.rows) + 0.8 for group in groups]
    figure = new_figure(_WIDTH_IN, 0.75 + 0.4 * sum(heights))
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, group in zip(axes, groups, strict=True):
        _panel(ax, group, ends)
    axes[-1].set_xlabel("loss as a share of the margin: 0 is no loss, 1 all that is allowed")
    figure.supxlabel(
        "bars: 90 % intervals; a pass ends left of 1, a fail begins right of it, inconclusive holds both", size=8
    )
    return figure


def _panel(ax: Axes, group: LossGroup, ends: tuple[float, float]) -> None:
    ax.set_xlim(*ends)
    ax.set_ylim(len(group.rows) - 0.4, -0.6)
    ax.axvspan(1, ends[1], color=LINE, alpha=0.55, linewidth=0, zorder=0)
    ax.axvline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.axvline(1, color=INK, linewidth=1.1, zorder=1)
    for place, row in enumerate(group.rows):
        _mark(ax, place, row, ends)
    labels = [f"{shortened(row.title, 24)}\n{WORDS[row.verdict.outcome]}" for row in group.rows]
    ax.set_yticks(range(len(labels)), labels)
    for label, row in zip(ax.get_yticklabels(), group.rows, strict=True):
        label.set_color(_MARKERS[row.verdict.outcome][0])
    marks = scale(ends)
    ax.set_xticks([at for at, _ in marks], [label for _, label in marks])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(shortened(group.title, 70))
    ax.text(ends[1], 1.01, "beyond the margin ", transform=ax.get_xaxis_transform(), ha="right", va="bottom", size=7.5)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), [_numbers(row) for row in group.rows])
    right.tick_params(length=0, labelcolor=INK, labelsize=7.5)
    right.spines["right"].set_visible(False)


def _numbers(row: LossRow) -> str:
    if row.verdict.loss is None:
        return ""
    numbers = formatted(row.verdict)
    interval = "" if row.verdict.interval is None else f"  {numbers.interval}"
    return f"{numbers.loss}{interval}\nmargin {numbers.margin}"


def _mark(ax: Axes, place: int, row: LossRow, ends: tuple[float, float]) -> None:
    colour, marker, filled = _MARKERS[row.verdict.outcome]
    found = reach(row, ends)
    if found is None:
        reason = textwrap.shorten(row.verdict.sentence, 110, placeholder=" …")
        lines = "\n".join(textwrap.wrap(reason, 56))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(ends[0], place, lines, va="center", size=7.5, color=INK, bbox=box, zorder=3)
        return
    ax.hlines(place, found.low, found.high, color=colour, linewidth=2.2, zorder=2)
    for side in found.beyond:
        at, arrow, inwards = (ends[1], ">", -1) if side == "right" else (ends[0], "<", 1)
        air = 0.011 * (ends[1] - ends[0]) * inwards
        ax.plot(at + air, place, arrow, color=colour, ms=7.5, mew=0, zorder=4)
        if found.at is None:
            ha = "right" if side == "right" else "left"
            ax.text(at + 2.6 * air, place, far(row, found), va="center", ha=ha, size=7.5, color=colour)
    if found.at is not None:
        face = colour if filled else "white"
        ax.plot(found.at, place, marker, color=colour, mfc=face, ms=6.5, mew=1.6, zorder=5)
