"""Near matches in error sentences."""

from __future__ import annotations

import time

import pytest
from fakes import make_run
from msgspec.structs import replace

from bench.formatting import did_you_mean, making
from bench.records import ExternalImages


@pytest.mark.parametrize(
    ("word", "allowed", "said"),
    [
        ("stpes", ["steps", "seed"], " (did you mean 'steps'?)"),
        ("Steps", ["steps"], " (did you mean 'steps'?)"),
        ("steps", ["steps"], ""),
        ("nothing", ["steps"], ""),
    ],
)
def test_the_nearest_name_is_meant_and_never_the_word_itself(word: str, allowed: list[str], said: str) -> None:
    assert did_you_mean(word, allowed) == said


def test_a_word_of_a_megabyte_is_near_nothing_at_once() -> None:
    start = time.monotonic()
    assert did_you_mean("stpes" * 200_000, ["steps" * 2000, "seed"]) == ""
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (None, "hotart-bench run 'my suite.toml'"),
        (ExternalImages(images="my pictures", prompts="t.csv"), "score --images 'my pictures' --prompts t.csv"),
        (ExternalImages(images="pictures", prompts=""), "hotart-bench score --images pictures"),
    ],
)
def test_a_run_is_made_by_the_command_for_its_images(given: ExternalImages | None, command: str) -> None:
    suite = replace(make_run("run", prompts=1).info.suite, source="my suite.toml", external_images=given)
    assert making(suite).endswith(command)
