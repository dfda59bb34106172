"""The comparison figures, fit for print: differences, distributions, wins, the trade-off, costs, sweeps.

Colours are Okabe and Ito's; markers and hatches say the same to readers who cannot tell colours. The same
run gives the same bytes. A figure for which a run has no data is not made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bench import formatting as report_text
from bench import stats
from bench.plots.data import PlotData, Series, data_of_run, data_of_runs, overlaps
from bench.plots.style import (
    INK,
    SOFT,
    TIMING_TITLES,
    WIDTH_IN,
    Format,
    new_figure,
    panels,
    shortened,
    style_of,
    write_figures,
)
from bench.records import Delta, MetricFacts, Run, SweepCurve, TimingName, TimingSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_plots(
    run: Run, deltas: Sequence[Delta], folder: Path, fmt: Format = "png", dpi: int = 150
) -> tuple[Path, ...]:
    """Draws one run's figures into ``folder``, which is made; returns the files, in reading order.

    Args:
        run: a run as it was read.
        deltas: what ``compare_run`` made of it.
        folder: where to; files of the same name are replaced, each whole or not at all.
        fmt: png, svg or pdf.
        dpi: dots per inch of a PNG, 50 to 1200; 300 is fit for print.

    Raises:
        UsageError: another format, or dots per inch out of range.
        MachineError: the folder cannot be written.
    """
    return tuple(write_figures(figures_of(data_of_run(run, deltas)), folder, fmt, dpi))


def write_plots_for_runs(
    candidate: Run, reference: Run, deltas: Sequence[Delta], folder: Path, fmt: Format = "png", dpi: int = 150
) -> tuple[Path, ...]:
    """Draws two runs' figures, with the deltas of ``compare_runs``; all else as ``write_plots``.

    Raises:
        UsageError: both are one run folder, or as ``write_plots``.
        MachineError: as ``write_plots``.
    """
    return tuple(write_figures(figures_of(data_of_runs(candidate, reference, deltas)), folder, fmt, dpi))


def figures_of(data: PlotData) -> list[tuple[str, Callable[[], Figure | None]]]:
    """The comparison figures by name, for ``write_figures``."""
    return [(name, partial(draw, data)) for name, draw in FIGURES]


def write_sweep_plot(
    curve: SweepCurve, metrics: Sequence[MetricFacts], folder: Path, fmt: Format = "png", dpi: int = 150
) -> tuple[Path, ...]:
    """Draws a sweep's curves into ``folder`` as ``sweep.<fmt>``; arguments and errors as ``write_plots``."""
    return tuple(write_figures([("sweep", lambda: draw_sweep(curve, metrics))], folder, fmt, dpi))


def draw_differences(data: PlotData) -> Figure | None:
    """Forest of paired differences: a panel a metric, a row a pair, 95 % intervals, prompts as strokes."""
    found = data.by_metric()
    if not found:
        return None
    heights = [len(rows) + 1.1 for _, rows in found]
    figure = new_figure(WIDTH_IN, 0.5 + 0.36 * sum(heights))
    axes = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (facts, rows) in zip(axes, found, strict=True):
        _forest_panel(ax, data, facts, rows)
    unit = "groups of prompts" if any(delta.groups is not None for delta in data.deltas) else "prompts"
    figure.supxlabel(f"mean paired difference, 95 % interval over {unit}; strokes: single prompts", size=8.5)
    return figure


def _forest_panel(ax: Axes, data: PlotData, facts: MetricFacts, rows: Sequence[Delta]) -> None:
    decimals = report_text.decimals_of_deltas(rows)
    ax.axvline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for place, delta in enumerate(rows):
        style = style_of(data.index(delta.candidate))
        prompts = [one.difference for one in data.paired(facts.name, delta.candidate, delta.reference)]
        # All strokes are one path with gaps, which is drawn and written much faster than a path each.
        across = [at for value in prompts for at in (value, value, math.nan)]
        ax.plot(
            across, [place - 0.2, place + 0.2, math.nan] * len(prompts), color=style.colour,
            alpha=_faint(len(prompts)), linewidth=0.7,
        )  # fmt: skip
        if delta.interval is not None:
            ax.hlines(place, delta.interval.low, delta.interval.high, color=style.colour, linewidth=2.4)
        face = "white" if data.second(delta) else style.colour
        ax.plot(delta.mean, place, style.marker, color=style.colour, mfc=face, ms=6.5, mew=1.5, zorder=4)
    labels = [f"{shortened(one.candidate)} − {shortened(one.reference)}" for one in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_title(_title(facts, rows))
    figures = [
        f"{report_text.signed(one.mean, decimals)}  {report_text.interval(one.interval, decimals)}" for one in rows
    ]
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), figures)
    right.tick_params(length=0, labelcolor=INK)
    right.spines["right"].set_visible(False)


def draw_distributions(data: PlotData) -> Figure | None:
    """Distribution of the prompts' mean scores: a panel a metric, a box and its points a variant."""
    shown = [facts for facts in data.metrics if any(facts.name in one.scores for one in data.series)]
    if not shown:
        return None
    figure = new_figure(WIDTH_IN, 0.5 + len(shown) * (0.62 + 0.34 * len(data.series)))
    for ax, facts in zip(panels(figure, len(shown), 1), shown, strict=True):
        for place, series in enumerate(data.series):
            _distribution(ax, place, data.prompt_means(facts.name, series.label))
        ax.set_yticks(range(len(data.series)), [shortened(one.label) for one in data.series])
        ax.set_ylim(len(data.series) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.grid(axis="x")
        ax.set_title(_title(facts, data.deltas))
    figure.supxlabel("mean score of a prompt; box: quartiles and median, whiskers: 5 % to 95 %", size=8.5)
    return figure


def _distribution(ax: Axes, place: int, means: Sequence[float]) -> None:
    if not means:
        return
    style = style_of(place)
    # Steps of the golden ratio spread the points evenly without chance.
    offsets = [((number * 0.618034) % 1 - 0.5) * 0.5 for number in range(len(means))]
    if len(means) > 4:
        box = ax.boxplot(
            [list(means)], positions=[place], orientation="horizontal", widths=0.62, whis=(5, 95),
            showfliers=False, patch_artist=True, manage_ticks=False,
            medianprops={"color": INK, "linewidth": 1.6},
        )  # fmt: skip
        box["boxes"][0].set(facecolor=f"{style.colour}22", edgecolor=style.colour, hatch=style.hatch)
        for line in (*box["whiskers"], *box["caps"]):
            line.set(color=style.colour)
    heights = [place + offset for offset in offsets]
    ax.plot(means, heights, style.marker, color=style.colour, ms=3.2, alpha=0.75, mec="white", mew=0.3)


def draw_wins(data: PlotData) -> Figure | None:
    """Win-rate matrix: a panel a metric; the row's share of prompts won against the column, ties by half."""
    shown = [facts for facts in data.metrics if sum(facts.name in one.scores for one in data.series) > 1]
    if not shown:
        return None
    count = len(data.series)
    columns = min(len(shown), 3 if count < 5 else 2 if count < 9 else 1)
    side = max(2.0, 0.42 * count + 0.9)
    figure = new_figure(max(WIDTH_IN, columns * (side + 0.6)), -(-len(shown) // columns) * (side + 0.45) + 0.4)
    for ax, facts in zip(panels(figure, len(shown), columns), shown, strict=True):
        _win_panel(ax, data, facts)
    figure.supxlabel("share of prompts on which the row beats the column, in per cent", size=8.5)
    return figure


def _win_panel(ax: Axes, data: PlotData, facts: MetricFacts) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("wins", ["#d55e00", "#ffffff", "#0072b2"], bad="#eceae5")
    labels = [one.label for one in data.series]
    better = 1 if facts.higher_is_better else -1
    grid = [[float("nan")] * len(labels) for _ in labels]
    for row, candidate in enumerate(labels):
        for column, reference in enumerate(labels):
            prompts = data.paired(facts.name, candidate, reference) if row != column else ()
            if prompts:
                rate = stats.win_rate([better * one.difference for one in prompts]).rate
                grid[row][column] = rate
                ink = "white" if rate > 0.93 else INK
                ax.text(column, row, f"{100 * rate:.0f}", ha="center", va="center", color=ink, size=8.5)
    ax.imshow(grid, cmap=colours, vmin=0, vmax=1, aspect="equal")
    ax.set_xticks([place + 0.5 for place in range(len(labels) - 1)], minor=True)
    ax.set_yticks([place + 0.5 for place in range(len(labels) - 1)], minor=True)
    ax.grid(which="minor", color=SOFT, linewidth=0.5)
    short = [shortened(label, 14) for label in labels]
    ax.set_xticks(range(len(labels)), short)
    if max(map(len, short)) > 5:
        for label in ax.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(labels)), short)
    ax.tick_params(which="both", length=0, labelcolor=INK)
    ax.set_title(facts.name)
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.5)


def draw_tradeoff(data: PlotData) -> Figure | None:
    """Preference against alignment: each prompt's paired difference on both, the means with intervals.

    The first metric of alignment is up; across are the first four of preference and aesthetics, a panel each.
    """
    up = next((facts for facts in data.metrics if facts.category == "alignment"), None)
    across = [facts for facts, _ in data.by_metric() if facts.category != "alignment"][:4]
    if up is None or not across:
        return None
    columns = min(2, len(across))
    figure = new_figure(WIDTH_IN if columns > 1 else 4.6, 3.5 * -(-len(across) // columns))
    by_pair = {(one.metric, one.candidate, one.reference): one for one in data.deltas}
    axes = panels(figure, len(across), columns)
    for ax, facts in zip(axes, across, strict=True):
        for x in data.deltas:
            y = by_pair.get((up.name, x.candidate, x.reference))
            if x.metric == facts.name and y is not None and not data.second(x):
                _tradeoff_series(ax, data, x, y)
        _tradeoff_axes(ax, facts, up)
    handles, labels = axes[0].get_legend_handles_labels()
    wide = max(map(len, labels)) > 26
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if wide else 4, handletextpad=0.3)
    return figure


def _tradeoff_series(ax: Axes, data: PlotData, x: Delta, y: Delta) -> None:
    style = style_of(data.index(x.candidate))
    across = {one.prompt.id: one.difference for one in data.paired(x.metric, x.candidate, x.reference)}
    points = [
        (across[one.prompt.id], one.difference)
        for one in data.paired(y.metric, y.candidate, y.reference)
        if one.prompt.id in across
    ]
    if points:
        ax.plot(
            *zip(*points, strict=True), style.marker, color=style.colour, ms=3.4, alpha=_faint(len(points)), mew=0.5
        )
    bars = [
        None if one.interval is None else [[one.mean - one.interval.low], [one.interval.high - one.mean]]
        for one in (x, y)
    ]
    ax.errorbar(
        x.mean, y.mean, xerr=bars[0], yerr=bars[1], fmt=style.marker, color=style.colour,
        mec="white", mew=0.7, ms=8.5, elinewidth=1.8, zorder=5,
        label=f"{shortened(x.candidate)} − {shortened(x.reference)}",
    )  # fmt: skip


def _tradeoff_axes(ax: Axes, facts: MetricFacts, alignment: MetricFacts) -> None:
    for line in (ax.axhline, ax.axvline):
        line(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.grid()
    ax.margins(0.08)
    ax.set_xlabel(f"difference in {facts.name} ({facts.unit})")
    ax.set_ylabel(f"difference in {alignment.name} ({alignment.unit})")
    ax.set_title(f"{facts.category.capitalize()} against alignment")


def _faint(count: int) -> float:
    """Opacity of one prompt's mark, so that many do not hide the mean."""
    return min(0.35, max(0.1, 16 / max(count, 1)))


def _title(facts: MetricFacts, deltas: Sequence[Delta]) -> str:
    way = "higher" if facts.higher_is_better else "lower"
    shared = overlaps([one for one in deltas if one.metric == facts.name])
    title = f"{facts.name} ({facts.category}; {facts.unit}, {way} is better"
    if " with " in shared:
        return f"{title})\noverlap: {shortened(shared, 80)}"
    words = {"none": "no overlap", "unknown": "overlap unknown"}
    return f"{title}; {words.get(shared, shared)})" if shared else f"{title})"


def draw_costs(data: PlotData) -> Figure | None:
    """Medians of every timed quantity as bars, a tick at the 90 % quantile; weak figures have a star."""
    names = [name for name in get_args(TimingName) if any(name in one.timings for one in data.series)]
    if not names:
        return None
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(WIDTH_IN, 0.4 + rows * (0.5 + 0.27 * len(data.series)))
    for place, (ax, name) in enumerate(zip(panels(figure, len(names), columns), names, strict=True)):
        _cost_panel(ax, name, data.series)
        ax.tick_params(labelleft=place % columns == 0)
    weak = any(summary.weak for one in data.series for summary in one.timings.values())
    note = "; * weak: few values, a wide spread or foreign load" if weak else ""
    figure.supxlabel(f"median; the tick marks the 90 % quantile; shorter is better{note}", size=8.5)
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
    text = report_text.quantity(summary.median, summary.unit) + (" *" if summary.weak else "")
    end = max(summary.median, summary.p90) + 0.025 * top
    ax.text(end, place, text, va="center", size=8, color=SOFT if summary.weak else INK)


def draw_sweep(curve: SweepCurve, metrics: Sequence[MetricFacts]) -> Figure | None:
    """Paired differences over the weight with 95 % intervals: a panel a metric, a gap where a weight has no score.

    Filled marks are on the Pareto front.
    """
    shown = [facts for facts in metrics if any(facts.name in point.deltas for point in curve.points)]
    if not shown:
        return None
    columns = min(3, len(shown))
    figure = new_figure(WIDTH_IN, 0.5 + 1.9 * -(-len(shown) // columns))
    for ax, facts in zip(panels(figure, len(shown), columns), shown, strict=True):
        _sweep_panel(ax, curve, facts)
    figure.supxlabel("weight of the LoRA; band: 95 % interval; filled: on the Pareto front", size=8.5)
    return figure


def _sweep_panel(ax: Axes, curve: SweepCurve, facts: MetricFacts) -> None:
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
    ax.set_title(facts.name, size=9)
    ax.set_ylabel(f"difference ({facts.unit})\n{better}", size=7.5)


FIGURES: tuple[tuple[str, Callable[[PlotData], Figure | None]], ...] = (
    ("differences", draw_differences),
    ("distributions", draw_distributions),
    ("wins", draw_wins),
    ("tradeoff", draw_tradeoff),
    ("costs", draw_costs),
)

"""File names and what draws them, in reading order."""
