"""``steps``: its flags, what it says before and after, and ``--attribute``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.report import write_report
from bench.store import load_run, load_steps
from bench.suite import load_suite


@pytest.fixture
def copied(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run.folder, tmp_path / "run")


def test_a_dry_run_says_the_cost_and_does_nothing(cli, copied):
    answer = cli("steps", copied, "--metrics", "mini-preference,mini-step-aware", "--at", "1,3", "--dry-run")
    assert answer.code == 0
    assert "Steps 1, 3: 12 images drawn, 24 predicted ones decoded, 48 scores" in answer.err
    assert "by its timings" in answer.err
    assert not (copied / "steps.jsonl").exists()


def test_steps_are_scored_told_and_found_again(cli, copied):
    answer = cli("steps", copied, "--metrics", "mini-step-aware", "--at", "every 3", "--device", "cpu", "-q")
    assert answer.code == 0, answer.err
    assert "mini-step-aware: step" in answer.out
    assert "spo - base [95% band]" in answer.out
    assert "final order by mini-preference" in answer.out
    assert len(load_steps(copied)) == 12
    assert (
        "No step score is missing" in cli("steps", copied, "--metrics", "mini-step-aware", "--at", "3", "--dry-run").err
    )


def test_by_default_the_metrics_of_preference_score_every_step(cli, copied):
    answer = cli("steps", copied, "--dry-run")
    assert "Steps 1, 2, 3: 12 images drawn, 36 predicted ones decoded, 36 scores" in answer.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--at", "9"), "There is no step 9"),
        (("--at", "some"), "names no steps"),
        (("--metrics", "mini-preferense"), "There is no metric"),
        (("--metrics", "ssim-to-base"), "compares images with each other"),
        (("--attribute", "base"), "is not one of spo"),
        (("--attribute", "spo", "--windows", "9"), "must be 2 to 3"),
        (("--attribute", "spo", "--at", "1"), "--at goes with step metrics"),
        (("--attribute", "spo", "--variants", "spo"), "--variants goes with step metrics"),
        (("--device", "gpu"), "--device"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, words, cli, copied):
    answer = cli("steps", copied, *flags)
    assert answer.code == 2
    assert words in answer.err
    assert not (copied / "steps.jsonl").exists()


def test_step_metrics_are_listed_with_their_facts(cli):
    rows = [line for line in cli("list", "metrics").out.splitlines() if "at a step  " in line]
    assert len(rows) == 5
    shown = cli("list", "metrics", "lpo-latent-reward-sdxl").out
    assert "casiatao/LRM/lrm_sdxl/state_dict.pt" in shown
    assert any(one["name"] == "mini-step-aware" for one in json.loads(cli("list", "metrics", "--json").out))


def test_attribution_says_its_windows_and_where_the_gain_comes_from(cli, tiny_run, tmp_path, monkeypatch, blank_plots):
    monkeypatch.chdir(tmp_path)
    told = cli("steps", tiny_run.suite_file, "--attribute", "spo", "--windows", "3", "--dry-run")
    assert told.code == 0
    assert "spo runs in steps 1-1, 2-2, 3-3 of 3, up to each and from each on: 7 variants, 42 images" in told.err
    folder = tmp_path / "windows"
    answer = cli(
        "steps", tiny_run.suite_file, "--attribute", "spo", "--windows", "3", "-o", folder, "--device", "cpu", "-q",
        "--metrics", "mini-preference,mini-clip",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "mini-preference: spo in steps" in answer.out
    assert "sum of the windows less the whole" in answer.out
    run = load_run(folder)
    assert run.info.suite.attribution.variant == "spo"
    own = {one.sha256 for one in load_run(tiny_run.folder).renders}
    assert {one.sha256 for one in run.renders if one.variant in ("base", "spo")} == own
    windows = {one.sha256 for one in run.renders if one.variant.startswith("spo-steps")}
    assert windows.isdisjoint(own)
    page, note = write_report(folder)
    assert "--attribute spo --windows 3" in note.read_text("utf-8")
    assert 'id="steps"' in page.read_text("utf-8")


def test_the_run_of_an_attribution_lies_beside_the_run(cli, copied):
    before = load_suite("mini").name  # a shipped suite goes by its name
    answer = cli("steps", copied, "--attribute", "spo", "--windows", "3", "--dry-run")
    assert answer.code == 0
    assert before == "mini"
    assert not Path(f"{copied}-steps-spo").exists()
