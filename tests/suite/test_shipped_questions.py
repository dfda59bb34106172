"""The questions of the shipped prompt sets keep the rules of docs/questions.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bench.mini import world
from bench.mini.questions import questions_of
from bench.records import Prompt
from bench.suite import read_prompts

PROMPTS = Path(__file__).parents[2] / "prompts"
PAGE = (PROMPTS.parent / "docs" / "questions.md").read_text(encoding="utf-8")
SETS = ("binding", "people", "portraits", "mini")
SKILLS = {"object", "attribute", "count", "position", "action", "absence", "text"}


@pytest.fixture(params=SETS)
def prompts(request: pytest.FixtureRequest) -> tuple[Prompt, ...]:
    return read_prompts(PROMPTS / f"{request.param}.jsonl")


def test_every_prompt_of_such_a_set_has_three_questions_or_more(prompts: tuple[Prompt, ...]) -> None:
    assert {prompt.id: len(prompt.questions) for prompt in prompts if len(prompt.questions) < 3} == {}


def test_every_question_names_a_known_skill_and_is_a_question(prompts: tuple[Prompt, ...]) -> None:
    for prompt in prompts:
        for question in prompt.questions:
            assert question.skill in SKILLS, prompt.id
            assert re.fullmatch(r"[A-Z].{5,100}\?", question.text), question.text
            assert (question.skill == "absence") <= (question.answer in ("no", "yes")), question.text
            assert (question.answer == "no") <= (question.skill == "absence"), question.text


def test_a_count_is_asked_as_one_and_answered_by_a_number(prompts: tuple[Prompt, ...]) -> None:
    for prompt in prompts:
        for question in prompt.questions:
            asked = question.text.startswith(("How many", "In how many"))
            assert asked == (question.skill == "count"), question.text


@pytest.mark.parametrize("name", SETS)
def test_the_page_gives_how_many_questions_there_are(name: str) -> None:
    lines = (PROMPTS / f"{name}.questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"`{name}` ({len(lines)})" in PAGE
    assert Counter(tuple(json.loads(line))[:3] for line in lines) == {("id", "question", "answer"): len(lines)}


def test_the_questions_of_the_embedded_world_are_those_of_its_grammar() -> None:
    captions = {
        world.caption(kind, content, template): (kind, content)
        for kind in world.KINDS
        for content in world.combinations(kind)
        for template in range(len(world.TEMPLATES[kind]))
    }
    for prompt in read_prompts(PROMPTS / "mini.jsonl"):
        assert prompt.questions == questions_of(*captions[prompt.text])
