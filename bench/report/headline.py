"""The headline of the report: forests of paired differences, and the same by tag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench import wording as text
from bench.plots.data import PlotData
from bench.records import Delta, Interval, MetricFacts


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

    axis: str
    metric: str
    standing: str
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
        axis=facts.axis.capitalize(),
        metric=facts.name,
        standing=facts.standing,
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
