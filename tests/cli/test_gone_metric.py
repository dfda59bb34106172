"""A run that names a metric which is not installed here: what needs records alone is done, scoring says what lacks."""

from __future__ import annotations

import json

import pytest
from fakes import make_run, write_run
from msgspec.structs import replace

from bench.store import load_run
from bench.suite import protocol_digest
from bench.suite.limits import parse_limit

GONE = "their-own"


@pytest.fixture
def folder(tmp_path):
    """A finished run whose aesthetic metric came from a plug-in that is not here any more."""

    def named(name):
        return GONE if name == "mini-aesthetic" else name

    run = make_run(tmp_path / "run", prompts=30, samples=1)
    metrics = tuple(named(name) for name in run.info.suite.metrics)
    suite = replace(run.info.suite, metrics=metrics, limits=(parse_limit(GONE, "5sd"),))
    facts = tuple(replace(one, name=named(one.name)) for one in run.info.metrics)
    info = replace(run.info, suite=suite, metrics=facts, protocol_digest=protocol_digest(suite))
    scores = tuple(replace(one, metric=named(one.metric)) for one in run.scores)
    return write_run(replace(run, info=info, scores=scores), tmp_path / "run")


def test_the_report_is_written_from_the_records_and_changes_none(cli, folder):
    before = load_run(folder).info
    answer = cli("report", folder)
    assert answer.code == 0, answer.err
    assert GONE in (folder / "report.html").read_text("utf-8")
    assert load_run(folder).info.metrics == before.metrics
    assert load_run(folder).info.suite == before.suite


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "--metrics", GONE),
        ("plot",),
        ("gate", "--candidate", "spo", "--reference", "base"),
        ("baseline", "--by", "Ada", "-o", "b.json"),
    ],
)
def test_what_reads_records_needs_no_metric(cli, folder, words, monkeypatch):
    monkeypatch.chdir(folder.parent)
    answer = cli(words[0], folder, *words[1:])
    assert answer.code == 0, answer.err


def test_a_run_with_a_lost_score_of_it_is_called_complete_no_more(cli, folder):
    lines = (folder / "scores.jsonl").read_text("utf-8").splitlines(keepends=True)
    first = next(line for line in lines if json.loads(line)["metric"] == GONE)
    (folder / "scores.jsonl").write_text("".join(line for line in lines if line != first), "utf-8")
    assert cli("report", folder).code == 0
    assert load_run(folder).info.status == "started"


def test_another_metric_is_scored_all_the_same_and_the_gone_one_is_refused_by_name(cli, folder):
    answer = cli("score", folder, "--metrics", "saturation", "--variants", "base")
    assert answer.code == 0, answer.err
    assert GONE in {facts.name for facts in load_run(folder).info.metrics}
    answer = cli("score", folder)
    assert answer.code == 2
    assert f"no metric '{GONE}'" in answer.err
