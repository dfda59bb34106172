"""The verdict on one metric: is the mean loss over the prompts within its margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.formatting import listed, plural
from bench.gate.check import Check, Statistics, invalid, metric_margin, verdict
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
    check: Check,
    facts: MetricFacts,
    prompts: Sequence[str],
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
) -> Verdict:
    """The verdict on per-prompt means: loss = reference - candidate in the better direction, prompts as the unit.

    pass: the upper end of ``mean_bounds`` at 90 % is at most the margin; fail: the lower end is over it; else
    inconclusive, and always so under 10 prompts, except that equal weights with equal values pass. invalid: a
    missing or non-finite value, no prompt, no margin, one that no loss could exceed, or, over two or more
    prompts, scores that are constant on both sides.

    Args:
        check: the limit and the two variants.
        facts: of the metric; ``higher_is_better`` is not None.
        prompts: ids of the prompts.
        ours: the candidate's mean of each prompt, in the metric's unit; None where it is not complete.
        theirs: the reference's.

    Raises:
        ValueError: a number of values that is not that of the prompts.
    """
    if not len(prompts) == len(ours) == len(theirs):
        raise ValueError(f"{len(prompts)} prompts have {len(ours)} and {len(theirs)} values")
    reason = _unusable(prompts, ours, "the candidate") or _unusable(prompts, theirs, "the reference")
    if reason:
        return invalid(check, reason, Statistics(n=len(prompts)))
    above, below = (np.array(side, dtype=np.float64) for side in (ours, theirs))
    losses = (below - above) if facts.higher_is_better else (above - below)
    statistics = _measured(above, below, losses, prompts)
    margin, no_margin = metric_margin(check.limit, below.tolist())
    if len(prompts) > 1 and is_constant(above) and is_constant(below):
        return invalid(check, "it gives every prompt the same score on both sides, so it tells nothing", statistics)
    if margin is None and len(prompts) > 1:
        return invalid(check, no_margin, statistics)
    if margin is not None and margin >= _largest_loss(facts, mean(below)):
        return invalid(check, f"its limit {check.limit.text} is one that no loss could exceed", statistics)
    if check.equal_weights and not losses.any():
        same = replace(statistics, margin=margin, low=0.0, high=0.0, method="equal values")
        return verdict(check, "pass", unchanged_sentence(check, len(prompts)), same)
    return _judged(check, facts, losses, replace(statistics, margin=margin))


def _judged(check: Check, facts: MetricFacts, losses: Floats, statistics: Statistics) -> Verdict:
    outcome: Outcome = "inconclusive"
    margin, n = statistics.margin, len(losses)
    if margin is not None and n > 1:
        low, high = mean_bounds(losses)
        spread = sd(losses)
        if n >= MIN_PROMPTS:
            outcome = "pass" if high <= margin else "fail" if low > margin else "inconclusive"
        statistics = replace(
            statistics,
            low=low,
            high=high,
            method=METHOD,
            detectable=detectable_loss(n, spread),
            needed=_needed(n, spread, margin, mean(losses)) if outcome == "inconclusive" else None,
        )
        if outcome == "pass" and not losses.any():
            return verdict(check, outcome, unchanged_sentence(check, n), statistics)
    else:
        statistics = replace(statistics, needed=MIN_PROMPTS)
    sentence = metric_sentence(check, outcome, statistics, "higher" if facts.higher_is_better else "lower")
    return verdict(check, outcome, sentence, statistics)


def _unusable(prompts: Sequence[str], values: Sequence[float | None], side: str) -> str:
    if not prompts:
        return "there is no prompt"
    missing = [prompt_id for prompt_id, value in zip(prompts, values, strict=True) if value is None]
    if missing:
        return f"{side} lacks scores of {plural(len(missing), 'prompt')} of {len(prompts):,} ({listed(missing, 5)})"
    sizes = np.abs(np.array(values, dtype=np.float64))
    strange = [prompts[at] for at in np.flatnonzero(~(sizes < LARGEST)).tolist()]  # also true of NaN
    if strange:
        return f"{side} has scores that are infinite or no number, on {listed(strange, 5)}"
    return ""


def _largest_loss(facts: MetricFacts, reference: float) -> float:
    """How much the mean can lose down to the worst end of the metric's range."""
    worst = facts.low if facts.higher_is_better else facts.high
    return math.inf if worst is None else abs(reference - worst)


def _measured(above: Floats, below: Floats, losses: Floats, prompts: Sequence[str]) -> Statistics:
    order = np.argsort(-losses, kind="stable")[:WORST]
    return Statistics(
        n=len(prompts),
        loss=mean(losses),
        candidate_mean=mean(above),
        reference_mean=mean(below),
        worst=tuple(
            WorstPrompt(
                prompt_id=prompts[at], candidate=float(above[at]), reference=float(below[at]), loss=float(losses[at])
            )
            for at in order.tolist()
            if losses[at] > 0
        ),
    )


def _needed(n: int, spread: float, margin: float, loss: float) -> int:
    """Prompts with which a gate would decide in 80 of 100 runs if the estimated loss were the true one."""
    away = max(abs(margin - loss), _NEAREST * margin)
    return max(n + 1, prompts_for(away, spread))
