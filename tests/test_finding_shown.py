"""Where findings are shown: the page and the markdown, ``compare``, the gate and its summary."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from fake_gates import make_verdict
from fakes import blank_figure, make_run, write_run
from gate_runs import make_folder
from msgspec.structs import replace

from bench.cli import run_command_line
from bench.compare import compare_run, variant_pairs
from bench.compare.finding import find_in_run
from bench.gate.summary import summary_markdown
from bench.records import SCHEMA, Gate, Run
from bench.report import html, markdown
from bench.report.page import View, build_view

HOSTILE = "spo<script>alert(1)</script>|x"


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run("r", prompts=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    write_run(make_run(path, prompts=40), path)
    return path


@pytest.fixture(scope="module")
def view(run: Run) -> View:
    return build_view(run, compare_run(run))


def sentences_of(run: Run) -> list[str]:
    return [one.sentences[0] for one in find_in_run(run, variant_pairs(run.info.suite))]


def test_the_page_begins_with_the_findings_and_keeps_statistics_one_click_below(run: Run, view: View) -> None:
    page = html(view)
    assert page.count('<div class="finding ') == 3
    first, summary = page.index('<div class="findings">'), page.index("spo is better than base")
    assert page.index("<h1>") < first < summary
    block = page[first:summary]
    assert block.count("<details") == 3
    assert "<details open" not in block
    for sentence in sentences_of(run):
        word, _, rest = sentence.partition(":")
        assert f"<b>{word}</b>:{rest}" in block
    inside = block[block.index("<details") : block.index("</details>")]
    assert "Bonferroni" in inside
    assert inside.count("<tr>") == 1 + len(find_in_run(run, [("dpo", "base")])[0].metrics)


def test_the_markdown_begins_with_them_too(view: View) -> None:
    note = markdown(view)
    assert note.index("**Bought**: ") < note.index("- spo is better than base")
    assert note.count("<details>") == 3
    table = note[note.index("<details>") : note.index("</details>")].splitlines()
    rows = [line for line in table if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_names_of_variants_stay_text(run: Run) -> None:
    hostile = replace(
        run,
        scores=tuple(replace(one, variant=HOSTILE) if one.variant == "spo" else one for one in run.scores),
        renders=tuple(replace(one, variant=HOSTILE) if one.variant == "spo" else one for one in run.renders),
    )
    variants = tuple(replace(one, name=HOSTILE) if one.name == "spo" else one for one in run.info.suite.variants)
    suite = replace(run.info.suite, variants=variants)
    hostile = replace(hostile, info=replace(run.info, suite=suite))
    view = build_view(hostile, compare_run(hostile))
    assert any(HOSTILE in one.sentences[0] for one in view.findings)
    assert "<script>alert" not in html(view)
    assert "<script>alert" not in markdown(view)


def test_compare_says_them_first_in_every_format(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    told = sentences_of(run)
    assert run_command_line(["compare", str(folder)]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(told[0])
    assert run_command_line(["compare", str(folder), "--format", "markdown", "--pairs", "spo:dpo"]) == 0
    assert capsys.readouterr().out.startswith("**Bought: spo gains over dpo")
    assert run_command_line(["compare", str(folder), "--format", "latex", "--pairs", "spo:dpo"]) == 0
    assert capsys.readouterr().out.startswith("% Bought: spo gains over dpo")
    assert run_command_line(["compare", str(folder), "--format", "json", "--metrics", "mini-clip"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [one["word"] for one in found] == ["bought"] * 3
    assert {metric["metric"] for metric in found[0]["metrics"]} > {"mini-clip", "mini-preference"}, "whatever is shown"
    assert run_command_line(["compare", str(folder), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["candidate"], row["name"]) for row in rows if row["kind"] == "finding"] == [
        ("dpo", "bought"),
        ("spo", "bought"),
        ("spo", "bought"),
    ]


def test_a_tag_alone_has_no_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["compare", str(folder), "--tag", "portrait"]) == 0
    assert "Bought" not in capsys.readouterr().out


def test_the_report_verb_tells_them_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.plots.style.figure_bytes", blank_figure)
    run, folder = make_run(tmp_path / "run", prompts=10, variants=("base", "spo")), tmp_path / "run"
    write_run(run, folder)
    assert run_command_line(["report", str(folder)]) == 0
    shown = capsys.readouterr()
    assert all(sentence in shown.err for sentence in sentences_of(run))
    assert shown.out.strip().endswith("report.html")


def test_the_gate_tells_them_as_information_and_decides_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_folder(tmp_path / "run", {"mini-clip": "0.5sd", "saturation": "+-0.01"})
    code = run_command_line(
        ["gate", str(path), "--candidate", "spo", "--reference", "base", "--summary", str(tmp_path / "gate.md")]
    )
    out = capsys.readouterr().out
    assert code == 1, "the saturation moved beyond its limit"
    (line,) = (line for line in out.splitlines() if line.startswith("For information: "))
    assert "Bought: spo gains over base only in mini-aesthetic and mini-preference" in line
    assert "The price: saturation" in line
    assert "**Is a gain real?**" in (tmp_path / "gate.md").read_text()
    kept = json.loads((path / "gate.json").read_text())
    assert [one["word"] for one in kept["findings"]] == ["bought"]
    shift = next(one for one in kept["verdicts"] if one["name"] == "saturation")
    assert shift["shift"] == pytest.approx(0.03, abs=0.01)
    assert shift["shift_interval"]["low"] < shift["shift"] < shift["shift_interval"]["high"]
    assert "±0.01" in out and "loss or shift" in out  # noqa: PT018


def test_a_gate_without_findings_has_no_heading_of_them() -> None:
    gate = Gate(
        schema=SCHEMA,
        outcome="pass",
        run="r",
        run_id="r",
        baseline="b",
        baseline_id="b",
        baseline_is_run=False,
        protocol_digest="0" * 64,
        verdicts=(make_verdict(),),
        notes=(),
        time="2026-01-01T00:00:00+00:00",
    )
    assert "Is a gain real?" not in summary_markdown(gate, None, None)
