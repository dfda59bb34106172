"""The report's forest of losses, in coordinates for SVG: once for wide pages, once for phones."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from bench.gate.outcomes import WORDS, shown
from bench.plots.losses import LossGroup, LossRow, far, reach, scale, window, word
from bench.plots.style import shortened
from bench.records import Outcome
from bench.report.headline import Mark


@dataclass(frozen=True)
class Layout:
    """Where the parts of a row stand, in the chart's units, which are a screen's pixels at full width."""

    name: str
    width: float
    left: float
    right: float
    row: float
    """Height of a row."""
    strip: float
    """From a row's top to the middle of its interval."""
    title: float
    """From a row's top to the base line of its title; its second line follows."""
    numbers: float
    """Where the numbers end, at the right."""
    title_characters: int
    reason_characters: int


WIDE = Layout("wide", 1150, 215, 900, 46, 23, 19, 1150, 27, 96)
NARROW = Layout("narrow", 340, 12, 328, 78, 60, 17, 338, 15, 46)
_TOP, _HEAD, _FOOT, _LINE = 30.0, 36.0, 44.0, 17.0


@dataclass(frozen=True)
class ForestLine:
    """One verdict's row: its mark and interval, or the reason why there are none."""

    title: str
    outcome: Outcome
    word: str
    numbers: str
    allowed: str
    top: float
    y: float
    x: float | None
    low: float
    high: float
    drawn: bool
    beyond: tuple[str, ...]
    far: str
    """The loss in margins, where its mark lies outside the window."""
    reason: tuple[str, ...]


@dataclass(frozen=True)
class ForestHead:
    """The name of a pair, above its rows."""

    title: str
    y: float


@dataclass(frozen=True)
class Forest:
    """The forest of losses in one layout."""

    layout: Layout
    height: float
    top: float
    bottom: float
    no_loss: float
    margin: float
    edge: float
    """Right end of the shaded zone beyond the margin."""
    heads: tuple[ForestHead, ...]
    lines: tuple[ForestLine, ...]
    marks: tuple[Mark, ...]
    title: str
    description: str


def forest(groups: tuple[LossGroup, ...], layout: Layout) -> Forest:
    """The forest of ``groups``: shares of the margin across, verdicts down."""
    ends = window(groups)

    def to_x(share: float) -> float:
        return round(layout.left + (layout.right - layout.left) * (share - ends[0]) / (ends[1] - ends[0]), 1)

    y, heads, lines = _TOP, [], []
    for group in groups:
        heads.append(ForestHead(shortened(group.title, 46), y + 24))
        y += _HEAD
        for row in group.rows:
            lines.append(_line(row, layout, ends, y))
            y += layout.row
    return Forest(
        layout=layout,
        height=y + _FOOT,
        top=_TOP,
        bottom=y,
        no_loss=to_x(0),
        margin=to_x(1),
        edge=layout.right,
        heads=tuple(heads),
        lines=tuple(lines),
        marks=tuple(Mark(to_x(at), label) for at, label in scale(ends)),
        title="Losses as shares of what is allowed",
        description=" ".join(_spoken(group, row) for group in groups for row in group.rows),
    )


def _line(row: LossRow, layout: Layout, ends: tuple[float, float], top: float) -> ForestLine:
    verdict, found = row.verdict, reach(row, ends)

    def to_x(share: float) -> float:
        return round(layout.left + (layout.right - layout.left) * (share - ends[0]) / (ends[1] - ends[0]), 1)

    numbers = shown(verdict)
    interval = "" if verdict.interval is None else f" {numbers.interval}"
    return ForestLine(
        title=shortened(row.title, layout.title_characters),
        outcome=verdict.outcome,
        word=word(verdict.outcome),
        numbers="" if verdict.loss is None else numbers.loss + interval,
        allowed="" if verdict.margin is None else f"margin {numbers.margin}",
        top=top,
        y=top + layout.strip,
        x=None if found is None or found.at is None else to_x(found.at),
        low=0.0 if found is None else to_x(found.low),
        high=0.0 if found is None else to_x(found.high),
        drawn=found is not None,
        beyond=() if found is None else found.beyond,
        far="" if found is None else far(row, found),
        reason=_reason(verdict.sentence, layout.reason_characters) if found is None else (),
    )


def _reason(sentence: str, characters: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(textwrap.shorten(sentence, 2 * characters - 8, placeholder=" …"), characters)[:2])


def _spoken(group: LossGroup, row: LossRow) -> str:
    """A row as one sentence, for readers who hear the chart."""
    said = f"{row.title}, {group.title}: {WORDS[row.verdict.outcome]}"
    if row.at is None:
        return f"{said}, not drawn."
    ends = "" if row.low is None or row.high is None else f", interval {row.low:.2f} to {row.high:.2f}"
    return f"{said}, loss {row.at:.2f} of the margin{ends}."
