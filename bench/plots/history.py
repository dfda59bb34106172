"""The figure of a history: each metric over the releases, a line a variant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.history import History
from bench.plots.style import (
    INK,
    OUTCOME_COLOURS,
    WIDTH_IN,
    Format,
    new_figure,
    panels,
    shortened,
    style_of,
    write_figures,
)
from bench.records import MetricFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2


def write_history_plot(found: History, folder: Path, fmt: Format, dpi: int) -> Path:
    """Draws ``history.png`` (or .svg, .pdf) into a folder, which is made.

    Raises:
        UsageError: another format, or dots per inch out of range.
        MachineError: the folder cannot be written.
    """
    (path,) = write_figures([("history", lambda: draw_history(found))], folder, fmt, dpi)
    return path


def draw_history(found: History) -> Figure:
    """A panel a metric, releases from left to right; a failed gate colours the release's name."""
    rows = -(-len(found.metrics) // COLUMNS)
    figure = new_figure(WIDTH_IN, 0.7 + 2.0 * max(1, rows))
    axes = panels(figure, len(found.metrics), COLUMNS)
    for number, (ax, facts) in enumerate(zip(axes, found.metrics, strict=True)):
        _panel(ax, found, facts, named=number >= len(found.metrics) - COLUMNS)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, handletextpad=0.4)
    figure.supxlabel("releases, the oldest first; bars: 95 % intervals over prompts", size=8.5)
    return figure


def _panel(ax: Axes, found: History, facts: MetricFacts, *, named: bool) -> None:
    for place, variant in enumerate(found.variants):
        style, aside = style_of(place), 0.05 * (place - (len(found.variants) - 1) / 2)
        shown = [
            (number, value)
            for number, release in enumerate(found.releases)
            if (value := release.values.get((variant, facts.name))) is not None
        ]
        for number, value in shown:
            if value.interval is not None:
                ax.vlines(
                    number + aside,
                    value.interval.low,
                    value.interval.high,
                    color=style.colour,
                    linewidth=1.1,
                    alpha=0.6,
                )
        ax.plot(
            [number + aside for number, _ in shown], [value.mean for _, value in shown], color=style.colour,
            marker=style.marker, ms=4.6, linewidth=1.5, label=shortened(variant),
        )  # fmt: skip
    names = [shortened(release.name.removesuffix(".json"), 16) for release in found.releases]
    ax.set_xticks(range(len(names)), names if named else [""] * len(names), rotation=30, ha="right")
    ax.set_xlim(-0.4, len(names) - 0.6)
    ax.tick_params(labelcolor=INK)
    for label, release in zip(ax.get_xticklabels(), found.releases, strict=True):
        if release.outcome in ("fail", "invalid"):
            label.set_color(OUTCOME_COLOURS[release.outcome])
    ax.grid(axis="y")
    better = {True: "higher is better", False: "lower is better", None: "descriptive"}[facts.higher_is_better]
    ax.set_title(facts.name, size=9)
    ax.set_ylabel(f"{facts.unit}\n{better}", size=7.5)
