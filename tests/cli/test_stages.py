import errno
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench import errors


def called(stages):
    (call,) = stages.calls
    return call | {"suite": call["suite"].name}


def test_run_without_flags_means_the_whole_suite_in_its_own_folder(cli, stages, home):
    assert cli("run", "own.toml").code == 0
    assert called(stages) == {
        "stage": "all",
        "suite": "own",
        "path": Path("reports/runs/own"),
        "variants": None,
        "metrics": None,
        "device": "auto",
        "fresh": False,
        "weights_dir": None,
        "metric_dtype": None,
        "ray": None,
        "allow_remote": False,
        "steps": None,
        "only": None,
        "notes": (),
    }


def test_every_flag_of_run_arrives(cli, stages, home):
    (home / "w").mkdir()
    flags = "--variants spo,base --metrics sharpness,saturation --device cuda:1 --weights-dir w --fresh -o there"
    assert cli("run", "own.toml", *flags.split()).code == 0
    found = called(stages)
    assert found["variants"] == ("spo", "base")
    assert found["metrics"] == ("sharpness", "saturation")
    assert found["device"] == "cuda:1"
    assert (found["path"], found["weights_dir"], found["fresh"]) == (Path("there"), Path("w"), True)


@pytest.mark.parametrize("verb", ["run", "render"])
def test_a_cluster_and_a_folder_on_a_store_arrive_as_they_were_given(verb, cli, stages, home):
    answer = cli(verb, "own.toml", "--ray", "10.0.0.1:6379", "-o", "s3://bucket/runs/own")
    assert (answer.code, answer.out) == (0, "s3://bucket/runs/own\n")
    assert (called(stages)["ray"], called(stages)["path"]) == ("10.0.0.1:6379", "s3://bucket/runs/own")


def test_the_weights_folder_comes_from_the_environment_too(cli, stages, home, monkeypatch):
    monkeypatch.setenv("HOTART_WEIGHTS", str(home))
    cli("run", "own.toml")
    assert called(stages)["weights_dir"] == home


def test_a_limited_suite_is_another_suite_in_another_folder(cli, stages, home):
    cli("run", "own.toml", "--limit", "1")
    suite = stages.calls[0]["suite"]
    assert (len(suite.prompts), suite.limit) == (1, 1)
    assert called(stages)["path"] == Path("reports/runs/own-limit-1")


def test_a_limit_that_cuts_nothing_is_no_other_suite(cli, stages, home):
    cli("run", "own.toml", "--limit", "2")
    assert called(stages)["path"] == Path("reports/runs/own")


def test_run_prints_its_report_on_stdout_and_everything_else_on_stderr(cli, stages, home):
    (home / "there").mkdir()
    (home / "there" / "report.html").touch()
    stages.outcome = replace(stages.outcome, notes=("LoRAs were fused for the run.",))
    answer = cli("run", "own.toml", "-o", "there")
    assert answer.out == f"{Path('there/report.html')}\n"
    assert "LoRAs were fused for the run.\n" in answer.err
    assert "Done: 24 images, 48 scores, 12 timings in there.\n" in answer.err
    assert "hotart-bench compare there" in answer.err


def test_a_finished_run_is_said_to_be_finished(cli, stages, home):
    stages.outcome = replace(stages.outcome, done_before=True)
    assert "Nothing was left to do: 24 images" in cli("run", "own.toml").err


def test_images_that_are_still_missing_are_counted(cli, stages, home):
    stages.outcome = replace(stages.outcome, missing=3)
    assert "3 images still to render" in cli("render", "own.toml").err


def test_quiet_prints_the_result_alone(cli, stages, home):
    stages.outcome = replace(stages.outcome, notes=("LoRAs were fused for the run.",))
    assert cli("run", "own.toml", "--quiet") == (0, f"{Path('reports/runs/own')}\n", "")


def test_quiet_does_not_hide_failed_images(cli, stages, home):
    stages.outcome = replace(stages.outcome, failed=1, notes=("1 image of 24 failed.",))
    assert cli("run", "own.toml", "--quiet").err == "1 image of 24 failed.\n"


@pytest.mark.parametrize("stage", ["render", "score", "measure", "report"])
def test_a_stage_alone_takes_a_suite_and_its_folder(stage, cli, stages, home):
    assert cli(stage, "own.toml").code == 0
    found = called(stages)
    assert (found["stage"], found["suite"], found["path"]) == (stage, "own", Path("reports/runs/own"))


@pytest.mark.parametrize("stage", ["render", "score", "measure", "report"])
def test_a_stage_alone_takes_a_run_folder_with_the_suite_in_it(stage, cli, stages, run_folder):
    assert cli(stage, run_folder).code == 0
    found = called(stages)
    assert (found["stage"], found["suite"], found["path"]) == (stage, "fake", run_folder)


def test_variants_of_a_run_folder_are_those_of_its_suite(cli, stages, run_folder):
    answer = cli("render", run_folder, "--variants", "sop")
    assert answer.code == 2
    assert "base, dpo, spo (did you mean 'spo'?)" in answer.err


def test_a_shipped_suites_name_is_never_taken_for_a_folder(cli, stages, home, run_folder):
    (home / "sdxl").symlink_to(run_folder)
    answer = cli("score", "sdxl")  # there is nothing to score yet, and somebody may have meant the folder
    assert answer.code == 2
    assert "./sdxl" in answer.err
    assert not stages.calls
    cli("render", "sdxl")
    assert called(stages)["suite"] == "sdxl"
    stages.calls.clear()
    cli("score", "./sdxl")
    assert called(stages)["suite"] == "fake"


CODES = [
    (errors.WeightsError("unet.safetensors is cut short.", "hotart-bench doctor"), 3),
    (errors.IncomparableError("another suite"), 4),
    (errors.InvalidError("all images failed"), 5),
    (errors.MachineError("disk full"), 6),
    (errors.Interrupted("stopped"), 130),
    (OSError(28, "No space left on device"), 6),
    (MemoryError(), 6),
    (KeyboardInterrupt(), 130),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 6),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_an_error_of_the_work_ends_with_its_code_and_no_traceback(error, code, cli, stages, home):
    stages.error = error
    answer = cli("run", "own.toml", "--quiet")
    assert answer.code == code
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(answer.err.splitlines()) == 1 + ("next: " in answer.err)


def test_a_library_that_ends_the_program_with_0_does_not_end_the_verb_with_0(cli, stages, home):
    stages.error = SystemExit(0)
    assert cli("run", "own.toml").code == 70


def test_a_bug_shows_its_traceback_and_where_to_report_it(cli, stages, home):
    stages.error = ZeroDivisionError("division by zero")
    answer = cli("run", "own.toml")
    assert answer.code == 70
    assert "ZeroDivisionError: division by zero" in answer.err
    assert "report it" in answer.err


@pytest.mark.parametrize("verb", ["run", "score"])
def test_the_dtype_of_metrics_arrives(cli, stages, home, verb):
    assert cli(verb, "own.toml", "--metric-dtype", "bfloat16").code == 0
    assert called(stages)["metric_dtype"] == "bfloat16"


def test_an_unknown_dtype_is_refused_with_the_nearest(cli, stages, home):
    answer = cli("score", "own.toml", "--metric-dtype", "float61")
    assert answer.code == 2
    assert "float32, float16, bfloat16" in answer.err
    assert "did you mean" in answer.err.lower()
    assert stages.calls == []


@pytest.mark.parametrize("verb", ["run", "render", "score", "measure"])
def test_what_is_not_taken_of_a_prompt_file_is_said_unless_quiet(verb, cli, home, stages):
    (home / "two.txt").write_text("# mine\na red boat\na red boat\n", encoding="utf-8")
    said = ("two.txt: lines that begin with # are comments: 1.", "two.txt: 1 entry repeats an earlier prompt")
    loud, quiet = cli(verb, "own.toml"), cli(verb, "own.toml", "-q")
    assert [answer.code for answer in (loud, quiet)] == [0, 0]
    for sentence in said:
        assert (loud.err.count(sentence), quiet.err.count(sentence)) == (1, 0)
