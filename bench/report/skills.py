"""What judges answered, by the skill that a question tests."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

from bench.questions.metrics import as_asked, identity_of
from bench.records import Answer, MetricFacts, Run
from bench.suite.judges import metric_names

SKILL_NOTE = (
    "Mean probability of the expected answer over all questions of a skill, of all prompts together, in per cent (as "
    "Soft-TIFA's per-skill means). These are means without intervals: whether a difference holds is told by the "
    "metrics above."
)
NO_SKILL = "none named"


class SkillTable(NamedTuple):
    """One judge: by skill how many questions it was asked of a variant's images at most, and each variant's mean."""

    judge: str
    rows: dict[str, tuple[int, tuple[float | None, ...]]]
    """Means in [0, 1], in the order of the suite's variants; None where nothing was answered."""


def skill_tables(run: Run, answers: Sequence[Answer]) -> tuple[SkillTable, ...]:
    """A table for each judge whose metrics the run has, of answers of their version and to the suite's questions."""
    found = []
    for judge in dict.fromkeys(one.judge for one in answers):
        facts = next((facts for facts in run.info.metrics if facts.name in metric_names(judge)), None)
        if facts is not None and (rows := _rows(run, judge, facts, answers)):
            found.append(SkillTable(judge, rows))
    return tuple(found)


def _rows(
    run: Run, judge: str, facts: MetricFacts, answers: Sequence[Answer]
) -> dict[str, tuple[int, tuple[float | None, ...]]]:
    if "; " not in facts.version:  # recorded before anybody was asked
        return {}
    known = {
        (one.image_sha256, as_asked(one.question)): one.probability
        for one in answers
        if one.judge == judge and one.identity == identity_of(facts)
    }
    questions = {prompt.id: prompt.questions for prompt in run.info.suite.prompts}
    pooled: dict[str, dict[str, list[float]]] = {}
    for render in run.renders:
        for question in questions[render.prompt_id]:
            answer = known.get((str(render.sha256), as_asked(question)))
            if answer is not None:
                by_variant = pooled.setdefault(question.skill or NO_SKILL, {})
                by_variant.setdefault(render.variant, []).append(answer)
    variants = [variant.name for variant in run.info.suite.variants]
    return {
        skill: (
            max(map(len, by_variant.values())),
            tuple(fsum(by_variant[name]) / len(by_variant[name]) if name in by_variant else None for name in variants),
        )
        for skill, by_variant in sorted(pooled.items())
    }
