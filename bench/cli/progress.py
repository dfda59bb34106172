"""How far long work is: a bar with rate and time left on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from bench.cli.printing import format_rate, printable, say
from bench.formatting import duration
from bench.records import Progress

LINE_EVERY_S = 10.0


@contextmanager
def show_progress(quiet: bool) -> Iterator[Progress]:
    """Gives the callback that long work tells its progress to; it writes to stderr, or nowhere when quiet."""
    if quiet:
        yield _silence
        return
    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines()
        return
    with RichProgress(*_columns(console.width), console=console) as bars:
        yield Bars(bars)


def _silence(stage: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody wants to see."""


class Lines:
    """Plain lines: one when a stage begins, one every ten seconds, one when it ends."""

    def __init__(self, write: Callable[[str], None] = say, clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._stage = ""
        self._ended = False
        self._first_done = 0
        self._start_s = self._last_line_s = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tells that ``done`` of ``total`` things of a stage are done."""
        now_s = self._clock()
        began = stage != self._stage
        if began:
            self._stage, self._first_done, self._start_s, self._ended = stage, done, now_s, False
        ends = done >= total
        if (ends and self._ended) or not (began or ends or now_s - self._last_line_s >= LINE_EVERY_S):
            return
        self._ended, self._last_line_s = ends, now_s
        facts = [f"{stage}: {done} of {total}", *self._pace(done, total, now_s - self._start_s), note]
        self._write(", ".join(fact for fact in facts if fact))

    def _pace(self, done: int, total: int, elapsed_s: float) -> list[str]:
        # What an earlier run had done took no time now, so it does not count for the rate.
        fresh = done - self._first_done
        if fresh <= 0 or elapsed_s <= 0:
            return []
        rate = fresh / elapsed_s
        if done >= total:
            return [format_rate(rate), f"took {duration(elapsed_s)}"]
        return [format_rate(rate), f"{duration((total - done) / rate)} left"]


class Bars:
    """One bar of rich for each stage."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tells that ``done`` of ``total`` things of a stage are done."""
        note = printable(note)
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done, note=note)
        self._bars.update(self._tasks[stage], total=total, completed=done, note=note)


class _Pace(ProgressColumn):
    """Rate and time left; once a stage has ended, how long it took."""

    def render(self, task: Task) -> Text:
        """Text of the column, empty until there is a rate."""
        if task.finished:
            return Text(f"took {duration(task.finished_time or 0)}")
        if not task.speed or task.time_remaining is None:
            return Text("")
        return Text(f"{format_rate(task.speed)}, {duration(task.time_remaining)} left")


def _columns(width: int) -> list[ProgressColumn]:
    """What fits: a terminal of 20 columns gets the count alone."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    ]
    if width >= 40:
        columns.insert(1, BarColumn(bar_width=max(8, min(40, width - 60))))
    if width >= 60:
        columns.append(_Pace())
    if width >= 90:
        columns.append(TextColumn("{task.fields[note]}", markup=False))
    return columns
