import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress

from bench.cli.progress import Bars, Lines, _columns, show_progress


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def told():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(told, clock):
    return Lines(told.append, clock)


def test_lines_come_at_the_start_every_ten_seconds_and_at_the_end(lines, told, clock):
    for done in range(41):
        lines("render", done, 40, "spo")
        clock.now_s += 0.5
    assert told == [
        "render: 0 of 40, spo",
        "render: 20 of 40, 2.0/s, 10 s left, spo",
        "render: 40 of 40, 2.0/s, took 20 s, spo",
    ]


def test_what_an_earlier_run_had_done_counts_for_no_rate(lines, told, clock):
    lines("render", 90, 100)
    clock.now_s = 10
    lines("render", 95, 100)
    assert told[-1] == "render: 95 of 100, 0.5/s, 10 s left".replace("0.5/s", "2.0 s each")


def test_a_stage_that_is_done_already_is_one_line(lines, told):
    lines("score", 7, 7)
    lines("score", 7, 7)
    assert told == ["score: 7 of 7"]


def test_each_stage_has_its_own_pace(lines, told, clock):
    lines("render", 0, 2)
    clock.now_s = 100
    lines("render", 2, 2)
    lines("score", 0, 2)
    clock.now_s = 101
    lines("score", 2, 2)
    assert told[-1] == "score: 2 of 2, 2.0/s, took 1.0 s"


def test_quiet_is_silent(capsys):
    with show_progress(quiet=True) as progress:
        progress("render", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_lines_go_to_stderr(capsys):
    with show_progress(quiet=False) as progress:
        progress("render", 1, 2, "x\x1b[2J")
    assert capsys.readouterr() == ("", "render: 1 of 2, x\\x1b[2J\n")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_bars_fit_the_terminal(width):
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    with Progress(*_columns(width), console=console, auto_refresh=False) as bars:
        show = Bars(bars)
        show("render", 0, 144)
        show("render", 72, 144, "spo \x1b[2J" + "long " * 50)
        show("render", 144, 144, "spo")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    rows = [row for row in re.split(r"[\r\n]+", shown) if row]
    assert max(map(len, rows)) <= width
    assert "144/144" in rows[-1]
    assert "\x1b" not in shown
