"""``init``: the suite file that it writes, and what it does not overwrite."""

from __future__ import annotations

import tomllib

import pytest

from bench.suite import load_suite


def test_it_writes_a_suite_that_loads_and_says_what_was_assumed(cli, home):
    answer = cli(
        *("init", "--checkpoint", "old.safetensors", "--checkpoint", r"D:\m\new.safetensors"),
        *("--lora", r"C:\x.safetensors:0.8", "-o", "suites/mine.toml"),
    )
    assert (answer.code, answer.out) == (0, "suites/mine.toml\n"), answer.err
    text = (home / "suites" / "mine.toml").read_text("utf-8")
    assert r"checkpoint = 'D:\m\new.safetensors'" in text
    assert r"loras = [{ path = 'C:\x.safetensors', weight = 0.8 }]" in text
    assert tomllib.loads(text)["variants"]["old"] == {"checkpoint": "../old.safetensors"}
    suite = load_suite("suites/mine.toml")
    assert [one.name for one in suite.variants] == ["old", "new", "old-x-0.8", "new-x-0.8"]
    assert "4 variants (old, new, old-x-0.8 and new-x-0.8) of SDXL, 282 prompts: 2,256 images." in answer.err
    assert "old.safetensors: there is no such file here." in answer.err
    assert "taken for SDXL" in answer.err
    assert "hotart-bench run suites/mine.toml" in answer.err


def test_a_file_that_is_there_is_replaced_with_force_alone(cli, home):
    kept = (home / "own.toml").read_bytes()
    answer = cli("init", "--checkpoint", "mini", "-o", "own.toml")
    assert answer.code == 2
    assert "own.toml: is there already" in answer.err
    assert "--force" in answer.err
    assert (home / "own.toml").read_bytes() == kept
    assert cli("init", "--checkpoint", "mini", "-o", "own.toml", "--force").code == 0
    assert load_suite("own.toml").prompt_files == ("mini.jsonl",)


def test_it_has_a_place_of_its_own(cli, home):
    answer = cli("init", "--checkpoint", "mini", "--lora", "mini:spo")
    assert (answer.code, answer.out) == (0, "my-suite.toml\n")
    assert "Weight 1.0 for mini:spo" in answer.err
    assert load_suite("my-suite.toml").name == "my-suite"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing option '--checkpoint'"),
        (["--checkpoint", "mini", "-o", "mine.tml"], 2, "give -o mine.toml"),
        (["--checkpoint", "mini", "--checkpoint", "mini"], 2, "mini is given twice"),
        (["--checkpoint", "mini", "--checkpoint", "random:sd15"], 2, "it takes one family"),
        (["--checkpoint", "mini", "--lora", "x.safetensors:0,8"], 2, "x.safetensors:0.8"),
        (["--checkpoint", "old.ckpt"], 3, "is a pickle"),
        (["--checkpoint", ""], 2, "names nothing"),
        (["--checkpoint", "mini", "--weights-dir", "nowhere"], 2, "is not a folder"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(cli, home, arguments, code, said):
    before = sorted(home.rglob("*"))
    answer = cli("init", *arguments)
    assert answer.code == code
    assert said in answer.err
    assert "  next: " in answer.err
    assert sorted(home.rglob("*")) == before
