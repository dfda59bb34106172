"""The gate in the reports: words, numbers, places in the forest, image pairs, and what cannot be shown."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from hypothesis import given
from hypothesis import strategies as st
from report_gates import HOSTILE_NOTE, gate_on, interval, verdict, verdicts, view_of, within, written
from report_runs import HOSTILE, Element, Page, hostile_run, page_of

from bench.errors import InvalidError, UsageError
from bench.plots.gate import FARTHEST, described, draw_gate, scale, shares, window, write_gate_plot
from bench.plots.style import house_style, inline_svg
from bench.records import Run
from bench.report import draw_figures, html, markdown, write_report
from bench.report.gate import against, lead

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return written(tmp_path_factory.mktemp("runs") / "run", prompts=12)


@pytest.fixture(scope="module")
def own(run: Run) -> Page:
    """The page of a gate of every outcome, between two variants of one run."""
    view = view_of(run, gate_on(run, verdicts(run, run), "invalid", **within(run)))
    return page_of(html(view, draw_figures(view, Path(run.path) / "plots")[1]))


def forest(page: Page) -> list[Element]:
    """What lies inside the gate's figure on the page."""
    start = next(
        i
        for i, one in enumerate(page.elements)
        if one.attributes.get("aria-labelledby", "").startswith("gate-title gate-")
    )
    stop = next(i for i in range(start + 1, len(page.elements)) if page.elements[i].name == "ul")
    return page.elements[start:stop]


# --- whether there is a section ---------------------------------------------------------------


def test_without_a_gate_there_is_no_section(run: Run) -> None:
    view = view_of(run, None)
    assert not page_of(html(view)).named("section", id="gate")
    assert "Regression gate" not in markdown(view, ())


def test_the_files_show_the_gate_of_this_run_only(tmp_path: Path, blank_plots: None) -> None:
    run = written(tmp_path / "run", prompts=4)
    gate = gate_on(run, verdicts(run, run), "invalid", **within(run))
    (tmp_path / "run" / "gate.json").write_bytes(msgspec.json.encode(gate))
    page, note = write_report(tmp_path / "run")
    assert page_of(page.read_text()).named("section", id="gate")
    assert "## Regression gate: Invalid" in note.read_text()
    assert "](plots/gate.png)" in note.read_text()
    assert (tmp_path / "run" / "plots" / "gate.png").is_file()
    strange = msgspec.structs.replace(gate, run_id="fake-9999")
    (tmp_path / "run" / "gate.json").write_bytes(msgspec.json.encode(strange))
    page, note = write_report(tmp_path / "run")
    assert not page_of(page.read_text()).named("section", id="gate")
    assert "plots/gate.png" not in note.read_text()


# --- words ------------------------------------------------------------------------------------


def test_the_outcome_stands_in_words_near_the_top(own: Page) -> None:
    names = [one.attributes.get("id", one.attributes.get("class", "")) for one in own.named("section")]
    assert names.index("hero") < names.index("gate") < names.index("headline")
    line = own.named("p", class_="gate-line")[0]
    assert "invalid" in line.attributes["class"].split()
    assert line.text.startswith("Gate: Invalid The gate gives no verdict")
    assert own.named("p", class_="outcome-word")[0].text == "Invalid"


def test_every_verdict_says_its_sentence_with_a_word_gravest_first(own: Page, run: Run) -> None:
    items = own.named("ul", class_="verdicts")[0].text
    sentences = [one.sentence for one in verdicts(run, run)]
    assert all(sentence in items for sentence in sentences)
    words = [one.text for one in own.named("span", class_="verdict-word")]
    assert words == ["Invalid", "Failed", "Failed", "Inconclusive", "Passed", "Passed"]
    assert "about 31 prompts would probably decide it" in items
    assert "minimum detectable loss 0.093" in items


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Compared with the frozen baseline <release>.json, made from run fake-0777."),
        ({"baseline": "C:\\runs\\old", "baseline_is_run": True}, "Compared with the run folder old, run fake-0777."),
        ({"baseline_is_run": True, "baseline_id": "fake-0000"}, "Two variants of this run were compared."),
        ({"baseline_id": "fake-0000"}, "Compared with the frozen baseline <release>.json, made from run fake-0000."),
    ],
)
def test_the_baseline_is_named_for_what_it_is(run: Run, changes: Mapping[str, object], expected: str) -> None:
    view = view_of(run, gate_on(run, (), "invalid", **changes))
    assert view.gate is not None
    assert against(view.gate) == expected
    assert (
        f"{expected} Checked on 3 February 2025, 04:05 UTC."
        in page_of(html(view)).named("div", class_="outcome")[0].text
    )


def test_the_lead_counts_and_names_what_decides(run: Run) -> None:
    some = verdicts(run, run)
    assert lead(gate_on(run, some, "invalid")) == (
        "The gate gives no verdict, because this could not be checked: saturation of spo. "
        "Of 6 verdicts, 2 pass, 1 is inconclusive, 2 fail and 1 is invalid."
    )
    failing = tuple(one for one in some if one.outcome in ("fail", "pass"))
    assert lead(gate_on(run, failing, "fail")).startswith(
        "More was lost than is allowed: mini-aesthetic of spo and peak_allocated of spo. "
        "Of 4 verdicts, 2 pass and 2 fail."
    )
    many = tuple(verdict(f"m{number}", "inconclusive") for number in range(9))
    assert "m0 of spo, m1 of spo, m2 of spo and 6 more." in lead(gate_on(run, many, "inconclusive"))


def test_equal_weights_are_said(run: Run) -> None:
    same = verdict("mini-clip", "pass", loss=0.0, interval=interval(0.0, 0.0), equal_weights=True)
    view = view_of(run, gate_on(run, (same,), "pass"))
    assert view.gate is not None
    assert lead(view.gate).endswith("Of 1 verdict, 1 passes. Candidate and reference have the same weights.")
    assert "same weights on both sides" in html(view)
    assert "Same weights on both sides." in markdown(view, ())


def test_a_gate_never_looks_better_than_it_is(run: Run) -> None:
    """The gate as a whole may be invalid where each verdict passes: a whole quantity may be missing."""
    passing = (verdict("mini-clip", "pass", loss=0.0, interval=interval(-0.01, 0.01)),)
    view = view_of(run, gate_on(run, passing, "invalid", notes=("mini-aesthetic did not load.",)))
    page = page_of(html(view))
    assert page.named("p", class_="outcome-word")[0].text == "Invalid"
    assert "No quantity lost" not in page.named("section", id="gate")[0].text
    assert "mini-aesthetic did not load." in page.named("ul", class_="gate-notes")[0].text


def test_a_gate_without_verdicts_has_no_forest(run: Run, tmp_path: Path) -> None:
    gate = gate_on(run, (), "invalid")
    view = view_of(run, gate)
    _, figures = draw_figures(view, tmp_path / "plots")
    assert "nothing was checked" in page_of(html(view, figures)).named("section", id="gate")[0].text
    assert "gate" not in figures
    assert write_gate_plot(gate, tmp_path) == ()


# --- the forest -------------------------------------------------------------------------------


def test_places_in_the_figure_are_shares_of_the_margin(run: Run) -> None:
    gate = gate_on(run, verdicts(run, run), "invalid", **within(run))
    with house_style():
        figure = draw_gate(gate)
    assert figure is not None
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{MINUS}2", f"{MINUS}1", "0", "1", "2", "3"]
    assert list(ax.get_xticks()) == [-2, -1, 0, 1, 2, 3]
    bars = [lines.get_segments()[0] for lines in ax.collections]
    drawn = {round(float(bar[0][1])): (float(bar[0][0]), float(bar[1][0])) for bar in bars}
    for place, one in enumerate(gate.verdicts):
        if one.name in ("mini-aesthetic", "mini-clip", "end_to_end"):
            assert one.margin is not None
            assert one.interval is not None
            expected = [one.interval.low / one.margin, one.interval.high / one.margin]
            assert drawn[place] == pytest.approx(expected, abs=5e-3)


def test_the_page_has_the_figure_as_text_with_what_is_far_out_and_what_has_no_number(own: Page) -> None:
    texts = [one.text.strip() for one in forest(own) if one.name == "text"]
    assert f"{MINUS}12 × margin" in texts
    assert "14 × margin" in texts
    assert any("Sample 1 of the prompt case-004 has no score" in text for text in texts)
    assert "mini-aesthetic" in texts


def test_the_figure_is_named_described_and_doubled_by_a_table(own: Page) -> None:
    inside = forest(own)
    ids = inside[0].attributes["aria-labelledby"].split()
    named = [one.text for one in inside if one.attributes.get("id") in ids]
    assert named[0] == "Losses as shares of what is allowed"
    assert "mini-aesthetic, spo against base: failed, loss 2.42 of the margin, interval 1.42 to 3.36." in named[1]
    assert "saturation, spo against base: invalid, not drawn." in named[1]
    table = own.named("details", class_="numbers")[0].text
    for number in ("+0.121", "[+0.071, +0.168]", "0.1sd", "455 ms", "5% floor 20ms", "+42.0 %", "31 prompts"):
        assert number in table


SHARES = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), max_size=6), st.floats(1e-6, 1e6))
def test_the_window_holds_zero_and_the_margin_and_no_more_than_the_farthest_shares(
    found: list[tuple[float, float, float]], margin: float
) -> None:
    rows = [
        verdict("m", "pass", margin=margin, loss=at * margin, interval=interval(low * margin, high * margin))
        for low, at, high in map(sorted, found)
    ]
    ends = window(rows)
    assert FARTHEST[0] <= ends[0] < 0 < 1 < ends[1] <= FARTHEST[1]
    places = list(scale(ends))
    assert {0.0, 1.0} <= set(places)
    assert all(ends[0] <= at <= ends[1] for at in places)
    for row, expected in zip(rows, map(sorted, found), strict=True):
        assert shares(row) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "low", "high", "marks"),
    [
        (0.5, 0.2, 0.8, ["o"]),
        (9.0, 0.2, 12.0, [">"]),
        (9.0, 8.0, 12.0, [">"]),
        (-9.0, -12.0, 0.0, ["<"]),
        (0.5, -9.0, 9.0, ["<", ">", "o"]),
    ],
)
def test_every_row_shows_its_loss_or_an_arrow_with_its_number(
    loss: float, low: float, high: float, marks: list[str]
) -> None:
    row = verdict("m", "pass", margin=1.0, loss=loss, interval=interval(low, high))
    with house_style():
        figure = draw_gate(gate_on(make_run("run", prompts=1), (row,), "pass"))
    assert figure is not None
    ax = figure.axes[0]
    assert [str(line.get_marker()) for line in ax.lines if line.get_marker() in ("o", "<", ">")] == marks
    assert any("× margin" in text.get_text() for text in ax.texts) == ("o" not in marks)
    (bar,) = [lines.get_segments()[0] for lines in ax.collections]
    assert FARTHEST[0] <= bar[0][0] <= bar[1][0] <= FARTHEST[1]


@pytest.mark.parametrize("changes", [{"margin": None, "loss": 0.1}, {"margin": 0.0, "loss": 0.1}, {"loss": None}])
def test_a_row_without_a_share_is_not_drawn(changes: Mapping[str, object]) -> None:
    assert shares(verdict("m", "invalid", **changes)) is None


# --- escapes ----------------------------------------------------------------------------------


def test_hostile_prompts_notes_and_names_stay_text(tmp_path: Path) -> None:
    run = hostile_run()
    write_run(run, tmp_path)
    run = msgspec.structs.replace(run, path=str(tmp_path))
    found = tuple(
        msgspec.structs.replace(one, sentence=f"<script>alert(1)</script> {one.sentence}", unit="<i>u</i>")
        for one in verdicts(run, run, "dpo", "base")
    )
    view = view_of(run, gate_on(run, found, "invalid", **within(run)))
    page = page_of(html(view))
    assert len([one for one in page.named("script") if "type" not in one.attributes]) == 1
    quotes = {one.text for one in page.named("p", class_="quote")}
    assert set(HOSTILE) <= quotes
    assert all(one.attributes["dir"] == "auto" for one in page.named("p", class_="quote"))
    assert page.named("ul", class_="gate-notes")[0].text == HOSTILE_NOTE
    for element in page.elements:
        assert not [name for name in element.attributes if name.startswith("on")]
        assert not element.attributes.get("href", "#").startswith("javascript:")
    assert view.gate is not None
    with house_style():
        figure = draw_gate(view.gate)
    assert figure is not None
    svg = inline_svg(figure, "gate", "<script>title</script>", described(view.gate))
    assert "<script" not in svg
    assert "&lt;script&gt;title" in svg
    note = markdown(view, ())
    assert "<script" not in note
    rows = [line for line in note.splitlines() if line.startswith("| ") and "**Failed**" in line]
    assert rows
    assert all(len(re.split(r"(?<!\\)\|", row)) == 13 for row in rows)


# --- print ------------------------------------------------------------------------------------


def test_the_print_figure_shows_the_same_shares(run: Run) -> None:
    gate = gate_on(run, verdicts(run, run), "invalid")
    with house_style():
        figure = draw_gate(gate)
        assert figure is not None
        figure.canvas.draw()
    (ax,) = [one for one in figure.axes if one.get_title("left")]
    points = {
        round(float(line.get_xdata()[0]), 6): line.get_marker() for line in ax.lines if line.get_marker() in "oDx"
    }
    assert points == {2.42: "D", round(0.004 / 0.006, 6): "o", 0.24: "o"}
    arrows = sorted(str(line.get_marker()) for line in ax.lines if line.get_marker() in ("<", ">"))
    assert arrows == ["<", ">"]
    texts = [text.get_text() for text in ax.texts]
    assert any("has no score" in text for text in texts)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "mini-aesthetic\nfailed"
    low, high = ax.get_xlim()
    assert low < 0 < 1 < high


def test_the_print_figure_repeats_and_refuses_other_formats(run: Run, tmp_path: Path) -> None:
    gate = gate_on(run, verdicts(run, run), "invalid")
    first, second = (write_gate_plot(gate, tmp_path / name, "svg")[0] for name in ("a", "b"))
    assert first.name == "gate.svg"
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UsageError, match="png, svg, pdf"):
        write_gate_plot(gate, tmp_path, "gif")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="50 to 1200"):
        write_gate_plot(gate, tmp_path, dpi=10)


def test_the_plot_verb_draws_the_gate_too(tmp_path: Path) -> None:
    run = written(tmp_path / "run", prompts=3)
    gate = gate_on(run, verdicts(run, run), "invalid", **within(run))
    (tmp_path / "run" / "gate.json").write_bytes(msgspec.json.encode(gate))
    command = [sys.executable, "-m", "bench", "plot", run.path, "-o", str(tmp_path / "figures"), "--dpi", "60"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "figures" / "gate.png")
    assert (tmp_path / "figures" / "gate.png").exists()


def test_a_damaged_gate_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "run", prompts=2)
    (tmp_path / "run" / "gate.json").write_text('{"schema": 2}')
    with pytest.raises(InvalidError, match=r"gate\.json"):
        write_report(tmp_path / "run")


def test_the_fakes_hold_every_outcome(run: Run) -> None:
    assert {one.outcome for one in verdicts(run, run)} == {"pass", "fail", "inconclusive", "invalid"}
