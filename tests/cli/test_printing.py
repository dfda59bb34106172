import io
import json
import math
import sys

import pytest

from bench.cli.printing import (
    format_rate,
    latex_table,
    markdown_table,
    print_json,
    print_table,
    printable,
    say,
    show,
    show_command,
)
from bench.formatting import duration
from bench.records import Interval

COLUMNS = {"metric": "name", "mean": "number", "what it is": "text"}
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
    print_table({"name": "name", "checkpoint": "text"}, [["base", word]])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert word in "".join(line.removeprefix("base").strip() for line in out.splitlines())


def test_in_20_columns_each_row_is_a_list_of_its_fields(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines()[:2] == ["mini-aesthetic", "  mean: +0.31"]


def test_a_message_of_a_megabyte_is_cut_in_its_middle_and_other_lines_stay(capsys):
    say("name is '" + "x" * 1_000_000 + "'; shorten it.\nnext")
    long, following = capsys.readouterr().err.splitlines()
    assert long.startswith("name is 'xxx")
    assert "[... 998,023 characters ...]" in long
    assert long.endswith("'; shorten it.")
    assert (len(long) < 2100, following) == (True, "next")


def test_a_table_without_rows_is_its_headings(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, [])
    assert "metric" in capsys.readouterr().out


def test_markup_and_control_characters_in_a_cell_stay_text(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table({"a": "name"}, [["[bold]x[/bold]\x1b[31m\r"]])
    assert capsys.readouterr().out.splitlines()[-1].strip() == r"[bold]x[/bold]\x1b[31m\r"


def test_cells_of_markdown_and_latex_are_literal_text():
    columns = {"a_b": "name", "n": "text"}
    rows = [["<b>|*x*", r"50 % \$ # & {~^} |"]]
    assert markdown_table(columns, rows).splitlines() == [
        r"| a\_b | n |",
        "| --- | --- |",
        r"| &lt;b&gt;\|\*x\* | 50 % \\\$ \#<!-- --> &amp; {\~^} \| |",
    ]
    body = latex_table(columns, rows)
    assert body.startswith("\\begin{tabular}{ll}\n\\toprule\na\\_b & n \\\\\n\\midrule\n")
    signs = r"50 \% \textbackslash{}\$ \# \& \{\textasciitilde{}\textasciicircum{}\} \textbar{} \\"
    assert rf"\textless{{}}b\textgreater{{}}\textbar{{}}*x* & {signs}" in body


def test_numbers_stand_to_the_right_in_markdown_and_latex():
    columns, rows = {"a": "name", "n": "number"}, [["x", "+0.5 "]]
    assert markdown_table(columns, rows) == "| a | n |\n| --- | ---: |\n| x | +0.5 |"
    assert latex_table(columns, rows).startswith("\\begin{tabular}{lr}\n")


class Gone(io.StringIO):
    """A stream whose reader has left; its file number is one that may be pointed elsewhere."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def flush(self):
        raise BrokenPipeError

    def fileno(self):
        return self.number


def test_a_reader_that_has_left_stops_nothing(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w") as file:
        for name, write in (("stdout", show), ("stderr", say)):
            monkeypatch.setattr(sys, name, Gone(file.fileno()))
            write("a result")
        file.write("lost")
    assert (tmp_path / "out").read_text() == ""


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
        (2725, "45 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(3.44, "3.4/s"), (1.0, "1.0/s"), (0.5, "2.0 s each")])
def test_rates(rate, text):
    assert format_rate(rate) == text


# --- commands in a log ----------------------------------------------------------------------

COMMANDS = {
    "::error::forged": "\\u003a:error::forged",
    "  ::set-output name=outcome::pass": "  \\u003a:set-output name=outcome::pass",
    "a tag\n::stop-commands::x": "a tag\n\\u003a:stop-commands::x",
    "anywhere ##[error]x": "anywhere \\u0023#[error]x",
    "###[group]x": "#\\u0023#[group]x",
    "x ##vso[task.setvariable variable=a]b": "x \\u0023#vso[task.setvariable variable=a]b",
    "##teamcity[buildStatus status='SUCCESS']": "\\u0023#teamcity[buildStatus status='SUCCESS']",
    "a::b, ## c [d], :one: \\n::": "a::b, ## c [d], :one: \\n::",
}


@pytest.mark.parametrize("text", COMMANDS)
@pytest.mark.parametrize("name", ["CI", "TF_BUILD", "TEAMCITY_VERSION"])
def test_no_text_is_a_command_to_the_ci_that_reads_the_log(text, name, monkeypatch, capsys):
    monkeypatch.setenv(name, "true")
    show(text)
    say(text)
    assert capsys.readouterr() == (f"{COMMANDS[text]}\n", f"{COMMANDS[text]}\n")


def test_json_says_the_same_in_ci(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    print_json(list(COMMANDS))
    out = capsys.readouterr().out
    assert json.loads(out) == list(COMMANDS)
    assert "##" not in out.replace("## c", "")


def test_outside_of_ci_text_stays_as_it_is(monkeypatch, capsys):
    for name in ("CI", "TF_BUILD", "TEAMCITY_VERSION"):
        monkeypatch.delenv(name, raising=False)
    show("::error::x ##[group]")
    assert capsys.readouterr().out == "::error::x ##[group]\n"


def test_a_command_of_our_own_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    show_command("::notice title=a::b")
    assert capsys.readouterr().out == "::notice title=a::b\n"
    for line in ("::notice::a\n::error::b", "::notice::a\rb", ""):
        with pytest.raises(ValueError, match="one line"):
            show_command(line)
