"""Soft-TIFA's two means, and what the version of a metric of questions is made of."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from fakes import make_run
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import Inputs, all_facts
from bench.questions.metrics import identity_of, questions_digest, soft_tifa_am, soft_tifa_gm
from bench.questions.registry import registry_of_suite
from bench.records import Judge, Prompt, Question, Suite

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "soft_tifa.json").read_text())


def means(answers: list[float]) -> tuple[float, float]:
    import torch

    inputs = Inputs(("",), torch.empty(0), answers=tuple(answers))
    return float(soft_tifa_am(inputs)), float(soft_tifa_gm(inputs))


def test_the_means_are_those_of_the_official_estimator() -> None:
    found = [means(prompt["answer_probability"]) for prompt in GOLDEN["input"]]
    expected = GOLDEN["expected"]
    assert [am for am, _ in found] == pytest.approx(expected["am_per_prompt"], abs=1e-6)
    assert [gm for _, gm in found] == pytest.approx(expected["gm_per_prompt"], abs=1e-6)
    assert 100 * sum(am for am, _ in found) / len(found) == pytest.approx(expected["soft_tifa_am"], abs=1e-4)
    assert 100 * sum(gm for _, gm in found) / len(found) == pytest.approx(expected["soft_tifa_gm"], abs=1e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_geometric_mean_lies_between_the_smallest_answer_and_the_arithmetic_mean(answers: list[float]) -> None:
    am, gm = means(answers)
    assert 0 <= gm <= am + 1e-6 <= 1 + 2e-6
    assert gm >= min(answers) - 1e-6
    assert (gm == 0) == (0 in answers) or min(answers) < 1e-30


def suite_with(*questions: Question, judges: tuple[Judge, ...] = ()) -> Suite:
    suite = make_run("unused", prompts=2, samples=1).info.suite
    first, second = suite.prompts
    return msgspec.structs.replace(
        suite, prompts=(msgspec.structs.replace(first, questions=questions), second), judges=judges
    )


FOX = Question(text="Is there a fox?")
JUDGE = Judge(name="toy", command=("toy",))


def test_the_version_names_who_answers_and_what_is_asked() -> None:
    suite = suite_with(FOX, judges=(JUDGE,))
    registry = registry_of_suite(suite, identified={"toy": "toy 3 abcdef"})
    facts = registry.metrics["soft-tifa-gm-toy"].facts
    assert facts.version == f"1; toy 3 abcdef; questions {questions_digest(suite.prompts)[:12]}"
    assert identity_of(facts) == "toy 3 abcdef"
    assert identity_of(msgspec.structs.replace(facts, metric_dtype="bfloat16")) == "toy 3 abcdef in bfloat16"
    assert (facts.low, facts.high, facts.unit, facts.higher_is_better) == (0, 1, "probability", True)


@pytest.mark.parametrize(
    "other",
    [
        Question(text="Is there a hen?"),
        Question(text=FOX.text, answer="no"),
        Question(text=FOX.text, answer="a", choices=("a", "b")),
    ],
)
def test_another_question_is_another_version(other: Question) -> None:
    assert questions_digest(suite_with(FOX).prompts) != questions_digest(suite_with(other).prompts)


def test_the_skill_of_a_question_is_not_asked_and_makes_no_other_version() -> None:
    named = Question(text=FOX.text, skill="object")
    assert questions_digest(suite_with(FOX).prompts) == questions_digest(suite_with(named).prompts)


def test_prompts_without_questions_and_their_order_make_no_other_version() -> None:
    one, two = Prompt(id="a", text="x", questions=(FOX,)), Prompt(id="b", text="y", questions=(FOX,))
    bare = Prompt(id="c", text="z")
    assert questions_digest((one, two)) == questions_digest((two, bare, one))


def test_what_was_recorded_of_a_metric_stays_its_version_until_its_judge_is_asked_again() -> None:
    suite = suite_with(FOX, judges=(JUDGE,))
    known = registry_of_suite(suite, identified={"toy": "toy 3"}).metrics["soft-tifa-am-toy"].facts
    changed = msgspec.structs.replace(suite, prompts=suite_with().prompts)
    assert registry_of_suite(changed, recorded=(known,)).metrics[known.name].facts == known
    asked = registry_of_suite(changed, identified={"toy": "toy 4"}, recorded=(known,)).metrics[known.name].facts
    assert asked.version != known.version


def test_every_suite_has_the_judge_of_the_embedded_family_and_only_its_own_others() -> None:
    names = {facts.name for facts in all_facts()}
    assert {"soft-tifa-am-mini", "soft-tifa-gm-mini"} <= names
    assert "soft-tifa-am-toy" not in names
    assert "soft-tifa-am-toy" not in registry_of_suite(suite_with(FOX)).metrics
