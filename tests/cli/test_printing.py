import json
import math

import pytest

from bench.cli.printing import Column, format_rate, print_json, print_table, printable
from bench.formatting import duration
from bench.records import Interval

COLUMNS = [Column("metric"), Column("mean", number=True), Column("what it is", text=True)]
ROWS = [
    ["mini-aesthetic", "+0.31", "how beautiful a craft estimator finds an image, in points"],
    ["mini-clip", "-0.01", "how well the image fits its prompt"],
]


def test_a_table_goes_out_at_full_width_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert all(cell in line for row, line in zip(ROWS, lines[2:], strict=True) for cell in row)


@pytest.mark.parametrize("width", [48, 60, 80])
def test_a_table_fits_its_width_and_keeps_every_word(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert {word for row in ROWS for cell in row for word in cell.split()} <= set(out.split())


def test_a_word_that_is_too_long_is_folded_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    word = "stabilityai/stable-diffusion-xl-base-1.0"
    print_table([Column("name"), Column("checkpoint", text=True)], [["base", word]])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert word in "".join(line.removeprefix("base").strip() for line in out.splitlines())


def test_in_20_columns_each_row_is_a_list_of_its_fields(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines()[:2] == ["mini-aesthetic", "  mean: +0.31"]


def test_a_table_without_rows_is_its_headings(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, [])
    assert "metric" in capsys.readouterr().out


def test_markup_and_control_characters_in_a_cell_stay_text(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table([Column("a")], [["[bold]x[/bold]\x1b[31m\r"]])
    assert capsys.readouterr().out.splitlines()[-1].strip() == r"[bold]x[/bold]\x1b[31m\r"


def test_printable_keeps_what_people_write():
    assert printable("émoji 💃\nعربى") == "émoji 💃\nعربى"
    assert printable("a\x00\x9b\u202e") == r"a\x00\x9b\u202e"


def test_json_is_standard_json(capsys):
    print_json([Interval(low=-1.0, high=2.5, method="bca")])
    assert json.loads(capsys.readouterr().out) == [{"low": -1.0, "high": 2.5, "method": "bca", "level": 0.95}]
    with pytest.raises(ValueError):
        print_json({"value": math.nan})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (39.4, "39 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(3.44, "3.4/s"), (1.0, "1.0/s"), (0.5, "2.0 s each")])
def test_rates(rate, text):
    assert format_rate(rate) == text
