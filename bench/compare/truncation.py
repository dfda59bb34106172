"""Which prompts a metric's tower cut: what stands after its last token took no part in the score."""

from __future__ import annotations

from typing import NamedTuple

from bench.records import Run


class CutPrompts(NamedTuple):
    """The prompts of which a metric read only the beginning."""

    metric: str
    cases: tuple[str, ...]
    """Ids, in the suite's order; at least one."""


def cut_prompts(run: Run) -> tuple[CutPrompts, ...]:
    """Each metric that cut prompts, in the run's order, by its scores of the version that counts."""
    found = []
    for facts in run.info.metrics:
        own = {s.case for s in run.scores if s.metric == facts.name and s.version == facts.version and s.prompt_cut}
        cases = tuple(case.id for case in run.info.suite.cases if case.id in own)
        if cases:
            found.append(CutPrompts(facts.name, cases))
    return tuple(found)
