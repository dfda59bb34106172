import pytest

from bench.cli import run_command_line
from bench.report import write_report
from bench.store import load_run


def test_it_runs_the_swept_suite_in_a_folder_of_its_own(home, stages):
    assert run_command_line(["sweep", "own.toml", "--lora", "spo", "--lora-weights", "0,0.5,2", "-q"]) == 0
    (call,) = stages.calls
    assert call["stage"] == "all"
    assert [variant.name for variant in call["suite"].variants] == ["base", "spo-0.5", "spo-2"]
    assert [variant.loras[0].weight for variant in call["suite"].variants[1:]] == [0.5, 2.0]
    assert call["path"].name == "own-sweep-spo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lora", "spo", "--lora-weights", "0,x"], "'x' is not a number"),
        (["--lora", "spo", "--lora-weights", "0,,1"], "empty name"),
        (["--lora", "spo", "--lora-weights", "nan"], "from -1000 to 1000"),
        (["--lora", "base"], "has no LoRA"),
        (["--lora", "none"], "nor a LoRA file"),
        ([], "--lora"),
        (["--lora", "spo", "--metric", "mini-clip"], "--metric goes with --windows"),
        (["--lora", "spo", "--windows", "3", "--lora-weights", "0,1"], "keeps the LoRA's own weight"),
        (["--lora", "spo", "--windows", "3", "--metric", "mini-clap"], "is not among the metrics"),
        (["--lora", "spo", "--windows", "3", "--metric", "saturation"], "neither end of it is better"),
        (["--lora", "spo", "--windows", "3", "--metrics", "nope", "--metric", "nope"], "'nope'"),
        (["--lora", "spo", "--windows", "99"], "--windows is 99"),
        (["--lora", "spo", "--lora-weights", ""], "empty name"),
    ],
)
def test_bad_weights_and_names_are_refused(home, stages, capsys, arguments, said):
    assert run_command_line(["sweep", "own.toml", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert stages.calls == []


def test_windows_of_a_lora_are_rendered_and_ranked(cli, tiny_run, tmp_path, monkeypatch, blank_plots):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "windows"
    answer = cli(
        "sweep", tiny_run.suite_file, "--lora", "spo", "--windows", "3", "--metric", "mini-clip", "-o", folder,
        "--device", "cpu", "-q", "--metrics", "mini-preference,mini-clip",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "gain in mini-clip" in answer.out
    assert "the Pareto front" in answer.out
    run = load_run(folder)
    assert [one.name for one in run.info.suite.variants[:2]] == ["base", "spo"]
    own = {one.sha256 for one in load_run(tiny_run.folder).renders if one.variant in ("base", "spo")}
    assert {one.sha256 for one in run.renders if one.variant in ("base", "spo")} == own
    page, note = write_report(folder)
    assert "--lora spo --windows 3 --metric mini-clip" in note.read_text("utf-8")
    assert "gain in mini-clip" in page.read_text("utf-8")
