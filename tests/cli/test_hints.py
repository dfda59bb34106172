"""Hints are commands that work, whatever a folder or file is called, and lead on and not back."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from commands_in_text import wrong_commands
from fakes import make_run, write_run
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.errors import UsageError
from bench.formatting import argument, making
from bench.plan.pilot import choose_pairs
from bench.records import Attribution, ExternalImages, Sweep

PACKAGE = Path(__file__).parents[2] / "bench"
ODD = ["-x", "--fresh", "a b", "it's", "$HOME", "a;b", "ü*"]


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_an_argument_is_one_word_of_a_shell_and_no_flag(text):
    (word,) = shlex.split(argument(text))
    assert word.removeprefix("./") == text.removeprefix("./")
    assert not word.startswith("-")


def texts_of(path):
    """Every string of a module, each with its place; of one with values in it, the values as a word."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
            yield f"{path.name}:{node.lineno}", "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield f"{path.name}:{node.lineno}", node.value


def test_every_command_in_the_code_is_one_of_the_command_line():
    found = {
        place: wrong
        for path in PACKAGE.rglob("*.py")
        for place, text in texts_of(path)
        if "hotart-bench x" not in text and (wrong := wrong_commands(text))
    }
    assert found == {}


def test_the_reader_of_commands_finds_what_is_wrong():
    assert wrong_commands("do: hotart-bench compare 'a b' --format json; hotart-bench list suites") == []
    assert wrong_commands("hotart-bench compar x") == ["hotart-bench compar x"]
    assert wrong_commands("hotart-bench list suits") == ["hotart-bench list suits"]
    assert wrong_commands("hotart-bench score x --metric y, and more") == ["hotart-bench score x --metric y"]
    assert wrong_commands("hotart-bench score 'it'\"'\"'s;' --bad") == ["hotart-bench score 'it'\"'\"'s;' --bad"]


def next_command(answer):
    """The words of the command that the last line hints at."""
    hint = answer.err.splitlines()[-1]
    assert hint.startswith("  next: "), answer.err
    return shlex.split(re.sub(r"^.*?hotart-bench ", "", hint))


@pytest.mark.parametrize("name", ODD)
def test_hints_name_a_folder_of_any_name_so_that_they_work(cli, home, name):
    folder = home / name
    write_run(make_run(name, prompts=6), folder)
    given = f"./{name}"
    again = next_command(cli("run", given))
    assert again[0] == "run"
    assert again[-2:] == ["-o", f"./{name}" if name.startswith("-") else name] or again[-1] == given
    answer = cli("compare", given, "--json")
    assert cli(*next_command(answer)).code == 0
    answer = cli("compare", given, "--tag", "portrat")
    assert cli(*next_command(answer)).code == 0
    answer = cli("compare", given, given)
    assert cli(*next_command(answer)).code == 0
    answer = cli("gate", given, "--candidate", "spo", "--reference", "spo")
    assert answer.code == 2


@pytest.mark.parametrize("verb", [["compare"], ["plot"], ["gate", "--baseline", "x"], ["baseline", "-o", "new.json"]])
def test_a_suite_where_a_run_folder_is_meant_is_told_with_the_folder(cli, home, verb):
    (home / "x").write_text("", "utf-8")
    answer = cli(verb[0], "mini", *verb[1:])
    assert answer.code == 2
    assert "mini is a shipped suite; name its run folder, by default reports/runs/mini" in answer.err
    answer = cli(verb[0], "own.toml", *verb[1:])
    assert "own.toml is a suite file; name its run folder, by default reports/runs/" in answer.err


@pytest.mark.parametrize("command", [["report"], ["report", "--folder"], ["score"]])
def test_a_run_folder_that_is_called_like_a_suite_is_named_where_the_suite_has_no_run(cli, home, blank_plots, command):
    write_run(make_run("mini", prompts=2), home / "mini")
    answer = cli(command[0], "mini", *command[1:])
    assert answer.code == 2
    assert "reports/runs/mini: there is no run here; mini is a shipped suite" in answer.err
    assert "name the run folder that is here: ./mini" in answer.err
    assert not (home / "reports" / "runs" / "mini").exists()
    if command[0] == "report":
        assert cli(command[0], "./mini", *command[1:]).code == 0


@pytest.mark.parametrize("verb", ["render", "score", "measure", "report"])
def test_what_is_neither_a_run_nor_a_suite_is_told_with_both(cli, home, verb):
    answer = cli(verb, "min")
    assert answer.code == 2
    for words in ("'min' is neither a run folder, nor a shipped suite (mini", "(did you mean 'mini'?)", ".toml file"):
        assert words in answer.err


def test_a_plan_from_a_run_of_one_variant_does_not_hint_at_making_that_run_again():
    with pytest.raises(UsageError, match="has only the variant base") as refused:
        choose_pairs(make_run("one", prompts=2, variants=("base",)), None, None)
    assert "hotart-bench" not in refused.value.hint
    assert "a second variant" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"source": "my suites/a.toml"}, "hotart-bench run 'my suites/a.toml'"),
        ({"source": ""}, "hotart-bench run fake"),
        (
            {"external_images": ExternalImages(images="-pics", prompts="a b.csv")},
            "hotart-bench score --images ./-pics --prompts 'a b.csv'",
        ),
        (
            {"sweep": Sweep(lora="spo", weights=(0.0, 1 / 3), variants=("a", "b"))},
            "hotart-bench sweep fake --lora spo --lora-weights 0,",
        ),
        (
            {"attribution": Attribution(variant="spo", windows=(), lora="my lora", gain="m")},
            "hotart-bench sweep fake --lora 'my lora' --windows 0 --metric m",
        ),
    ],
)
def test_the_command_that_makes_a_run_again_is_that_of_its_kind(changes, command):
    suite = replace(make_run("one", prompts=2).info.suite, **changes)
    assert making(suite).startswith(command)
    assert wrong_commands(making(suite)) == []
