"""The figure of a sweep: a panel a metric, its paired difference over the weight with the 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.plots.style import INK, SOFT, Format, new_figure, style_of, write_figures
from bench.records import MetricFacts, SweepCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


def write_sweep_plot(
    curve: SweepCurve, metrics: Sequence[MetricFacts], folder: Path, fmt: Format = "png", dpi: int = 150
) -> tuple[Path, ...]:
    """Draws a sweep's curves into ``folder`` as ``sweep.<fmt>``; arguments and errors as ``write_plots``."""
    return write_figures([("sweep", lambda: draw_sweep(curve, metrics))], folder, fmt, dpi)


def draw_sweep(curve: SweepCurve, metrics: Sequence[MetricFacts]) -> Figure | None:
    """Curves of every metric that was scored at a weight other than 0, with a gap where one was not; filled marks are
    on the Pareto front."""
    shown = [facts for facts in metrics if any(facts.name in point.deltas for point in curve.points)]
    if not shown:
        return None
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(7.2, 0.5 + 1.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, facts in zip(axes, shown, strict=False):
        _panel(ax, curve, facts)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    figure.supxlabel("weight of the LoRA; band: 95 % interval; filled: on the Pareto front", size=8.5)
    return figure


def _panel(ax: Axes, curve: SweepCurve, facts: MetricFacts) -> None:
    style = style_of(1 if facts.higher_is_better is not None else 0)
    rows = []
    for point in curve.points:
        delta = point.deltas.get(facts.name)
        mean = delta.mean if delta is not None else 0.0 if point.weight == 0 else math.nan  # a gap in the curve
        ends = None if delta is None else delta.interval
        rows.append((point.weight, mean, mean if ends is None else ends.low, mean if ends is None else ends.high))
    weights, means, lows, highs = zip(*rows, strict=True)
    ax.axhline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.fill_between(weights, lows, highs, color=f"{style.colour}33", linewidth=0)
    ax.plot(weights, means, color=style.colour, linewidth=1.6)
    front = {point.weight for point in curve.points if point.on_front}
    for weight, mean in zip(weights, means, strict=True):
        face = style.colour if weight in front else "white"
        ax.plot(weight, mean, style.marker, color=style.colour, mfc=face, ms=4.6, mew=1.2, zorder=4)
    ax.grid()
    ax.tick_params(labelcolor=INK)
    better = {True: "higher is better", False: "lower is better", None: "descriptive"}[facts.higher_is_better]
    ax.set_title(f"{facts.name}", size=9)
    ax.set_ylabel(f"difference ({facts.unit})\n{better}", size=7.5)
