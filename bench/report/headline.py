"""The headline of the report: forests of paired differences, and the same by tag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench import formatting as text
from bench.plots.data import PlotData
from bench.plots.style import shortened
from bench.records import Delta, Interval, MetricFacts

# The headline of the report: forests of paired differences, and the same by tag.


@dataclass(frozen=True)
class Mark:
    """A labelled place on a scale."""

    at: float
    text: str
    style: str = ""


@dataclass(frozen=True)
class ForestRow:
    """One pair's paired difference, as text and as places (per cent of the panel's width)."""

    pair: str
    colour: int
    hollow: bool
    count: str
    mean: str
    style: str
    interval: str
    small_sample: str
    wins: str
    win_interval: str
    d_z: str
    zero: float
    at: float
    low: float | None
    width: float
    ticks: str
    """SVG path of the single prompts' differences, in a box of 1000 x 20."""


@dataclass(frozen=True)
class Panel:
    """One judge's forest."""

    category: str
    metric: str
    training_overlap: str
    caption: str
    rows: tuple[ForestRow, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class TagCell:
    """One tag's mean difference of one pair."""

    mean: str
    interval: str
    style: str
    holds: str
    """The adjusted p-value where it holds after Holm's correction over the tags, else empty."""


@dataclass(frozen=True)
class TagRow:
    """One tag's differences, one a pair."""

    tag: str
    prompts: int
    cells: tuple[TagCell, ...]


@dataclass(frozen=True)
class TagTable:
    """One judge's differences by tag."""

    caption: str
    note: str
    pairs: tuple[str, ...]
    rows: tuple[TagRow, ...]


def way(facts: MetricFacts) -> int:
    """1 where higher is better, -1 where lower is, 0 where a metric only describes."""
    return 0 if facts.higher_is_better is None else 1 if facts.higher_is_better else -1


def decisive(delta: Delta) -> Interval | None:
    """The t interval under 30 prompts, where the bootstrap's is too narrow, else the bootstrap's."""
    return delta.small_sample or delta.interval


def judged(delta: Delta, facts: MetricFacts) -> str:
    """``better`` or ``worse`` where the interval lies on one side of zero, else an empty string.

    It is the interval of ``decisive`` that decides.
    """
    found = decisive(delta)
    if found is None or way(facts) == 0:
        return ""
    low, high = sorted((way(facts) * found.low, way(facts) * found.high))
    return "better" if low > 0 else "worse" if high < 0 else ""


def pair_name(delta: Delta) -> str:
    """``spo − base``."""
    return f"{delta.candidate} {text.MINUS} {delta.reference}"


def panels(data: PlotData) -> tuple[Panel, ...]:
    """A forest for each judge that has differences."""
    found = []
    for facts in data.metrics:
        deltas = [one for one in data.deltas if one.metric == facts.name]
        if deltas:
            found.append(_panel(data, facts, deltas))
    return tuple(found)


def _panel(data: PlotData, facts: MetricFacts, deltas: Sequence[Delta]) -> Panel:
    decimals = text.decimals_of_deltas(deltas)
    prompts = [
        [one.difference for one in data.paired(facts.name, delta.candidate, delta.reference)] for delta in deltas
    ]
    ends = [0.0, *(value for one in prompts for value in one)]
    ends += [end for one in deltas if one.interval for end in (one.interval.low, one.interval.high)]
    low, high = padded(min(ends), max(ends))
    direction = "higher is better" if facts.higher_is_better else "lower is better"
    rows = [_row(data, facts, delta, (low, high), decimals, own) for delta, own in zip(deltas, prompts, strict=True)]
    return Panel(
        category=facts.category.capitalize(),
        metric=facts.name,
        training_overlap=facts.training_overlap,
        caption=f"{facts.unit}, {direction}",
        rows=tuple(rows),
        marks=scale_marks(low, high),
    )


def _row(
    data: PlotData,
    facts: MetricFacts,
    delta: Delta,
    ends: tuple[float, float],
    decimals: int,
    prompts: Sequence[float],
) -> ForestRow:
    def place(value: float) -> float:
        return round(100 * (value - ends[0]) / (ends[1] - ends[0]), 3)

    interval = delta.interval
    won = f"{delta.wins} of {delta.prompts}" + (f", {delta.ties} tied" if delta.ties else "")
    count = text.plural(delta.prompts, "prompt") + (f", {delta.missing} missing" if delta.missing else "")
    return ForestRow(
        pair=pair_name(delta),
        colour=data.index(delta.candidate) % 8,
        hollow=data.second(delta),
        count=count,
        mean=text.signed(delta.mean, decimals),
        style=judged(delta, facts),
        interval=text.interval(interval, decimals),
        small_sample=text.interval(delta.small_sample, decimals) if delta.small_sample else "",
        wins=won,
        win_interval=f"{text.percent(delta.win_rate)} {text.percent_interval(delta.win_interval)}",
        d_z=text.signed(delta.d_z, 2),
        zero=place(0),
        at=place(delta.mean),
        low=None if interval is None else place(interval.low),
        width=0 if interval is None else round(place(interval.high) - place(interval.low), 3),
        ticks="".join(f"M{10 * place(value):.1f} 1V19" for value in prompts),
    )


def padded(low: float, high: float) -> tuple[float, float]:
    """The range with 4 % of air at both ends; of a range without width, one around it."""
    air = 0.04 * (high - low) or 0.5 * abs(high) or 1.0
    return low - air, high + air


def round_steps(low: float, high: float, most: int) -> tuple[list[float], int]:
    """Round numbers from ``low`` to ``high``, at most about ``most``, and the decimals they need."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)], decimals


def scale_marks(low: float, high: float) -> tuple[Mark, ...]:
    """Labels under a forest panel, in per cent of its width."""
    values, decimals = round_steps(low, high, 4)
    found = []
    for value in values:
        at = round(100 * (value - low) / (high - low), 3)
        style = "start" if at < 4 else "end" if at > 96 else ""
        found.append(Mark(at, text.signed(value, decimals), style))
    return tuple(found)


def tag_tables(data: PlotData, deltas: Sequence[Delta]) -> tuple[TagTable, ...]:
    """For each judge the tags' differences; tags and pairs in the order of the deltas."""
    found = []
    for facts in data.metrics:
        own = [one for one in deltas if one.metric == facts.name and one.tag is not None]
        if own:
            found.append(_tag_table(facts, own))
    return tuple(found)


def _tag_table(facts: MetricFacts, deltas: Sequence[Delta]) -> TagTable:
    decimals = text.decimals_of_deltas(deltas)
    pairs = tuple(dict.fromkeys(pair_name(one) for one in deltas))
    by_place = {(one.tag, pair_name(one)): one for one in deltas}
    rows = []
    for tag in dict.fromkeys(one.tag for one in deltas if one.tag is not None):
        here = [by_place.get((tag, pair)) for pair in pairs]
        prompts = max(one.prompts for one in here if one is not None)
        rows.append(TagRow(tag, prompts, tuple(_tag_cell(one, facts, decimals) for one in here)))
    direction = "higher is better" if facts.higher_is_better else "lower is better"
    return TagTable(facts.name, f"{facts.unit}, {direction}", pairs, tuple(rows))


def _tag_cell(delta: Delta | None, facts: MetricFacts, decimals: int) -> TagCell:
    if delta is None:
        return TagCell(text.NONE, "", "", "")
    return TagCell(
        text.signed(delta.mean, decimals),
        text.interval(decisive(delta), decimals),
        judged(delta, facts),
        text.p_value(delta.p_holm) if text.holds(delta) else "",
    )


# The report's chart of the trade-off: alignment against preference, in coordinates for SVG.

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
    across = next((facts for facts in data.metrics if facts.category != "alignment"), None)
    up = next((facts for facts in data.metrics if facts.category == "alignment"), None)
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
        x_title=f"{across.category}: difference in {across.name} ({across.unit}) →",
        y_title=f"↑ {up.category}: difference in {up.name} ({up.unit})",
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
    across = {one.prompt.id: one.difference for one in data.paired(x.metric, x.candidate, x.reference)}
    up = data.paired(y.metric, y.candidate, y.reference)
    return [(across[one.prompt.id], one.difference) for one in up if one.prompt.id in across]


def _extent(deltas: Sequence[Delta], points: Sequence[float]) -> tuple[float, float]:
    values = [0.0, *points]
    for one in deltas:
        values += [one.mean] if one.interval is None else [one.interval.low, one.interval.high]
    return min(values), max(values)
