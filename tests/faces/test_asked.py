"""How many faces a prompt asks for, by its tags."""

from __future__ import annotations

import pytest

from bench.faces.asked import faces_asked
from bench.records import FacesAsked
from bench.suite import prompts_folder
from bench.suite.prompt_files import read_prompts


@pytest.mark.parametrize(
    ("tags", "least", "most"),
    [
        (("portrait",), 1, 1),
        (("person", "night"), 1, 1),
        (("portrait", "group", "child"), 2, None),
        (("group",), 2, None),
        (("portrait", "faces-3"), 3, 3),
        (("landscape", "faces-1"), 1, 1),
        (("group", "faces-12"), 12, 12),
    ],
)
def test_person_and_portrait_ask_for_one_group_for_two_or_more_and_a_number_for_itself(
    tags: tuple[str, ...], least: int, most: int | None
) -> None:
    assert faces_asked(tags) == FacesAsked(least=least, most=most)


@pytest.mark.parametrize(
    "tags",
    [(), ("people", "hands"), ("landscape", "person"), ("animal",), ("portrait", "faces-0"), ("faces-", "faces-x")],
)
def test_other_prompts_ask_for_none(tags: tuple[str, ...]) -> None:
    assert faces_asked(tags) is None


def test_every_shipped_portrait_asks_for_faces_and_no_landscape_does() -> None:
    portraits, landscapes = (read_prompts(prompts_folder() / f"{name}.jsonl") for name in ("portraits", "landscapes"))
    assert all(faces_asked(prompt.tags) for prompt in portraits)
    assert not any(faces_asked(prompt.tags) for prompt in landscapes)
