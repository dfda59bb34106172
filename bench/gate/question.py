"""What one verdict is asked, and the parts that all verdicts are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.records import Interval, Limit, Outcome, Verdict, WorstPrompt
from bench.stats.bounds import LEVEL


@dataclass(frozen=True)
class Question:
    """Whether one quantity of one candidate keeps its limit."""

    limit: Limit
    kind: Literal["metric", "timing"]
    unit: str
    candidate: str
    reference: str
    samples: int
    """Images a prompt, or values a round."""
    equal_weights: bool = False

    @property
    def subject(self) -> str:
        """Who is judged of what, as a sentence begins: ``mini-clip of spo``, ``mini-clip of spo against base``."""
        against = "" if self.candidate == self.reference else f" against {self.reference}"
        return f"{self.limit.name} of {self.candidate}{against}"


@dataclass(frozen=True)
class Answer:
    """The numbers of a verdict, None where there is none."""

    n: int = 0
    """Prompts or rounds."""
    margin: float | None = None
    loss: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    candidate_mean: float | None = None
    reference_mean: float | None = None
    detectable: float | None = None
    needed: int | None = None
    worst: tuple[WorstPrompt, ...] = ()


def verdict(question: Question, outcome: Outcome, sentence: str, answer: Answer) -> Verdict:
    """The record of a question and its answer."""
    interval = None
    if answer.low is not None and answer.high is not None:
        interval = Interval(low=answer.low, high=answer.high, method=answer.method, level=LEVEL)
    return Verdict(
        name=question.limit.name,
        kind=question.kind,
        unit=question.unit,
        candidate=question.candidate,
        reference=question.reference,
        outcome=outcome,
        sentence=sentence,
        limit=question.limit,
        margin=answer.margin,
        loss=answer.loss,
        interval=interval,
        candidate_mean=answer.candidate_mean,
        reference_mean=answer.reference_mean,
        n=answer.n,
        samples=question.samples,
        detectable=answer.detectable,
        needed=answer.needed if outcome == "inconclusive" else None,
        equal_weights=question.equal_weights,
        worst=answer.worst,
    )


def invalid(question: Question, reason: str, answer: Answer | None = None) -> Verdict:
    """The verdict that nothing can be said, with the reason as the end of its sentence."""
    return verdict(question, "invalid", f"{question.subject} cannot be judged: {reason}.", answer or Answer())
