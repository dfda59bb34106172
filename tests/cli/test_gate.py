"""``gate`` and ``baseline`` through the command line: golden runs, exit codes, the files, and what is refused."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from fake_gates import make_gate, make_verdict
from fakes import make_run, write_run
from gate_runs import LIMITS, make_folder
from lxml import etree
from msgspec.structs import replace
from report_runs import page_of

import bench.cli.gate
import bench.gate
from bench.cli.gate import exit_code
from bench.compare import compare_run
from bench.documents import convert
from bench.gate.outcomes import WORDS
from bench.records import Gate
from bench.report import html
from bench.report.page import build_view
from bench.store import load_run, read_gate, write_gate
from bench.suite.limits import parse_limits

HEAVY = {"torch", "diffusers", "transformers", "peft", "open_clip", "pandas", "matplotlib", "torchmetrics"}
JUNIT = etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "gate" / "junit.xsd"))

GOLDEN = {
    # name: (the run, the baseline, exit code, outcome, what of spo's mini-clip, words of its sentence)
    "an A/A pair stays quiet": ("same", "old.json", 0, "pass", "pass", "weights on both sides are equal"),
    "a planted regression fires": ("planted", "old.json", 1, "fail", "fail", "fell by 0.078"),
    "a missing cell is invalid": ("gap", "old.json", 5, "invalid", "invalid", "case-003"),
    "a weak run is inconclusive": ("weak", "weak-old.json", 5, "inconclusive", None, ""),
    "against a run folder": ("planted", "old", 1, "fail", "fail", "fell by 0.078"),
}


@pytest.mark.parametrize("prompt_id", GOLDEN)
def test_golden_runs(prompt_id, here, cli, tmp_path):
    run, baseline, code, outcome, of_clip, words = GOLDEN[prompt_id]
    files = {name: tmp_path / "ci" / f"gate.{name}" for name in ("xml", "md", "json")}
    flags = ("--junit", files["xml"], "--summary", files["md"], "--json", files["json"])
    answer = cli("gate", run, "--baseline", baseline, *flags)
    assert answer.code == code, answer.err
    assert f"hotart-bench report {run}" in answer.err

    found = read_gate(run)
    assert convert(json.loads(files["json"].read_bytes()), Gate) == found
    assert (found.outcome, found.run, found.baseline, found.baseline_is_run) == (
        outcome,
        run,
        baseline,
        not baseline.endswith(".json"),
    )
    assert (found.run_id, found.baseline_id) == (load_run(run).info.id, "fake-0000")
    by_name = {(one.candidate, one.reference, one.name): one for one in found.verdicts}
    clip = by_name["spo", "spo", "mini-clip"]
    assert of_clip is None or clip.outcome == of_clip
    assert words in clip.sentence
    if outcome in ("pass", "fail"):
        assert {one.outcome for key, one in by_name.items() if key != ("spo", "spo", "mini-clip")} == {"pass"}

    root = etree.parse(files["xml"])
    JUNIT.assertValid(root)
    tags = {"fail": "failure", "inconclusive": "failure", "invalid": "error"}
    expected = [(tags[one.outcome], one.outcome, one.sentence) for one in found.verdicts if one.outcome != "pass"]
    bad = [(one.tag, one.get("type"), one.get("message")) for one in root.iterfind(".//testcase/*")]
    assert sorted(bad) == sorted(expected)
    assert len(root.findall(".//testcase")) == len(found.verdicts)

    summary = files["md"].read_text(encoding="utf-8")
    assert summary.splitlines()[1] == f"## Regression gate: {WORDS[outcome]}"
    page = page_of(html(build_view(load_run(run), compare_run(load_run(run)), found)))
    assert page.named("p", class_="outcome-word")[0].text.lower() == WORDS[outcome]
    told = " ".join(one.text for one in page.named("ul", class_="verdicts"))
    for one in found.verdicts:
        assert one.name in answer.out
        assert one.sentence in told
        if one.outcome != "pass":
            assert one.sentence in answer.out
            # Markdown escapes what it would take for its own, such as the underscore and the brackets.
            assert one.sentence in summary.replace("\\", "")


def test_the_report_of_a_planted_regression_shows_it(here, cli, blank_plots):
    cli("gate", "planted", "--baseline", "old.json")
    assert cli("report", "planted", "--quiet").code == 0
    (clip,) = [one for one in read_gate("planted").verdicts if one.outcome == "fail"]
    page = page_of((here / "planted" / "report.html").read_text(encoding="utf-8"))
    assert page.named("p", class_="outcome-word")[0].text == "Failed"
    assert clip.sentence in page.named("section", id="gate")[0].text
    note = (here / "planted" / "report.md").read_text(encoding="utf-8")
    assert clip.sentence in note.replace("\\", "")
    assert (here / "planted" / "plots" / "gate.png").is_file()


def test_two_variants_of_one_run(here, cli):
    answer = cli("gate", "planted", "--candidate", "spo", "--reference", "base")
    assert answer.code == 1
    found = read_gate("planted")
    assert (found.baseline, found.baseline_is_run, found.baseline_id) == ("planted", True, found.run_id)
    assert [(one.candidate, one.reference) for one in found.verdicts] == [("spo", "base")] * 2
    assert cli("gate", "planted", "--baseline", "planted", "--candidate", "spo", "--reference", "base").code == 1


@pytest.mark.parametrize(
    ("flags", "pair"),
    [
        (("--candidate", "spo", "--reference", "base"), ("spo", "base")),
        (("--candidate", "spo"), ("spo", "spo")),
        (("--reference", "spo"), ("spo", "spo")),
    ],
)
def test_one_pair_across_runs(flags, pair, here, cli):
    cli("gate", "same", "--baseline", "old.json", *flags)
    assert {(one.candidate, one.reference) for one in read_gate("same").verdicts} == {pair}


def test_a_variant_that_the_run_lacks_is_invalid_and_a_new_one_a_note(here, cli, tmp_path):
    run = make_run("fake", prompts=40, variants=("base", "new"), seed=1)
    run = replace(run, info=replace(run.info, suite=replace(run.info.suite, limits=parse_limits(LIMITS))))
    write_run(replace(run, renders=()), tmp_path / "run")
    answer = cli("gate", tmp_path / "run", "--baseline", "old.json")
    found = read_gate(tmp_path / "run")
    assert (answer.code, found.outcome) == (5, "invalid")
    assert {one.outcome for one in found.verdicts if one.candidate == "spo"} == {"invalid"}
    assert any("new" in note for note in found.notes)


@pytest.mark.parametrize(
    ("outcome", "fails", "warns"), [("pass", 0, 0), ("fail", 1, 1), ("inconclusive", 5, 0), ("invalid", 5, 5)]
)
def test_the_exit_code_is_that_of_the_outcome(outcome, fails, warns, here, cli, monkeypatch):
    gate = make_gate(make_verdict(outcome))
    check = create_autospec(bench.gate.check_limits, return_value=gate)
    monkeypatch.setattr(bench.cli.gate, "check_limits", check)
    assert cli("gate", "same", "--baseline", "old.json").code == exit_code(gate, "fail") == fails
    assert cli("gate", "same", "--baseline", "old.json", "--inconclusive", "warn").code == warns
    assert check.call_args.kwargs["quality_only"] is False
    cli("gate", "same", "--baseline", "old.json", "--other-machine")
    assert check.call_args.kwargs["quality_only"] is True


def test_warn_makes_skipped_tests_and_annotations_are_for_github_alone(here, cli, monkeypatch, tmp_path):
    flags = ("--baseline", "weak-old.json", "--inconclusive", "warn", "--junit", tmp_path / "gate.xml")
    assert "::warning" not in cli("gate", "weak", *flags).out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    answer = cli("gate", "weak", *flags)
    assert answer.code == 0
    assert "\n::warning title=hotart-bench gate" in answer.out
    root = ET.parse(tmp_path / "gate.xml")
    assert root.findall(".//skipped")
    assert not root.findall(".//failure")


def test_a_run_folder_that_cannot_be_written_changes_no_verdict(cli, tmp_path, here):
    folder = make_folder(tmp_path / "run", seed=1)
    (folder / "gate.json").mkdir()
    answer = cli("gate", folder, "--baseline", "old.json")
    assert answer.code == 0
    assert "not kept for the report" in answer.err


def test_a_file_that_cannot_be_written_is_told(cli, tmp_path, here):
    (tmp_path / "file").write_text("")
    answer = cli("gate", "same", "--baseline", "old.json", "--junit", tmp_path / "file" / "gate.xml")
    assert answer.code == 2
    assert "file: is a file, and a folder is needed there" in answer.err


# --- in a process of its own -----------------------------------------------------------------


def launch(*arguments, **how):
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        **how,
    )


def test_the_process_ends_with_the_code_and_in_20_columns(here):
    env = {**os.environ, "COLUMNS": "20", "PYTHONIOENCODING": "ascii"}
    done = launch("gate", "planted", "--baseline", "old.json", env=env)
    assert done.returncode == 1
    assert "mini-clip\n  outcome: failed\n" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("The gate failed: ")


def test_a_reader_that_leaves_early_does_not_turn_it_green(here):
    command = [sys.executable, "-m", "bench", "gate", "planted", "--baseline", "old.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_neither_verb_imports_the_heavy_packages(here, tmp_path):
    code = (
        "import sys; from bench.cli import run_command_line as run; "
        "codes = [run(line.split()) for line in sys.argv[1:]]; "
        "print(*codes, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    flags = f"--junit {tmp_path}/a --summary {tmp_path}/b --json {tmp_path}/c"
    lines = [f"baseline old -o {tmp_path}/d --by me", f"gate planted --baseline {tmp_path}/d {flags}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    first, second, *imported = done.stderr.splitlines()[-1].split()
    assert (first, second) == ("0", "1")
    assert HEAVY.isdisjoint(imported)


# --- gate.json -------------------------------------------------------------------------------


def test_gate_json_reads_as_it_was_written(tmp_path):
    assert read_gate(tmp_path) is None
    gate = make_gate(make_verdict("fail"), make_verdict("invalid"))
    assert write_gate(tmp_path, gate) == tmp_path / "gate.json"
    assert read_gate(tmp_path) == read_gate(tmp_path / "run.json") == gate


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", 5, "is not a valid gate"),
        ('{"schema": 2}', 5, "missing field outcome"),
        ('{"schema": 1, "schema": 1}', 5, "given twice"),
        ('{"schema": 3}', 4, "of schema 2 only"),
        ("[]", 5, "is not a valid gate"),
    ],
)
def test_a_damaged_gate_json_is_refused(text, code, words, tmp_path):
    (tmp_path / "gate.json").write_text(text)
    with pytest.raises(bench.HotartError, match=words) as refused:
        read_gate(tmp_path)
    assert refused.value.exit_code == code


def test_the_page_is_one_file_that_says_what_was_compared_with_what(here, cli, tmp_path):
    answer = cli("gate", "planted", "--baseline", "old.json", "--page", tmp_path / "gate.html")
    assert answer.code == 1
    page = (tmp_path / "gate.html").read_text(encoding="utf-8")
    assert "Compared: base with base and spo with spo of the frozen baseline old.json, made from run" in page
    assert "Every metric: spo beside spo of the baseline" in page
    for metric in ("mini-clip", "saturation", "contrast"):
        assert f'<th scope="row">{metric}</th>' in page
    assert "nothing in this run to compare it with" not in page


def test_one_variant_against_a_baseline_is_a_comparison(here, cli, tmp_path):
    make_folder(tmp_path / "one", variants=("base",), seed=1)
    cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--variants", "base")
    cli("gate", tmp_path / "one", "--baseline", tmp_path / "b.json", "--page", tmp_path / "gate.html")
    page = (tmp_path / "gate.html").read_text(encoding="utf-8")
    assert "One variant: compared: base with base of the frozen baseline b.json" in page
    assert "nothing in this run to compare it with" not in page


def test_a_page_that_cannot_be_written_changes_no_verdict(here, cli, tmp_path):
    (tmp_path / "file").touch()
    answer = cli("gate", "same", "--baseline", "old.json", "--page", tmp_path / "file" / "gate.html")
    assert answer.code == 0
    assert "--page: " in answer.err
