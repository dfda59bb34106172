"""``quick``: what it writes, runs, goes on with and refuses; once for real, on the embedded family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.metrics.catalogue import ENTRIES
from bench.store import load_run
from bench.suite import load_suite

MINI = ("--checkpoint", "mini", "--lora", "mini:spo")
HERE = Path("reports/runs/quick-mini-spo")


def test_it_runs_every_stage_on_16_prompts_beside_its_suite(cli, stages, home):
    answer = cli("quick", *MINI, "--device", "cpu")
    assert answer.code == 0, answer.err
    (call,) = stages.calls
    assert (call["stage"], call["path"], call["device"], call["notes"]) == ("all", HERE, "cpu", ())
    suite = call["suite"]
    assert [(one.name, [lora.path for lora in one.loras]) for one in suite.variants] == [
        ("mini", []),
        ("mini-spo", ["mini:spo"]),
    ]
    assert (len(suite.prompts), suite.samples, suite.measure.rounds) == (16, 1, 0)
    assert suite == load_suite(f"{HERE}.toml")
    assert f"hotart-bench run {HERE}.toml" in answer.err
    assert "2 variants (mini and mini-spo) of the embedded family, 16 prompts: 32 images." in answer.err


def test_a_runtime_is_a_variant_like_any_other(cli, stages, home):
    assert cli("quick", "--checkpoint", "mini", "--runtime", "deepcache:3").code == 0
    (call,) = stages.calls
    assert [(one.name, one.runtime) for one in call["suite"].variants] == [
        ("mini", None),
        ("mini-deepcache-3", "deepcache:3"),
    ]
    assert call["path"] == Path("reports/runs/quick-mini-deepcache-3")
    refused = cli("quick", "--checkpoint", "mini", "--runtime", "deepcache:20")
    assert refused.code == 2
    assert "with 20 steps, deepcache:20 never refreshes its cache; an interval of 2 to 19" in refused.err


def test_limit_takes_both_kinds_and_another_folder(cli, stages, home):
    assert cli("quick", *MINI, "--limit", "4").code == 0
    (call,) = stages.calls
    assert call["path"] == Path(f"{HERE}-limit-4")
    assert [one.tags[0] for one in call["suite"].prompts] == ["portrait", "landscape"] * 2
    assert Path(f"{HERE}.toml").is_file()


@pytest.mark.parametrize(
    ("output", "suite_file"),
    [
        ("runs/look", "runs/look.toml"),
        ("s3://bucket/runs/look", "reports/runs/look.toml"),
        ("look-0.5", "look-0.5.toml"),
    ],
)
def test_the_suite_lies_beside_the_run_wherever_that_is(cli, stages, home, output, suite_file):
    assert cli("quick", *MINI, "-o", output).code == 0
    assert str(stages.calls[0]["path"]) == output
    assert (home / suite_file).is_file()
    assert (home / suite_file).with_name(f"{Path(suite_file).stem}.jsonl").is_file()


def test_the_next_command_goes_on_in_the_folder_that_was_named(cli, stages, home):
    assert "hotart-bench run runs/look.toml -o runs/look\n" in cli("quick", *MINI, "-o", "runs/look").err
    limited = cli("quick", *MINI, "-o", "runs/few", "--limit", "2")
    assert "hotart-bench run runs/few.toml -o runs/few --limit 2\n" in limited.err
    assert "up to 8 portraits" in (home / "runs/few.toml").read_text("utf-8")


def test_the_same_command_again_is_taken_and_a_changed_file_is_not(cli, stages, home):
    assert cli("quick", *MINI).code == cli("quick", *MINI).code == 0
    path = Path(f"{HERE}.toml")
    written = path.read_text("utf-8")
    # Metrics whose weights have come since are no change of the user's.
    path.write_text(written.replace('  "mini-clip",\n', ""), "utf-8")
    assert cli("quick", *MINI).code == 0
    assert path.read_text("utf-8") == written
    path.write_text(written.replace("steps = 20", "steps = 21"), "utf-8")
    refused = cli("quick", *MINI)
    assert refused.code == 2
    assert "is not what this command would write" in refused.err
    assert f"hotart-bench run {HERE}.toml" in refused.err
    assert "steps = 21" in path.read_text("utf-8")
    anew = cli("quick", *MINI, "--fresh")
    assert anew.code == 0
    assert "quick-mini-spo.toml.old" in anew.err
    assert path.read_text("utf-8") == written
    assert "steps = 21" in Path(f"{path}.old").read_text("utf-8")
    Path(f"{HERE}.jsonl").write_text('{"id": "a", "prompt": "b"}\n', "utf-8")
    assert cli("quick", *MINI).code == 2
    assert len(stages.calls) == 4


def test_metrics_without_weights_are_left_out_and_fetch_is_named(cli, stages, home, tmp_path):
    empty = tmp_path / "weights"
    empty.mkdir()
    answer = cli("quick", "--checkpoint", "random:sdxl", "--weights-dir", empty, "--device", "cpu")
    assert answer.code == 0, answer.err
    (call,) = stages.calls
    assert "saturation" in call["suite"].metrics
    assert "pickscore" not in call["suite"].metrics
    (note,) = call["notes"]
    assert note.startswith("Not scored, since their weights are not here: ")
    assert "hotart-bench fetch reports/runs/quick-sdxl.toml --metrics clip-l14," in note
    assert note in answer.err
    assert "drawn on the CPU" in answer.err
    assert "nothing to compare it with" in answer.err


def test_metrics_whose_weights_are_here_are_scored(cli, stages, home, tmp_path):
    for entry in ENTRIES:
        for file in entry.files:
            place = tmp_path / "weights" / entry.repository / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    (tmp_path / "old.safetensors").touch()
    answer = cli("quick", "--checkpoint", "random:sdxl", "--weights-dir", tmp_path / "weights", "--quiet")
    assert answer.code == 0, answer.err
    assert {"pickscore", "clip-l14", "face-found"} <= set(stages.calls[0]["suite"].metrics)
    assert stages.calls[0]["notes"] == ()


def test_a_dry_run_says_the_cost_and_leaves_nothing(cli, stages, home):
    before = sorted(home.rglob("*"))
    answer = cli("quick", *MINI, "--dry-run", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "2 variants x 16 images: 32 images, 32 of them to draw, at most 384 KiB on the disk." in answer.err
    assert "not known for this device and model" in answer.err
    assert sorted(home.rglob("*")) == before
    assert stages.calls == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--checkpoint", "olf.safetensors"], 3, "did you mean 'old.safetensors'?"),
        (["--checkpoint", r"C:\old.safetensors"], 3, "no such file here"),
        (["--checkpoint", "mini", "--lora", "mini:spoo"], 3, "mini:spoo"),
        (["--checkpoint", "mini", "--lora", "gone.safetensors:0.8"], 3, "gone.safetensors"),
        (["--checkpoint", "mini", "--device", "gpu"], 2, "--device"),
        (["--checkpoint", "mini", "--limit", "0"], 2, "--limit is 0"),
        (["--checkpoint", "mini", "-o", "."], 2, "names no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(cli, stages, home, arguments, code, said):
    (home / "old.safetensors").touch()
    before = sorted(home.rglob("*"))
    answer = cli("quick", *arguments)
    assert answer.code == code
    assert said in answer.err
    assert sorted(home.rglob("*")) == before
    assert stages.calls == []


def test_on_the_embedded_family_it_ends_with_a_report_and_goes_on(cli, home, blank_plots):
    answer = cli("quick", *MINI, "--limit", "2", "--device", "cpu")
    assert answer.code == 0, answer.err
    folder = home / f"{HERE}-limit-2"
    assert answer.out == f"{HERE}-limit-2/report.html\n"
    run = load_run(folder)
    assert (run.info.status, len(run.renders), run.timings) == ("complete", 4, ())
    assert {score.metric for score in run.scores} >= {"mini-preference", "ssim-to-base"}
    assert "mini-spo" in (folder / "report.html").read_text("utf-8")
    assert "hotart-bench compare" in answer.err
    again = cli("quick", *MINI, "--limit", "2", "--device", "cpu")
    assert "Nothing was left to do" in again.err
    assert "0 of them to draw (4 done already)" in cli("quick", *MINI, "--limit", "2", "--dry-run").err
    info = json.loads((folder / "run.json").read_text("utf-8"))
    assert info["suite"]["source"] == f"{HERE}.toml"
