import pytest

from bench.cli import run_command_line


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
    ],
)
def test_bad_weights_and_names_are_refused(home, stages, capsys, arguments, said):
    assert run_command_line(["sweep", "own.toml", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert stages.calls == []
