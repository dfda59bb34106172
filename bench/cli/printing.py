"""How results are printed: tables that fit the terminal, markdown, LaTeX, JSON, times and rates in words."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

import msgspec

from bench.formatting import markdown

DONE = 0
"""What a verb returns that has done what it was asked for: the exit code of success."""
WRAPPED_WIDTH = 20
"""The narrowest a column of running text may get before a table is printed as a list instead."""
LONGEST_LINE = 2000
"""Most characters of a line of a message."""
_BETWEEN = 2
"""Characters between two columns."""
_LATEX = str.maketrans(
    {
        **{sign: rf"\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\N{MINUS SIGN}": "$-$",
        "†": r"\textdagger{}",
        "–": "--",
        "µ": r"\textmu{}",
    }
)

Columns = Mapping[str, Literal["name", "number", "text"]]
"""What the column of each heading holds: a name, a number (to the right), or text that may be wrapped."""
Table = tuple[str, Columns, list[list[str]]]
"""What a table is of, its columns, its rows."""


def printable(text: str) -> str:
    """``text`` with control characters written as escapes, so that no file's content steers a terminal."""
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


_CI = ("CI", "TF_BUILD", "TEAMCITY_VERSION")
"""Variables that say that a log is read for commands: by GitHub, GitLab and most others, Azure and TeamCity."""
_COMMAND = re.compile(r"^(?P<space>[ ]*):(?=:)|#(?=#\w*\[)", re.MULTILINE)


def inert(text: str) -> str:
    """``text`` that no CI takes for a command, with the first sign of each escaped as JSON would have it.

    GitHub takes a line that begins with ``::``, and ``##[`` anywhere (actions/runner, ActionCommand.cs); Azure takes
    ``##vso[``, TeamCity ``##teamcity[``.
    """
    if not any(os.environ.get(name) for name in _CI):
        return text
    return _COMMAND.sub(lambda found: f"{found['space'] or ''}\\u{ord(found[0][-1]):04x}", text)


def show_command(line: str) -> None:
    """Prints a command to the CI that runs this, its parts escaped by whoever made it."""
    if len(line.splitlines()) != 1 or printable(line) != line:
        raise ValueError(f"a command is one line: {line!r}")
    _write(sys.stdout, line, command=True)


def show(text: str = "") -> None:
    """Prints a result on stdout. A reader that leaves early (``| head``) stops no verb and changes no exit code."""
    _write(sys.stdout, printable(text))


def say(message: str) -> None:
    """Prints a message on stderr, each line of it cut where it is longer than anybody reads.

    A name or a field of a file may be megabytes long, and messages quote them.
    """
    _write(sys.stderr, printable("\n".join(map(_shortened, message.split("\n")))))


def _shortened(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    half = LONGEST_LINE // 2
    return f"{line[:half]} [... {len(line) - 2 * half:,} characters ...] {line[-half:]}"


def _write(stream: TextIO, text: str, *, command: bool = False) -> None:
    try:
        print(text if command else inert(text), file=stream, flush=True)
    except BrokenPipeError:
        stop_writing(stream)


def stop_writing(stream: TextIO) -> None:
    """Points a stream at nothing, or the interpreter would complain again when it flushes at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def print_json(value: object) -> None:
    """Prints records on stdout as indented JSON; ValueError on NaN, which JSON does not have."""
    _write(sys.stdout, json.dumps(msgspec.to_builtins(value), ensure_ascii=False, allow_nan=False, indent=2))


def print_table(columns: Columns, rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout; where the terminal is too narrow, each row as a list of its fields."""
    from rich.cells import cell_len

    headings = [printable(heading) for heading in columns]
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    least = [min(n, WRAPPED_WIDTH) if kind == "text" else n for n, kind in zip(widths, columns.values(), strict=True)]
    between = _BETWEEN * (len(columns) - 1)
    there = _output_width()
    if there is not None and there < sum(least) + between:
        for name, *fields in cells:
            filled = [f"  {heading}: {cell}" for heading, cell in zip(headings[1:], fields, strict=True) if cell]
            show("\n".join([name, *filled]))
        return
    natural = sum(widths) + between
    drawn = _drawn(dict(zip(headings, columns.values(), strict=True)), cells, least, min(natural, there or natural))
    _write(sys.stdout, drawn.removesuffix("\n"))


def _drawn(columns: Columns, rows: Sequence[Sequence[str]], least: Sequence[int], width: int) -> str:
    # Imported here: rich takes a tenth of a second, which help and JSON need not wait for.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for (heading, kind), narrowest in zip(columns.items(), least, strict=True):
        table.add_column(
            Text(heading),
            justify="right" if kind == "number" else "left",
            no_wrap=kind != "text",
            overflow="fold",
            min_width=narrowest,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=width, highlight=False)
    with console.capture() as drawn:  # when a reader leaves early, rich by itself would end the program with 1
        console.print(table)
    return drawn.get()


def _output_width() -> int | None:
    """Width of the terminal on stdout, or ``COLUMNS``; None where the output has none (a file, a pipe)."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def wrapped(text: str, indent: str = "") -> str:
    """Running text in lines of the output's width, each after ``indent``; in one line where it has no width."""
    width = _output_width()
    return (
        indent + text if width is None else textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
    )


def markdown_table(columns: Columns, rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's markdown; names and texts are literal, numbers need no escapes."""
    kinds = list(columns.values())
    lines = [
        [cell.strip() if kind == "number" else markdown(cell) for cell, kind in zip(row, kinds, strict=True)]
        for row in (tuple(columns), *rows)
    ]
    lines.insert(1, ["---:" if kind == "number" else "---" for kind in kinds])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex_table(columns: Columns, rows: Sequence[Sequence[str]]) -> str:
    r"""A ``tabular`` with the rules of booktabs (``\usepackage{booktabs}``); every cell is literal text."""
    kinds = "".join("r" if kind == "number" else "l" for kind in columns.values())
    lines = [" & ".join(latex(printable(cell.strip())) for cell in line) + r" \\" for line in (tuple(columns), *rows)]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{kinds}}}", *body, r"\end{tabular}"])


def latex(text: str) -> str:
    """``text`` as LaTeX shows it literally."""
    return text.translate(_LATEX)


def print_tables(form: str, tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Prints titled tables and notes on stdout as ``table``, ``markdown`` or ``latex``."""
    if form == "markdown":
        blocks = [f"**{markdown(title)}**\n\n{markdown_table(columns, rows)}" for title, columns, rows in tables]
        show("\n\n".join([*blocks, *map(markdown, notes)]))
    elif form == "latex":
        blocks = [f"% {latex(title)}\n{latex_table(columns, rows)}" for title, columns, rows in tables]
        show("\n\n".join([*blocks, *(f"% {note}" for note in notes)]))
    else:
        titled = ""
        for title, columns, rows in tables:
            if title != titled:
                show(f"{title}\n")
            titled = title
            print_table(columns, rows)
            show()
        for note in notes:
            show(note)


def format_rate(per_second: float) -> str:
    """Things a second, or seconds a thing where that is the larger number: ``3.4/s``, ``2.9 s each``."""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
