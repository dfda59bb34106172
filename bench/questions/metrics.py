"""Soft-TIFA: the arithmetic and the geometric mean of a judge's answers to the questions of a prompt.

A judge has both as metrics. Their version names what answers must share to be compared: the judge's version and
weights, and the questions of the suite.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from bench import documents
from bench.metrics.declare import Inputs, Metric
from bench.records import MetricFacts, Prompt, Question
from bench.suite.judges import metric_names

if TYPE_CHECKING:
    import torch

VERSION = "1"
REFERENCE = (
    "Soft-TIFA of GenEval2, A. Kamath et al., arXiv 2512.16853, facebookresearch/GenEval2 at a6e82d2; after TIFA, "
    "Y. Hu et al., arXiv 2303.11897"
)


def soft_tifa_am(inputs: Inputs) -> torch.Tensor:
    """Arithmetic mean of the probabilities of the expected answers, (1,) float32 in [0, 1]."""
    return _tensor(math.fsum(inputs.answers) / len(inputs.answers))


def soft_tifa_gm(inputs: Inputs) -> torch.Tensor:
    """Geometric mean of the probabilities of the expected answers, (1,) float32 in [0, 1]; 0 where one of them is."""
    if 0.0 in inputs.answers:
        return _tensor(0.0)
    return _tensor(math.exp(math.fsum(map(math.log, inputs.answers)) / len(inputs.answers)))


def _tensor(value: float) -> torch.Tensor:
    import torch

    return torch.tensor([value])


def question_metrics(judge: str, facts: MetricFacts) -> tuple[Metric, Metric]:
    """The two metrics of a judge, of facts that say what it is, how it was trained and under which licence.

    Args:
        judge: its name.
        facts: name, version, summary, unit, range, category and reference are filled in here.
    """
    am, gm = metric_names(judge)
    shared = msgspec.structs.replace(
        facts,
        version=VERSION,
        unit="probability",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        category="alignment",
        encoder=None,
        reference=REFERENCE,
    )
    means = (
        (am, soft_tifa_am, "How many of the prompt's questions get the expected answer"),
        (gm, soft_tifa_gm, "Whether all of the prompt's questions get the expected answer"),
    )
    metrics = [
        Metric(msgspec.structs.replace(shared, name=name, summary=f"{what}, by {facts.summary}."), mean, judge=judge)
        for name, mean, what in means
    ]
    return metrics[0], metrics[1]


def as_asked(question: Question) -> Question:
    """A question without its skill, which no judge is told: what an answer is kept by."""
    return msgspec.structs.replace(question, skill="")


def questions_digest(prompts: Sequence[Prompt]) -> str:
    """sha256 in hex of what is asked: canonical JSON of ``[[id, questions without skills], ...]`` sorted by id."""
    asked = sorted(
        (prompt.id, msgspec.to_builtins([as_asked(one) for one in prompt.questions]))
        for prompt in prompts
        if prompt.questions
    )
    return hashlib.sha256(documents.canonical(asked)).hexdigest()


def with_version(metric: Metric, identity: str, prompts: Sequence[Prompt]) -> Metric:
    """The metric with its whole version: this program's own, who answers, and what is asked."""
    version = f"{VERSION}; {identity}; questions {questions_digest(prompts)[:12]}"
    return replace(metric, facts=msgspec.structs.replace(metric.facts, version=version))


def identity_of(facts: MetricFacts) -> str:
    """Who answered, of a metric with its whole version: what answers of a journal must share with it."""
    identity = facts.version.split("; ")[1]
    return identity if facts.metric_dtype == "float32" else f"{identity} in {facts.metric_dtype}"
