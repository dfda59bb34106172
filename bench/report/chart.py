"""The report's chart of the trade-off: alignment against preference, in coordinates for SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import wording as text
from bench.plots.data import PlotData
from bench.plots.style import shortened
from bench.records import Delta, MetricFacts
from bench.report.headline import Mark, padded, round_steps

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 62.0, 548.0, 26.0, 320.0, 560.0, 368.0


@dataclass(frozen=True)
class ChartSeries:
    """One pair in the trade-off chart, in the chart's coordinates."""

    name: str
    labelled: bool
    """Whether the name has room beside its dot; the legend has it anyway."""
    colour: int
    points: tuple[tuple[float, float], ...]
    x: float
    y: float
    x_low: float | None
    x_high: float | None
    y_low: float | None
    y_high: float | None


@dataclass(frozen=True)
class Tradeoff:
    """The chart of alignment against preference: frame, marks and series in the chart's coordinates."""

    x_title: str
    y_title: str
    label: str
    caption: str
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]
    zero_x: float
    zero_y: float
    series: tuple[ChartSeries, ...]
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM
    width: float = _WIDTH
    height: float = _HEIGHT


def tradeoff(data: PlotData) -> Tradeoff | None:
    """The first judge of preference (or aesthetics) across, the first of alignment up; None without both."""
    across = next((facts for facts in data.metrics if facts.axis != "alignment"), None)
    up = next((facts for facts in data.metrics if facts.axis == "alignment"), None)
    if across is None or up is None:
        return None
    by_key = {(one.metric, one.candidate, one.reference): one for one in data.deltas}
    pairs = [
        (one, by_key[up.name, one.candidate, one.reference])
        for one in data.deltas
        if one.metric == across.name and not data.second(one) and (up.name, one.candidate, one.reference) in by_key
    ]
    return _chart(data, across, up, pairs) if pairs else None


def _chart(data: PlotData, across: MetricFacts, up: MetricFacts, pairs: Sequence[tuple[Delta, Delta]]) -> Tradeoff:
    clouds = [_cloud(data, x, y) for x, y in pairs]
    x_low, x_high = padded(*_extent([x for x, _ in pairs], [x for one in clouds for x, _ in one]))
    y_low, y_high = padded(*_extent([y for _, y in pairs], [y for one in clouds for _, y in one]))

    def to_x(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - x_low) / (x_high - x_low), 1)

    def to_y(value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (value - y_low) / (y_high - y_low), 1)

    labelled = _with_room([(to_x(x.mean), to_y(y.mean), shortened(x.candidate)) for x, y in pairs])
    series = tuple(
        ChartSeries(
            name=shortened(x.candidate),
            labelled=shortened(x.candidate) in labelled,
            colour=data.index(x.candidate) % 8,
            points=tuple((to_x(px), to_y(py)) for px, py in cloud),
            x=to_x(x.mean),
            y=to_y(y.mean),
            x_low=to_x(x.interval.low) if x.interval else None,
            x_high=to_x(x.interval.high) if x.interval else None,
            y_low=to_y(y.interval.low) if y.interval else None,
            y_high=to_y(y.interval.high) if y.interval else None,
        )
        for (x, y), cloud in zip(pairs, clouds, strict=True)
    )
    corner = f"{'up' if up.higher_is_better else 'down'} and to the {'right' if across.higher_is_better else 'left'}"
    (x_values, x_decimals), (y_values, y_decimals) = round_steps(x_low, x_high, 6), round_steps(y_low, y_high, 5)
    return Tradeoff(
        x_title=f"{across.axis}: difference in {across.name} ({across.unit}) →",
        y_title=f"↑ {up.axis}: difference in {up.name} ({up.unit})",
        label=f"Paired differences in {across.name} and {up.name} to {pairs[0][0].reference}",
        caption=f"Each faint dot is a prompt, each large one a variant's mean difference to {pairs[0][0].reference} "
        f"with its 95 % intervals. The dashed lines are no difference; better on both axes lies {corner}.",
        x_marks=tuple(Mark(to_x(value), text.signed(value, x_decimals)) for value in x_values),
        y_marks=tuple(Mark(to_y(value), text.signed(value, y_decimals)) for value in y_values),
        zero_x=to_x(0),
        zero_y=to_y(0),
        series=series,
    )


def _with_room(labels: Sequence[tuple[float, float, str]]) -> set[str]:
    """The labels that neither an earlier one nor the frame's edge would cut, at the chart's text size."""
    placed: list[tuple[float, float, float]] = []
    found = set()
    for x, y, name in labels:
        end = x + 14 + 8 * len(name)
        crowded = any(
            abs(y - other_y) < 18 and x < other_end and other_x < end for other_x, other_y, other_end in placed
        )
        if not crowded and end < _WIDTH:
            placed.append((x, y, end))
            found.add(name)
    return found


def _cloud(data: PlotData, x: Delta, y: Delta) -> list[tuple[float, float]]:
    across = {one.case.id: one.difference for one in data.paired(x.metric, x.candidate, x.reference)}
    up = data.paired(y.metric, y.candidate, y.reference)
    return [(across[one.case.id], one.difference) for one in up if one.case.id in across]


def _extent(deltas: Sequence[Delta], points: Sequence[float]) -> tuple[float, float]:
    values = [0.0, *points]
    for one in deltas:
        values += [one.mean] if one.interval is None else [one.interval.low, one.interval.high]
    return min(values), max(values)
