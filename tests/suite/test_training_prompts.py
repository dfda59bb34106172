"""Prompts that SPO was trained on: found whatever their case and signs, left out of suites, named in lists."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites import write_suite

from bench.errors import SuiteError
from bench.suite import load_suite, prompts_folder
from bench.suite.training_prompts import LIST, is_training_prompt, normalise, training_prompts_in

# "hand" is a whole prompt of the training set; no test may hold a longer one, which is not ours to publish.
TRAINED_ON = "hand"


@given(st.text())
def test_normalising_keeps_letters_and_digits_alone_and_is_done_once(text: str) -> None:
    plain = normalise(text)
    assert all(sign.isalnum() or unicodedata.combining(sign) for sign in plain)
    assert normalise(f"  {plain.upper()}! ") == normalise(plain.upper())


@given(st.text(alphabet=" .,!?\"'-_()\n\t\U0001f43b", max_size=8))
def test_signs_around_a_training_prompt_do_not_hide_it(signs: str) -> None:
    assert is_training_prompt(f"{signs}HaNd{signs}")
    assert not is_training_prompt(signs)


def test_the_answer_is_that_of_the_list() -> None:
    lines = (prompts_folder() / LIST).read_text().splitlines()
    assert hashlib.sha256(b"hand").hexdigest()[:16] in lines
    assert hashlib.sha256(b"handlantern").hexdigest()[:16] not in lines
    assert not is_training_prompt("hand lantern")
    assert is_training_prompt("\uff28and")  # a full-width letter is the same letter by NFKC


@pytest.mark.parametrize("name", ["mini", "sdxl", "sdxl-paper", "sdxl-fast", "sdxl-vpred", "sd15"])
def test_no_shipped_suite_leaves_anything_out(name: str) -> None:
    suite = load_suite(name)
    assert suite.left_out == () == training_prompts_in(suite.prompts)


def _suite(folder: Path, prompts: list[str], more: str = "") -> str:
    write_suite(folder)
    own = folder / "own.toml"
    lines = [json.dumps({"id": f"prompt-{number}", "prompt": prompt}) for number, prompt in enumerate(prompts)]
    (folder / "trained.jsonl").write_text("\n".join(lines))
    text = own.read_text()
    start = text.index("prompts = [")
    end = text.index("]", start) + 1
    own.write_text(more + text[:start] + 'prompts = ["trained.jsonl"]' + text[end:])
    return str(own)


def test_a_suite_leaves_training_prompts_out_and_says_which(tmp_path: Path) -> None:
    path = _suite(tmp_path, ["a fox in the snow", "Hand!", "a jug"])
    suite = load_suite(path)
    assert [prompt.id for prompt in suite.prompts] == ["prompt-0", "prompt-2"]
    assert suite.left_out == ("prompt-1",)
    assert load_suite(path, limit=2).limit is None  # the limit counts what is left


def test_a_suite_may_keep_them(tmp_path: Path) -> None:
    suite = load_suite(_suite(tmp_path, ["a fox in the snow", TRAINED_ON], "keep_training_prompts = true\n"))
    assert len(suite.prompts) == 2
    assert suite.left_out == ()
    assert training_prompts_in(suite.prompts) == ("prompt-1",)


def test_a_suite_of_nothing_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="every prompt"):
        load_suite(_suite(tmp_path, [TRAINED_ON]))


def test_list_prompts_names_them(tmp_path: Path, cli) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id":"one","prompt":"hand"}\n{"id":"two","prompt":"a hand lantern"}\n')
    (row,) = json.loads(cli("list", "prompts", path, "--json").out)
    assert row["spo_training_prompts"] == ["one"]
    table = cli("list", "prompts", path).out
    assert "\n  one\n" in table
    assert "two" not in table


def test_doctor_names_them(tmp_path: Path, cli) -> None:
    found = json.loads(cli("doctor", _suite(tmp_path, ["a fox", "hand"]), "--json", "--device", "cpu").out)
    assert (found["left_out"], found["trained_on"]) == (["prompt-1"], [])
