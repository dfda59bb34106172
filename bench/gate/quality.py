"""The verdict on one metric: is the mean loss over the prompts within its margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from bench.formatting import listed, plural
from bench.gate.check import NEAREST, invalid, metric_margin, outcome_of, with_interval
from bench.gate.outcomes import metric_sentence, unchanged_sentence
from bench.records import MetricFacts, Verdict, WorstPrompt
from bench.stats.bounds import METHOD, MIN_PROMPTS, detectable_loss, mean_bounds, prompts_for
from bench.stats.effects import Floats, is_constant, mean, sd

WORST = 10
LARGEST = 1e100
"""No metric gives numbers of this size, and sums of their squares would overflow."""


def check_metric(
    check: Verdict,
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
    check = replace(check, n=len(prompts))
    reason = _unusable(prompts, ours, "the candidate") or _unusable(prompts, theirs, "the reference")
    if reason:
        return invalid(check, reason)
    above, below = (np.array(side, dtype=np.float64) for side in (ours, theirs))
    losses = (below - above) if facts.higher_is_better else (above - below)
    check = replace(
        check,
        loss=mean(losses),
        candidate_mean=mean(above),
        reference_mean=mean(below),
        worst=_worst_prompts(prompts, above, below, losses),
    )
    margin, no_margin = metric_margin(check.limit, below.tolist())
    if len(prompts) > 1 and is_constant(above) and is_constant(below):
        return invalid(check, "it gives every prompt the same score on both sides, so it tells nothing")
    if margin is None and len(prompts) > 1:
        return invalid(check, no_margin)
    worst_end = facts.low if facts.higher_is_better else facts.high
    if margin is not None and worst_end is not None and margin >= abs(mean(below) - worst_end):
        return invalid(check, f"its limit {check.limit.text} is one that no loss could exceed")
    return _decided(replace(check, margin=margin), facts, losses)


def _decided(check: Verdict, facts: MetricFacts, losses: Floats) -> Verdict:
    n, margin = check.n, check.margin
    if check.equal_weights and not losses.any():
        same = with_interval(check, 0.0, 0.0, "equal values")
        return replace(same, outcome="pass", sentence=unchanged_sentence(same))
    check = replace(check, outcome="inconclusive")
    if margin is None or n < 2:
        check = replace(check, needed=MIN_PROMPTS)
    else:
        (low, high), spread = mean_bounds(losses), sd(losses)
        check = replace(with_interval(check, low, high, METHOD), detectable=detectable_loss(n, spread))
        if n >= MIN_PROMPTS:
            check = replace(check, outcome=outcome_of(low, high, margin))
        if check.outcome == "pass" and not losses.any():
            return replace(check, sentence=unchanged_sentence(check))
        if check.outcome == "inconclusive":
            # Prompts with which 80 of 100 gates would decide, if the estimated loss were the true one.
            away = max(abs(margin - mean(losses)), NEAREST * margin)
            check = replace(check, needed=max(n + 1, prompts_for(away, spread)))
    return replace(check, sentence=metric_sentence(check, "higher" if facts.higher_is_better else "lower"))


def _unusable(prompts: Sequence[str], values: Sequence[float | None], side: str) -> str:
    if not prompts:
        return "there is no prompt"
    missing = [prompt_id for prompt_id, value in zip(prompts, values, strict=True) if value is None]
    if missing:
        return f"{side} lacks scores of {plural(len(missing), 'prompt')} of {len(prompts):,} ({listed(missing, 5)})"
    strange = [
        prompt_id
        for prompt_id, value in zip(prompts, values, strict=True)
        if not math.fabs(value or 0.0) < LARGEST  # also true of NaN
    ]
    return f"{side} has scores that are infinite or not a number, on {listed(strange, 5)}" if strange else ""


def _worst_prompts(prompts: Sequence[str], above: Floats, below: Floats, losses: Floats) -> tuple[WorstPrompt, ...]:
    return tuple(
        WorstPrompt(
            prompt_id=prompts[at], candidate=float(above[at]), reference=float(below[at]), loss=float(losses[at])
        )
        for at in np.argsort(-losses, kind="stable")[:WORST].tolist()
        if losses[at] > 0
    )
