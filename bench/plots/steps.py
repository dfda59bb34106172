"""Figures of single steps: curves with bands, how early the final order shows, and what each window of steps gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.plots.style import INK, SOFT, WIDTH_IN, new_figure, panels, shortened, style_of
from bench.records import AttributedMetric, MetricFacts, StepAttribution, StepCurve, StepOrder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHED = (0, (4, 3))


def draw_step_curves(curves: Sequence[StepCurve], variants: Sequence[str], units: dict[str, str]) -> Figure | None:
    """The paired difference at each step with its simultaneous band: a panel a metric, a line a pair.

    Args:
        curves: of any metrics and pairs.
        variants: the suite's, in the order of their colours.
        units: of each metric.
    """
    metrics = list(dict.fromkeys(curve.metric for curve in curves))
    if not metrics:
        return None
    columns = min(2, len(metrics))
    figure = new_figure(WIDTH_IN, 0.6 + 2.3 * -(-len(metrics) // columns))
    axes = panels(figure, len(metrics), columns)
    for ax, metric in zip(axes, metrics, strict=True):
        ax.axhline(0, color=SOFT, linewidth=0.9, linestyle=DASHED, zorder=1)
        for curve in [one for one in curves if one.metric == metric]:
            style = style_of(variants.index(curve.candidate))
            second = curve.reference != variants[0]
            ax.fill_between(curve.steps, curve.low, curve.high, color=f"{style.colour}33", linewidth=0)
            ax.plot(
                curve.steps, curve.mean, style.marker, color=style.colour, linewidth=1.6, ms=3,
                linestyle=DASHED if second else "-", mfc="white" if second else style.colour,
                label=f"{shortened(curve.candidate)} − {shortened(curve.reference)}",
            )  # fmt: skip
        _step_axes(ax, metric, f"difference ({units.get(metric, '')})")
    _legend(figure, axes)
    figure.supxlabel("step; band: holds the whole curve with 95 %", size=8.5)
    return figure


def draw_step_orders(orders: Sequence[StepOrder]) -> Figure | None:
    """The share of pairs that are in the order of the final images at each step: a panel a pair, a line a metric."""
    sides = list(dict.fromkeys((one.candidate, one.reference) for one in orders))
    if not sides:
        return None
    metrics = list(dict.fromkeys(one.metric for one in orders))
    columns = min(2, len(sides))
    figure = new_figure(WIDTH_IN, 0.6 + 2.3 * -(-len(sides) // columns))
    axes = panels(figure, len(sides), columns)
    for ax, (candidate, reference) in zip(axes, sides, strict=True):
        ax.axhline(0.5, color=SOFT, linewidth=0.9, linestyle=DASHED, zorder=1)
        for order in orders:
            if (order.candidate, order.reference) != (candidate, reference):
                continue
            style = style_of(1 + metrics.index(order.metric))
            ax.fill_between(order.steps, order.low, order.high, color=f"{style.colour}26", linewidth=0)
            ax.plot(
                order.steps, order.agreement, style.marker, color=style.colour, linestyle="-", linewidth=1.6, ms=3,
                label=shortened(order.metric),
            )  # fmt: skip
        ax.set_ylim(0, 1.02)
        what = f"two samples of {candidate}" if candidate == reference else f"{candidate} and {reference}"
        _step_axes(ax, what, "share of pairs in the final order")
    _legend(figure, axes)
    figure.supxlabel("step; below one half: the order at the step is mostly the reverse", size=8.5)
    return figure


def draw_attribution(found: StepAttribution, metrics: Sequence[MetricFacts]) -> Figure | None:
    """What the variant gives in each window alone, up to each, and from each on, with 95 % intervals."""
    shown = [one for one in found.metrics if any(facts.name == one.metric for facts in metrics)]
    if not shown:
        return None
    columns = min(2, len(shown))
    figure = new_figure(WIDTH_IN, 0.7 + 2.4 * -(-len(shown) // columns))
    axes = panels(figure, len(shown), columns)
    for ax, one in zip(axes, shown, strict=True):
        facts = next(facts for facts in metrics if facts.name == one.metric)
        _attribution_panel(ax, one, found.steps)
        _step_axes(ax, one.metric, f"difference ({facts.unit})")
    _legend(figure, axes)
    figure.supxlabel(f"step; bars: {shortened(found.variant)} in these steps only; dashed: in all steps", size=8.5)
    return figure


def _attribution_panel(ax: Axes, one: AttributedMetric, steps: int) -> None:
    style = style_of(1)
    ax.axhline(0, color=SOFT, linewidth=0.9, zorder=1)
    ax.axhline(one.whole.mean, color=style.colour, linewidth=1.0, linestyle=DASHED, zorder=1)
    for window in [window for window in one.windows if window.kind == "only"]:
        middle, width = (window.first + window.last) / 2, window.last - window.first + 0.8
        ax.bar(
            middle, window.delta.mean, width, color=f"{style.colour}44", edgecolor=style.colour, linewidth=0.9,
            label="only these",
        )  # fmt: skip
        if window.delta.interval is not None:
            ax.vlines(middle, window.delta.interval.low, window.delta.interval.high, color=style.colour, linewidth=1.6)
    for kind, colour, label in (("until", style_of(2), "up to here"), ("from", style_of(3), "from here on")):
        own = [window for window in one.windows if window.kind == kind]
        at = [window.last if kind == "until" else window.first for window in own]
        ends = [window.delta.interval for window in own]
        ax.fill_between(
            at,
            [window.delta.mean if end is None else end.low for window, end in zip(own, ends, strict=True)],
            [window.delta.mean if end is None else end.high for window, end in zip(own, ends, strict=True)],
            color=f"{colour.colour}22", linewidth=0,
        )  # fmt: skip
        ax.plot(
            at, [window.delta.mean for window in own], colour.marker, color=colour.colour, linestyle="-",
            linewidth=1.3, ms=4, mfc="white", label=label,
        )  # fmt: skip
    ax.set_xlim(0.4, steps + 0.6)


def _step_axes(ax: Axes, title: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.grid(axis="y")
    ax.tick_params(labelcolor=INK)
    ax.set_title(title, size=9)
    ax.set_ylabel(label, size=7.5)
    ax.margins(x=0.02)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if len(found) > 1:
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4, handletextpad=0.4)
