"""The figure of latency, memory and energy: a small panel a quantity, a bar a variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from bench import wording as report_text
from bench.plots.data import PlotData, Series
from bench.plots.style import INK, SOFT, new_figure, shortened, style_of
from bench.records import TimingName, TimingSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIMING_TITLES: dict[TimingName, str] = {
    "load": "Load",
    "compile": "Compile",
    "first_image": "First image",
    "text_encode": "Text encode",
    "denoise_step": "Denoise step",
    "vae_decode": "VAE decode",
    "end_to_end": "End to end, one image",
    "peak_allocated": "Peak memory, allocated",
    "peak_reserved": "Peak memory, reserved",
    "peak_process": "Peak memory, process on device",
    "peak_rss": "Peak memory, resident (RSS)",
    "energy_per_image": "Energy of an image",
}
"""What the timed quantities are called in figures and reports."""


def draw_costs(data: PlotData) -> Figure | None:
    """Medians of every timed quantity as bars, a tick at the 90 % quantile; weak figures are called so."""
    names = [name for name in get_args(TimingName) if any(name in one.timings for one in data.series)]
    if not names:
        return None
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(7.2, 0.4 + rows * (0.5 + 0.27 * len(data.series)))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax, name in zip(axes, names, strict=False):
        _cost_panel(ax, name, data.series)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("median; the tick marks the 90 % quantile; shorter is better", size=8.5)
    return figure


def _cost_panel(ax: Axes, name: TimingName, series: tuple[Series, ...]) -> None:
    found = [(place, one.timings[name]) for place, one in enumerate(series) if name in one.timings]
    top = max(summary.p90 for _, summary in found)
    for place, summary in found:
        _cost_bar(ax, place, summary, top)
    ax.set_xlim(0, top * 1.45)
    ax.set_ylim(len(series) - 0.4, -0.6)
    ax.set_yticks(range(len(series)), [shortened(one.label, 18) for one in series])
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["bottom"].set_visible(False)
    ax.set_title(TIMING_TITLES[name], size=9)


def _cost_bar(ax: Axes, place: int, summary: TimingSummary, top: float) -> None:
    style = style_of(place)
    ax.barh(
        place, summary.median, height=0.62, color=f"{style.colour}55", edgecolor=style.colour,
        hatch=style.hatch, linewidth=0.9,
    )  # fmt: skip
    ax.vlines(summary.p90, place - 0.31, place + 0.31, color=INK, linewidth=1.1)
    text = report_text.quantity(summary.median, summary.unit) + ("  weak" if summary.weak else "")
    end = max(summary.median, summary.p90) + 0.025 * top
    ax.text(end, place, text, va="center", size=8, color=SOFT if summary.weak else INK)
