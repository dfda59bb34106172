"""How results are printed: tables that fit the terminal, JSON, numbers with their units."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

WRAPPED_CELLS = 24
"""The narrowest a column of running text may get before a table is printed as a list instead."""
_ENDLESS = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and what its cells hold."""

    heading: str
    number: bool = False
    """Aligned to the right."""
    text: bool = False
    """May be wrapped over several lines."""


def printable(text: str) -> str:
    """``text`` with control characters written as escapes, so that no file's content steers a terminal."""
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def say(message: str) -> None:
    """Prints a message on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Prints records on stdout as indented JSON; ValueError on NaN, which JSON does not have."""
    print(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, allow_nan=False, indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout; where the terminal is too narrow, each row as a list of its fields."""
    from rich.console import Console
    from rich.measure import Measurement

    shown = [[printable(cell) for cell in row] for row in rows]
    table = _table(columns, shown)
    endless = Console(width=_ENDLESS, highlight=False)
    widths = Measurement.get(endless, endless.options, table)
    width = _output_width()
    if width is not None and width < widths.minimum:
        _print_as_lists(columns, shown)
    else:
        Console(width=min(width or _ENDLESS, widths.maximum), highlight=False).print(table)


def _output_width() -> int | None:
    """Width of the terminal on stdout, or ``COLUMNS``; None where the output has none (a file, a pipe)."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        longest = max(cell_len(text) for text in (column.heading, *(row[index] for row in rows)))
        table.add_column(
            Text(column.heading),
            justify="right" if column.number else "left",
            no_wrap=not column.text,
            min_width=min(longest, WRAPPED_CELLS) if column.text else longest,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _print_as_lists(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        name, *fields = zip(columns, row, strict=True)
        print(name[1])
        for column, cell in fields:
            if cell:
                print(f"  {column.heading}: {cell}")


def format_bytes(count: float) -> str:
    """Bytes with a binary unit and three digits: ``612 MiB``, ``1.50 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"


def format_duration(seconds: float) -> str:
    """Seconds in words of two units: ``0.4 s``, ``39 s``, ``4 min 10 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_rate(per_second: float) -> str:
    """Things a second, or seconds a thing where that is the larger number: ``3.4/s``, ``2.9 s each``."""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
