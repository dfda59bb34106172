"""The verdict on one metric: is the mean loss over the prompts within its margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.formatting import listed, plural
from bench.gate.check import Answer, Question, invalid, metric_margin, verdict
from bench.gate.outcomes import metric_sentence, unchanged_sentence
from bench.records import MetricFacts, Outcome, Verdict, WorstPrompt
from bench.stats.bounds import METHOD, MIN_PROMPTS, detectable_loss, mean_bounds, prompts_for
from bench.stats.effects import Floats, is_constant, mean, sd

WORST = 10
LARGEST = 1e100
"""No metric gives numbers of this size, and sums of their squares would overflow."""
_NEAREST = 0.1
"""An estimate nearer to the margin than this share of it is planned for as if it lay that far away."""


def judge_metric(
    question: Question,
    facts: MetricFacts,
    cases: Sequence[str],
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
) -> Verdict:
    """The verdict on per-prompt means: loss = reference - candidate in the better direction, prompts as the unit.

    pass: the upper end of ``mean_bounds`` at 90 % is at most the margin; fail: the lower end is over it; else
    inconclusive, and always so under 10 prompts, except that equal weights with equal values pass. invalid: a
    missing or non-finite value, no prompt, no margin, one that no loss could exceed, or, over two or more
    prompts, scores that are constant on both sides.

    Args:
        question: the limit and the two variants.
        facts: of the metric; ``higher_is_better`` is not None.
        cases: ids of the prompts.
        ours: the candidate's mean of each prompt, in the metric's unit; None where it is not complete.
        theirs: the reference's.

    Raises:
        ValueError: a number of values that is not that of the cases.
    """
    if not len(cases) == len(ours) == len(theirs):
        raise ValueError(f"{len(cases)} cases have {len(ours)} and {len(theirs)} values")
    reason = _unusable(cases, ours, "the candidate") or _unusable(cases, theirs, "the reference")
    if reason:
        return invalid(question, reason, Answer(n=len(cases)))
    above, below = (np.array(side, dtype=np.float64) for side in (ours, theirs))
    losses = (below - above) if facts.higher_is_better else (above - below)
    answer = _measured(above, below, losses, cases)
    margin, no_margin = metric_margin(question.limit, below.tolist())
    if len(cases) > 1 and is_constant(above) and is_constant(below):
        return invalid(question, "it gives every prompt the same score on both sides, so it tells nothing", answer)
    if margin is None and len(cases) > 1:
        return invalid(question, no_margin, answer)
    if margin is not None and margin >= _largest_loss(facts, mean(below)):
        return invalid(question, f"its limit {question.limit.text} is one that no loss could exceed", answer)
    if question.equal_weights and not losses.any():
        same = replace(answer, margin=margin, low=0.0, high=0.0, method="equal values")
        return verdict(question, "pass", unchanged_sentence(question, len(cases)), same)
    return _judged(question, facts, losses, replace(answer, margin=margin))


def _judged(question: Question, facts: MetricFacts, losses: Floats, answer: Answer) -> Verdict:
    outcome: Outcome = "inconclusive"
    margin, n = answer.margin, len(losses)
    if margin is not None and n > 1:
        low, high = mean_bounds(losses)
        spread = sd(losses)
        if n >= MIN_PROMPTS:
            outcome = "pass" if high <= margin else "fail" if low > margin else "inconclusive"
        answer = replace(
            answer,
            low=low,
            high=high,
            method=METHOD,
            detectable=detectable_loss(n, spread),
            needed=_needed(n, spread, margin, mean(losses)) if outcome == "inconclusive" else None,
        )
        if outcome == "pass" and not losses.any():
            return verdict(question, outcome, unchanged_sentence(question, n), answer)
    else:
        answer = replace(answer, needed=MIN_PROMPTS)
    sentence = metric_sentence(question, outcome, answer, "higher" if facts.higher_is_better else "lower")
    return verdict(question, outcome, sentence, answer)


def _unusable(cases: Sequence[str], values: Sequence[float | None], side: str) -> str:
    if not cases:
        return "there is no prompt"
    missing = [case for case, value in zip(cases, values, strict=True) if value is None]
    if missing:
        return f"{side} lacks scores of {plural(len(missing), 'prompt')} of {len(cases):,} ({listed(missing, 5)})"
    sizes = np.abs(np.array(values, dtype=np.float64))
    strange = [cases[at] for at in np.flatnonzero(~(sizes < LARGEST)).tolist()]  # also true of NaN
    if strange:
        return f"{side} has scores that are infinite or no number, on {listed(strange, 5)}"
    return ""


def _largest_loss(facts: MetricFacts, reference: float) -> float:
    """How much the mean can lose down to the worst end of the metric's range."""
    worst = facts.low if facts.higher_is_better else facts.high
    return math.inf if worst is None else abs(reference - worst)


def _measured(above: Floats, below: Floats, losses: Floats, cases: Sequence[str]) -> Answer:
    order = np.argsort(-losses, kind="stable")[:WORST]
    return Answer(
        n=len(cases),
        loss=mean(losses),
        candidate_mean=mean(above),
        reference_mean=mean(below),
        worst=tuple(
            WorstPrompt(case=cases[at], candidate=float(above[at]), reference=float(below[at]), loss=float(losses[at]))
            for at in order.tolist()
            if losses[at] > 0
        ),
    )


def _needed(n: int, spread: float, margin: float, loss: float) -> int:
    """Prompts with which a gate would decide in 80 of 100 runs if the estimated loss were the true one."""
    away = max(abs(margin - loss), _NEAREST * margin)
    return max(n + 1, prompts_for(away, spread))
