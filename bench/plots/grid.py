"""The figure of a grid: each pair's difference under each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.plots.style import INK, SOFT, WIDTH_IN, new_figure, panels, shortened, style_of
from bench.records import GridDifference
from bench.suite.grid import setting_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 60
"""Settings that a figure shows; of more the tables have the numbers."""


def draw_grid(
    differences: Sequence[GridDifference], variants: Sequence[str], units: Mapping[str, str]
) -> Figure | None:
    """Paired differences with the bands of their settings: a panel a metric, a row a setting, a mark a pair.

    Args:
        differences: of ``compare_grid``; those of metrics that are to be shown.
        variants: the suite's, in the order of their colours.
        units: of each metric.
    """
    metrics = list(dict.fromkeys(one.metric for one in differences))
    rows = max((len(one.cells) for one in differences), default=0)
    if not 0 < rows <= MOST_ROWS:
        return None
    pairs = list(dict.fromkeys((one.candidate, one.reference) for one in differences))
    figure = new_figure(WIDTH_IN, 0.7 + len(metrics) * (0.55 + rows * (0.14 + 0.11 * len(pairs))))
    axes = panels(figure, len(metrics), 1)
    for ax, metric in zip(axes, metrics, strict=True):
        ax.axvline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for one in [one for one in differences if one.metric == metric]:
            _draw_pair(ax, one, pairs, variants)
        _finish(ax, next(one for one in differences if one.metric == metric), units.get(metric, ""))
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, handletextpad=0.4)
    figure.supxlabel("mean paired difference; bars: intervals that hold all settings at once with 95 %", size=8.5)
    return figure


def _draw_pair(ax: Axes, one: GridDifference, pairs: Sequence[tuple[str, str]], variants: Sequence[str]) -> None:
    style, second = style_of(variants.index(one.candidate)), one.reference != variants[0]
    shift = 0.6 * ((pairs.index((one.candidate, one.reference)) + 0.5) / len(pairs) - 0.5)
    for place, cell in enumerate(one.cells):
        if cell.interval is not None:
            ax.hlines(place + shift, cell.interval.low, cell.interval.high, color=style.colour, linewidth=1.8)
        ax.plot(
            cell.mean, place + shift, style.marker, color=style.colour, mfc="white" if second else style.colour, ms=5,
            mew=1.2, zorder=4, linestyle="",
            label=f"{shortened(one.candidate)} − {shortened(one.reference)}",
        )  # fmt: skip


def _finish(ax: Axes, one: GridDifference, unit: str) -> None:
    ax.set_yticks(range(len(one.cells)), [setting_words(cell.setting) or "all seeds" for cell in one.cells])
    ax.set_ylim(len(one.cells) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_title(f"{one.metric} ({unit})" if unit else one.metric)
