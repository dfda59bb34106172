"""A figure: a number, its goal, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

Relation = Literal["<", "<=", ">="]


class Figure(msgspec.Struct, frozen=True):
    """One measured number. A figure that misses its goal is printed as it is."""

    figure: str
    value: float
    goal: str
    """Such as ``<= 1.25``."""
    holds: bool
    n: int
    min: float
    max: float
    where: str = "cpu"

    def line(self) -> str:
        """The figure as one line of JSON, numbers to four digits."""
        shown = {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in msgspec.structs.asdict(self).items()
        }
        return msgspec.json.encode(shown).decode()


class FailedFigure(msgspec.Struct, frozen=True):
    """A figure that could not be computed."""

    figure: str
    error: str
    where: str = "cpu"

    def line(self) -> str:
        """The failure as one line of JSON."""
        return msgspec.json.encode(self).decode()


def figure_of(name: str, values: Sequence[float], relation: Relation, bound: float) -> Figure:
    """The median of repeated values, against a bound, compared before it is rounded."""
    return _figure(name, statistics.median(values), values, relation, bound)


def plain_figure(name: str, values: Sequence[float]) -> Figure:
    """The median of repeated values that have no goal."""
    value = statistics.median(values)
    return Figure(figure=name, value=value, goal="none", holds=True, n=len(values), min=min(values), max=max(values))


def ratio_figure(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    relation: Relation,
    bound: float,
) -> Figure:
    """The ratio of two medians, of values taken in turns; min and max are of the ratios within a turn."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return _figure(name, statistics.median(above) / statistics.median(below), ratios, relation, bound)


def _figure(name: str, value: float, spread: Sequence[float], relation: Relation, bound: float) -> Figure:
    return Figure(
        figure=name,
        value=value,
        goal=f"{relation} {bound:g}",
        holds={"<": value < bound, "<=": value <= bound, ">=": value >= bound}[relation],
        n=len(spread),
        min=min(spread),
        max=max(spread),
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures below one another, as they are read."""
    head = ("figure", "value", "goal", "holds", "n", "min", "max", "where")
    rows = [
        (
            *(f.figure, f"{f.value:.4g}", f.goal, "yes" if f.holds else "NO"),
            *(str(f.n), f"{f.min:.4g}", f"{f.max:.4g}", f.where),
        )
        for f in figures
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def write_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put a text between two marks of a page, in the place of what stands there."""
    whole = page.read_text(encoding="utf-8")
    before, after = whole[: whole.index(marks[0]) + len(marks[0])], whole[whole.index(marks[1]) :]
    page.write_text(f"{before}\n\n{text}\n\n{after}", encoding="utf-8")
