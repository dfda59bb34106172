"""The figure of a gate: the loss of every quantity as a share of what is allowed, for print."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from bench.gate.outcomes import WORDS, shown
from bench.plots.losses import LossGroup, LossRow, far, loss_groups, reach, scale, window
from bench.plots.style import INK, LINE, SOFT, Format, new_figure, shortened, write_figures
from bench.records import Gate, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    numbers = shown(row.verdict)
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
