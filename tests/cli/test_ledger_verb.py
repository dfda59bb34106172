"""``ledger``, and the verbs that note what they did: each says so, and none without a ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_merge_verb import files, there  # noqa: F401 -- fixtures
from vote_runs import make_voted, panel

from bench.ledger import read_ledger


def test_merge_notes_the_file_its_inputs_and_the_recipe(there, cli) -> None:  # noqa: F811
    answer = cli("merge", "r.toml", "-o", "out.safetensors", "--ledger", "l.jsonl")
    assert answer.code == 0
    assert "Noted in l.jsonl: out.safetensors was merged from 3 files by r.toml." in answer.err
    (entry,) = read_ledger(Path("l.jsonl")).entries
    assert (entry.files[0].role, entry.files[0].name) == ("output", "out.safetensors")
    assert {one.name for one in entry.files} == {
        "out.safetensors",
        "a.safetensors",
        "b.safetensors",
        "lora.safetensors",
    }
    assert json.loads(entry.facts["recipe"])["method"] == "weighted_sum"
    again = cli("merge", "r.toml", "-o", "out.safetensors", "--ledger", "l.jsonl", "--force")
    assert "l.jsonl has it already" in again.err
    assert len(read_ledger(Path("l.jsonl")).entries) == 1


def test_inspect_finds_a_files_entries_beside_it(there, cli) -> None:  # noqa: F811
    cli("merge", "r.toml", "-o", "out.safetensors", "--ledger", "ledger.jsonl")
    for name in ("out.safetensors", "b.safetensors"):
        answer = cli("inspect", name, "--quiet")
        assert "In the ledger ledger.jsonl: 1 entry" in answer.out
        assert "out.safetensors was merged" in answer.out
    found = json.loads(cli("inspect", "a.safetensors", "--json").out)
    assert [one["event"] for one in found["ledger"]] == ["built"]
    other = cli("inspect", "mini:spo", "--ledger", "ledger.jsonl")
    assert "In the ledger ledger.jsonl: no entry" in other.out


def test_without_a_ledger_none_is_made(there, cli) -> None:  # noqa: F811
    answer = cli("merge", "r.toml", "-o", "out.safetensors")
    assert "Noted" not in answer.err
    assert not list(there.glob("*.jsonl"))
    assert "ledger" not in cli("inspect", "out.safetensors", "--quiet").out.lower()


def test_baseline_and_gate_add_to_the_ledger_beside_the_baseline(cli, here, tmp_path) -> None:
    file = tmp_path / "b.json"
    (tmp_path / "ledger.jsonl").touch()
    assert "Noted in" in cli("baseline", "old", "-o", file, "--by", "Ann", "--why", "v1").err
    answer = cli("gate", "planted", "--baseline", file)
    assert answer.code == 1
    assert "The run planted was gated against b.json: fail." in answer.err
    accepted, tried = read_ledger(tmp_path / "ledger.jsonl").entries
    assert (accepted.event, accepted.by, accepted.facts["why"]) == ("accepted", "Ann", "v1")
    assert (tried.event, tried.facts["outcome"]) == ("tried", "fail")
    assert tried.facts["baseline"] == accepted.facts["checksum"]
    assert {one.role for one in tried.files} >= {"lora:0 of spo"}


def test_a_damaged_ledger_changes_no_verdict(cli, here, tmp_path) -> None:
    file = tmp_path / "b.json"
    cli("baseline", "old", "-o", file, "--by", "Ann")
    (tmp_path / "ledger.jsonl").write_text("damaged\n")
    answer = cli("gate", "same", "--baseline", file)
    assert answer.code == 0
    assert "The gate is not noted in the ledger" in answer.err


def test_run_notes_its_variants(stages, home, cli, run_folder) -> None:
    answer = cli("run", "own.toml", "-o", run_folder, "--ledger", "l.jsonl")
    assert answer.code == 0
    (entry,) = read_ledger(Path("l.jsonl")).entries
    assert entry.event == "tried"
    assert entry.facts["run"] == "fake-0000"
    assert "base, dpo and spo (8 prompts x 2 samples)" in entry.what


def test_sweep_and_grid_note_their_runs(stages, home, cli, run_folder, monkeypatch) -> None:
    answer = cli("sweep", "own.toml", "--lora", "spo", "-o", run_folder, "--ledger", "l.jsonl")
    assert answer.code == 0
    assert "Noted in l.jsonl" in answer.err
    assert cli("ledger", "show", "l.jsonl", "--json").out.count('"tried"') == 1


def test_a_damaged_ledger_stops_work_that_is_to_be_noted_before_it_begins(there, cli) -> None:  # noqa: F811
    Path("l.jsonl").write_text("damaged\n")
    answer = cli("merge", "r.toml", "-o", "out.safetensors", "--ledger", "l.jsonl")
    assert answer.code == 5
    assert "l.jsonl:1: is not an entry of a ledger" in answer.err
    assert not Path("out.safetensors").exists()


def test_votes_are_noted_without_names(cli, tmp_path) -> None:
    run, _ = make_voted(tmp_path, prompts=3)
    answer = cli("vote", "add", run, *panel(run, tmp_path / "files", 2), "--ledger", tmp_path / "l.jsonl")
    assert answer.code == 0
    (entry,) = read_ledger(tmp_path / "l.jsonl").entries
    assert (entry.event, entry.what) == ("voted", "56 votes of 2 voters on a run of fake were added.")
    assert "v00" not in (tmp_path / "l.jsonl").read_text()
    cli("vote", "add", run, tmp_path / "files", "--ledger", tmp_path / "l.jsonl")
    assert len(read_ledger(tmp_path / "l.jsonl").entries) == 1


def test_show_and_merge(cli, tmp_path, monkeypatch, here) -> None:
    for name in ("a", "b"):
        cli("baseline", "old", "-o", tmp_path / f"{name}.json", "--by", name, "--ledger", tmp_path / f"{name}.jsonl")
    out = tmp_path / "all.jsonl"
    answer = cli("ledger", "merge", tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "a.jsonl", "-o", out)
    assert (answer.code, answer.out) == (0, f"{out}\n")
    assert "Done: 2 entries, 1 double left out." in answer.err
    shown = json.loads(cli("ledger", "show", out, "--json").out)
    assert [one["event"] for one in shown] == ["accepted", "accepted"]
    digest = shown[0]["files"][0]["sha256"]
    assert len(json.loads(cli("ledger", "show", out, "--hash", digest[:12], "--json").out)) == 1
    assert "No entry of a file whose sha256 begins with 000000." in cli("ledger", "show", out, "--hash", "000000").out
    assert "accepted" in cli("ledger", "show", out).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "gone.jsonl"), "there is no ledger here"),
        (("merge", "a", "-o", "b"), "two or more are merged"),
        (("shwo", "x"), "did you mean 'show'?"),
    ],
)
def test_wrong_usage_ends_with_2(cli, tmp_path, monkeypatch, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("ledger", *arguments)
    assert answer.code == 2
    assert said in answer.err


def test_a_torn_line_is_told(cli, tmp_path, here) -> None:
    path = tmp_path / "l.jsonl"
    cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--ledger", path)
    path.write_bytes(path.read_bytes() + b'{"sch')
    assert "its last line was cut short" in cli("ledger", "show", path).err
