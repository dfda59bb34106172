"""The figure of a gate: the loss of every quantity as a share of what is allowed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bench import formatting as text
from bench.gate.outcomes import WORDS, formatted
from bench.plots.style import (
    INK,
    LINE,
    OUTCOME_COLOURS,
    SOFT,
    TIMING_TITLES,
    WIDTH_IN,
    Format,
    new_figure,
    shortened,
    write_figures,
)
from bench.records import Gate, Outcome, TimingName, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FARTHEST = (-2.5, 3.5)
"""Shares of the margin beyond which the figure shows an arrow in place of the mark."""

_NEAREST = (-0.6, 1.6)

# Colour and marker say the same, for readers who cannot tell colours.
_MARKERS: dict[Outcome, tuple[str, bool]] = {
    "pass": ("o", True), "fail": ("D", True), "inconclusive": ("o", False), "invalid": ("x", True),
}  # fmt: skip


def within_run(gate: Gate) -> bool:
    """Whether two variants of one run were compared, not a run with a baseline."""
    return gate.baseline_is_run and gate.baseline_id == gate.run_id


def pair_title(gate: Gate, verdict: Verdict) -> str:
    """``spo against base``, or ``spo against spo of the baseline``."""
    return f"{verdict.candidate} against {verdict.reference}" + ("" if within_run(gate) else " of the baseline")


def verdict_groups(gate: Gate) -> dict[str, list[Verdict]]:
    """The verdicts by the title of their pair, in the gate's order."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in gate.verdicts:
        groups.setdefault(pair_title(gate, verdict), []).append(verdict)
    return groups


def title_of(verdict: Verdict) -> str:
    """The metric's name, or what a timed quantity is called in reports."""
    name: TimingName
    for name in get_args(TimingName):
        if verdict.kind == "timing" and name == verdict.name:
            return TIMING_TITLES[name]
    return verdict.name


def shares(verdict: Verdict) -> tuple[float, float, float] | None:
    """Low end, loss and high end as shares of the margin: 0 is no loss, 1 is the margin.

    Both ends are the loss where there is no interval. None without a loss, or without a margin over 0.
    """
    loss, margin, interval = verdict.loss, verdict.margin, verdict.interval
    if loss is None or margin is None or margin <= 0:
        return None
    ends = [loss] if interval is None else [loss, interval.low, interval.high]
    return min(ends) / margin, loss / margin, max(ends) / margin


def window(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """The shares of the margin that the figure shows: all that there are, but no more than ``FARTHEST``."""
    found = [share for verdict in verdicts for share in shares(verdict) or ()]
    low = max(FARTHEST[0], min(_NEAREST[0], *found, 0.0) - 0.1)
    return low, min(FARTHEST[1], max(_NEAREST[1], *found, 0.0) + 0.1)


def scale(ends: tuple[float, float]) -> dict[float, str]:
    """Labels of the axis by their places: whole margins, and halves where the window is narrow."""
    step = 0.5 if ends[1] - ends[0] <= 3 else 1.0
    numbers = range(-int(-ends[0] / step), int(ends[1] / step) + 1)
    return {step * number: text.number(step * number, 1 if step < 1 and number % 2 else 0) for number in numbers}


def described(gate: Gate) -> str:
    """The figure in sentences, one a verdict, for readers who hear it."""
    told = []
    for verdict in gate.verdicts:
        said, found = f"{title_of(verdict)}, {pair_title(gate, verdict)}: {WORDS[verdict.outcome]}", shares(verdict)
        if found is None:
            told.append(f"{said}, not drawn.")
            continue
        ends = "" if verdict.interval is None else f", interval {found[0]:.2f} to {found[2]:.2f}"
        told.append(f"{said}, loss {found[1]:.2f} of the margin{ends}.")
    return " ".join(told)


def write_gate_plot(gate: Gate, folder: Path, fmt: Format = "png", dpi: int = 150) -> tuple[Path, ...]:
    """Draws the forest of a gate into ``folder`` as ``gate.<fmt>``; no file for a gate without verdicts.

    Args:
        gate: the gate with its verdicts.
        folder: where to; it is made.
        fmt: png, svg or pdf.
        dpi: dots per inch of a PNG, 50 to 1200.

    Raises:
        UsageError: another format, or dots per inch out of range.
        MachineError: the folder cannot be written.
    """
    return tuple(write_figures([("gate", lambda: draw_gate(gate))], folder, fmt, dpi))


def draw_gate(gate: Gate) -> Figure | None:
    """Forest of losses: a row a verdict, 90 % intervals, the zone beyond the margin shaded; None without verdicts."""
    groups = verdict_groups(gate)
    if not groups:
        return None
    ends = window(gate.verdicts)
    heights = [len(verdicts) + 0.8 for verdicts in groups.values()]
    figure = new_figure(WIDTH_IN, 0.75 + 0.4 * sum(heights))
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, verdicts) in zip(axes, groups.items(), strict=True):
        _panel(ax, title, verdicts, ends)
    axes[-1].set_xlabel("loss as a share of the margin: 0 is no loss, 1 all that is allowed")
    figure.supxlabel(
        "bars: 90 % intervals; a pass ends left of 1, a fail begins right of it, inconclusive holds both", size=8
    )
    return figure


def _panel(ax: Axes, title: str, verdicts: Sequence[Verdict], ends: tuple[float, float]) -> None:
    ax.set_xlim(*ends)
    ax.set_ylim(len(verdicts) - 0.4, -0.6)
    ax.axvspan(1, ends[1], color=LINE, alpha=0.55, linewidth=0, zorder=0)
    ax.axvline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.axvline(1, color=INK, linewidth=1.1, zorder=1)
    for place, verdict in enumerate(verdicts):
        _row(ax, place, verdict, ends)
    labels = [f"{shortened(title_of(one), 24)}\n{WORDS[one.outcome]}" for one in verdicts]
    ax.set_yticks(range(len(labels)), labels)
    for label, verdict in zip(ax.get_yticklabels(), verdicts, strict=True):
        label.set_color(OUTCOME_COLOURS[verdict.outcome])
    marks = scale(ends)
    ax.set_xticks(list(marks), list(marks.values()))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(shortened(title, 70))
    ax.text(ends[1], 1.01, "beyond the margin ", transform=ax.get_xaxis_transform(), ha="right", va="bottom", size=7.5)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), [_numbers(one) for one in verdicts])
    right.tick_params(length=0, labelcolor=INK, labelsize=7.5)
    right.spines["right"].set_visible(False)


def _numbers(verdict: Verdict) -> str:
    if verdict.loss is None:
        return ""
    numbers = formatted(verdict)
    interval = "" if verdict.interval is None else f"  {numbers.interval}"
    return f"{numbers.loss}{interval}\nmargin {numbers.margin}"


def _row(ax: Axes, place: int, verdict: Verdict, ends: tuple[float, float]) -> None:
    """One verdict's mark and interval, arrows where they leave the window, or the reason why there are none."""
    colour, (marker, filled) = OUTCOME_COLOURS[verdict.outcome], _MARKERS[verdict.outcome]
    found = shares(verdict)
    if found is None:
        reason = textwrap.shorten(verdict.sentence, 110, placeholder=" …")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        lines = "\n".join(textwrap.wrap(reason, 56))
        ax.text(ends[0], place, lines, va="center", size=7.5, color=INK, bbox=box, zorder=3)
        return
    low, at, high = found
    shown_low, shown_high = (min(max(share, ends[0]), ends[1]) for share in (low, high))
    ax.hlines(place, shown_low, shown_high, color=colour, linewidth=2.2, zorder=2)
    inside = ends[0] <= at <= ends[1]
    for edge, arrow, inwards, beyond in ((ends[0], "<", 1, low < ends[0]), (ends[1], ">", -1, high > ends[1])):
        if not beyond:
            continue
        air = 0.011 * (ends[1] - ends[0]) * inwards
        ax.plot(edge + air, place, arrow, color=colour, ms=7.5, mew=0, zorder=4)
        if not inside:
            far = f"{text.number(at, 0 if abs(at) >= 10 else 1)} × margin"
            ha = "left" if inwards > 0 else "right"
            ax.text(edge + 2.6 * air, place, far, va="center", ha=ha, size=7.5, color=colour)
    if inside:
        ax.plot(at, place, marker, color=colour, mfc=colour if filled else "white", ms=6.5, mew=1.6, zorder=5)
