"""The report's table of answers by skill."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.questions.metrics import question_metrics
from bench.records import Answer, Question, Run
from bench.report.skills import SkillTable, skill_tables

GOLDEN = json.loads((Path(__file__).parent / "golden" / "soft_tifa.json").read_text())


def asked(run: Run, identity: str = "toy 1") -> tuple[Run, list[Answer]]:
    """A run whose prompts have the questions of the golden values, with their answers about its first variant."""
    prompts, answers = [], []
    images = {(one.variant, one.prompt_id): str(one.sha256) for one in run.renders}
    for prompt, found in zip(run.info.suite.prompts, GOLDEN["input"], strict=True):
        questions = tuple(Question(text=f"q{n}?", skill=skill) for n, skill in enumerate(found["skills"]))
        prompts.append(msgspec.structs.replace(prompt, questions=questions))
        for question, probability in zip(questions, found["answer_probability"], strict=True):
            answers.append(
                Answer(
                    judge="toy",
                    identity=identity,
                    image_sha256=images["base", prompt.id],
                    question=question,
                    probability=probability,
                )
            )
    facts = msgspec.structs.replace(
        question_metrics("toy", run.info.metrics[0])[0].facts, version="1; toy 1; questions 0"
    )
    suite = msgspec.structs.replace(run.info.suite, prompts=tuple(prompts))
    info = msgspec.structs.replace(run.info, suite=suite, metrics=(*run.info.metrics, facts))
    return msgspec.structs.replace(run, info=info), answers


@pytest.fixture
def run() -> Run:
    return make_run("unused", prompts=len(GOLDEN["input"]), samples=1, variants=("base", "spo"))


def test_the_means_by_skill_are_those_of_the_official_estimator(run: Run) -> None:
    (table,) = skill_tables(*asked(run))
    assert table.judge == "toy"
    assert list(table.rows) == sorted(GOLDEN["expected"]["per_skill_percent"])
    for skill, percent in GOLDEN["expected"]["per_skill_percent"].items():
        count, (base, spo) = table.rows[skill]
        assert base is not None
        assert 100 * base == pytest.approx(percent)
        assert spo is None
        assert count == sum(found["skills"].count(skill) for found in GOLDEN["input"])


def test_answers_of_another_judge_version_and_to_other_questions_do_not_count(run: Run) -> None:
    new, answers = asked(run)
    assert skill_tables(new, [msgspec.structs.replace(one, identity="toy 2") for one in answers]) == ()
    other = Question(text="Another?", skill="object")
    assert skill_tables(new, [msgspec.structs.replace(one, question=other) for one in answers]) == ()
    assert skill_tables(new, [msgspec.structs.replace(one, judge="gone") for one in answers]) == ()


def test_questions_without_a_skill_are_a_row_of_their_own(run: Run) -> None:
    new, answers = asked(run)
    prompt = new.info.suite.prompts[0]
    bare = Question(text="Is it?")
    prompts = (msgspec.structs.replace(prompt, questions=(bare,)), *new.info.suite.prompts[1:])
    suite = msgspec.structs.replace(new.info.suite, prompts=prompts)
    new = msgspec.structs.replace(new, info=msgspec.structs.replace(new.info, suite=suite))
    one = msgspec.structs.replace(answers[0], question=bare, probability=0.25)
    assert skill_tables(new, [one]) == (SkillTable("toy", {"none named": (1, (0.25, None))}),)
