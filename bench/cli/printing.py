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
_BETWEEN_CELLS = 2


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
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
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

    shown = [[printable(cell) for cell in row] for row in rows]
    longest = _longest(columns, shown)
    between = _BETWEEN_CELLS * (len(columns) - 1)
    least = [min(n, WRAPPED_CELLS) if column.text else n for n, column in zip(longest, columns, strict=True)]
    width = _output_width()
    if width is not None and width < sum(least) + between:
        _print_as_lists(columns, shown)
        return
    natural = sum(longest) + between
    console = Console(width=natural if width is None else min(width, natural), highlight=False)
    console.print(_table(columns, shown, least))


def _longest(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Cells that the longest text of each column takes in a terminal."""
    from rich.cells import cell_len

    texts = zip([column.heading for column in columns], *rows, strict=True)
    return [max(cell_len(text) for text in column) for column in texts]


def _output_width() -> int | None:
    """Width of the terminal on stdout, or ``COLUMNS``; None where the output has none (a file, a pipe)."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], least: Sequence[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, cells in zip(columns, least, strict=True):
        table.add_column(
            Text(column.heading),
            justify="right" if column.number else "left",
            no_wrap=not column.text,
            overflow="fold",
            min_width=cells,
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


def format_rate(per_second: float) -> str:
    """Things a second, or seconds a thing where that is the larger number: ``3.4/s``, ``2.9 s each``."""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
