"""``vote make``, ``add`` and ``status``, and votes in ``compare``, ``gate`` and the suite."""

from __future__ import annotations

import csv
import io
import json

import pytest
from vote_runs import careful, careless, cast, make_voted, newest_ballot, panel, undecided, write_file

from bench.errors import SuiteError
from bench.suite import load_suite


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """A run on which nine people voted, one of them carelessly."""
    place = tmp_path_factory.mktemp("voted")
    run, _ = make_voted(place)
    ballot = newest_ballot(run)
    answers = [*[undecided] * 6, careful, careful, careless]
    files = [
        write_file(cast(ballot, f"{number:024x}", answer, name=f"v{number}"), place / f"{number}.json")
        for number, answer in enumerate(answers)
    ]
    return run, files


def test_a_page_is_made_and_what_comes_back_is_counted(cli, tmp_path):
    run, _ = make_voted(tmp_path, prompts=3)
    made = cli("vote", "make", run, "-o", tmp_path / "second", "--pairs", "spo:base", "--limit-mb", "5")
    assert (made.code, made.out) == (0, f"{tmp_path}/second/index.html\n")
    assert "6 pairs of 6 images of the plan" in made.err
    assert "KiB" in made.err
    assert f"The key stays in {run}/votes.key.json" in made.err
    added = cli("vote", "add", run, *panel(run, tmp_path / "files", 2))
    assert added.code == 0
    assert "Votes of v00 and v01: 24 new, 0 changed, 0 there already." in added.err
    again = cli("vote", "add", run, tmp_path / "files")
    assert "0 new, 0 changed, 24 there already" in again.err


def test_status_names_who_is_left_out(cli, voted):
    run, files = voted
    assert cli("vote", "add", run, *files, "-q").err == ""
    said = cli("vote", "status", run)
    assert said.code == 0
    assert "v8 took a broken picture for as good or better in 2 of 2 pairs." in said.out
    assert "Votes of people" in said.out
    assert "another voter" in said.out
    assert "Not counted: 1 of 9 voters" in said.out
    assert "vote status" not in said.out, "it does not send to itself"
    assert "hotart-bench vote status names whose votes are not counted." in cli("compare", run).out.replace("\n", " ")
    results = json.loads(cli("vote", "status", run, "--json").out)
    assert len(results["voters"]) == 9
    assert [one["voters"] for one in results["pairs"]] == [8, 8, 8]
    wide, narrow = (cli("vote", "status", run, "--margin", margin).out for margin in ("20", "1"))
    assert "enough" in wide
    assert "votes for ±1" in narrow


def test_a_voters_name_is_no_command_to_a_ci(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "true")
    run, _ = make_voted(tmp_path, prompts=3, variants=("base", "spo"))
    name = "::error::gone\n::error::all"
    file = write_file(cast(newest_ballot(run), "ab" * 12, careless, name=name), tmp_path / "a.json")
    said = [cli("vote", "add", run, file), cli("vote", "status", run)]
    assert [one.code for one in said] == [0, 0]
    for one in said:
        assert "gone ::error::all" in one.out + one.err, "on one line"
        assert not [line for line in (one.out + one.err).splitlines() if line.lstrip().startswith("::")]


def test_compare_shows_votes_in_every_format(cli, voted):
    run, files = voted
    cli("vote", "add", run, *files, "-q")
    table = cli("compare", run).out
    assert "spo against base" in table
    assert "Metrics beside votes" in table
    found = json.loads(cli("compare", run, "--format", "json").out)
    assert found["votes"]["pairs"][0]["candidate"] == "dpo"
    assert any(one["metric"] == "votes" for one in found["findings"][0]["metrics"])
    rows = list(csv.DictReader(io.StringIO(cli("compare", run, "--format", "csv").out)))
    votes = [row for row in rows if row["kind"] == "votes"]
    assert next((row["candidate"], row["name"], row["samples"]) for row in votes) == ("dpo", "votes", str(24 * 8))
    assert {row["name"] for row in rows if row["kind"] == "agreement"} >= {"mini-clip", "always the same answer"}
    assert "Votes of people" in cli("compare", run, "--format", "markdown").out
    assert "Strengths by votes" in cli("compare", run, "--format", "latex").out
    one = cli("compare", run, "--pairs", "spo:base").out
    assert "spo against base" in one
    assert "dpo against base" not in one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vote", "status", "RUN"], "nobody has voted on it"),
        (["vote", "status", "RUN", "--margin", "0"], "--margin: 0 points is not between 0 and 50"),
        (["vote", "make", "RUN", "-o", "p", "--pairs", "spo"], "not of the form CANDIDATE:REFERENCE"),
        (["vote", "make", "RUN", "-o", "p", "--limit-mb", "0"], "--limit-mb"),
        (["vote", "serve", "nowhere"], "is no voting page"),
        (["vote", "add", "RUN", "nowhere.json"], "there is no vote key here"),
        (["vote", "ad"], "did you mean 'add'"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_cannot_be_done_is_said(cli, run_folder, home, words, said):
    answer = cli(*(run_folder if word == "RUN" else word for word in words))
    assert answer.code in (2, 5)
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_suite_may_limit_votes_and_another_form_is_refused(home):
    suite = home / "own.toml"
    text = suite.read_text()
    suite.write_text(f'{text}\n[limits]\nvotes = "0.05"\n')
    (limit,) = load_suite(str(suite)).limits
    assert (limit.name, limit.amount, limit.limited) == ("votes", 0.05, "loss")
    suite.write_text(f'{text}\n[limits]\nvotes = "0.1sd"\n')
    with pytest.raises(SuiteError, match="share of people's votes that may be lost"):
        load_suite(str(suite))


def test_a_gate_notes_that_nobody_voted(cli, tmp_path):
    run, _ = make_voted(tmp_path, prompts=12, variants=("base", "spo"))
    info = json.loads((run / "run.json").read_text())
    limit = {"kind": "absolute", "floor": None, "limited": "loss"}
    clip = {**limit, "name": "mini-clip", "amount": 1.0, "kind": "sd", "text": "1sd"}
    info["suite"]["limits"] = [clip, {**limit, "name": "votes", "text": "0.05", "amount": 0.05}]
    (run / "run.json").write_text(json.dumps(info))
    said = cli("gate", run, "--candidate", "spo", "--reference", "base")
    assert said.code == 0, said.err
    assert "The limit on votes is not judged yet" in said.out + said.err
    cli("vote", "add", run, *panel(run, tmp_path / "files", 8, careful))
    said = cli("gate", run, "--candidate", "spo", "--reference", "base")
    assert said.code == 0
    assert "of 2 verdicts: 2 passed" in said.out
    assert "not judged yet" not in said.out
    few = cli("vote", "make", run, "-o", tmp_path / "again")
    assert few.code == 0
