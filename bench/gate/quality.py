"""The verdict on one metric: is the mean loss over the prompts, or the shift of one that only describes, within its
margin?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec.structs import replace

from bench.compare.flat import flat_scores
from bench.compare.tags import tags_explain
from bench.formatting import listed, plural
from bench.gate.check import NEAREST, invalid, with_interval
from bench.gate.outcomes import few_sentence, metric_sentence, unchanged_sentence
from bench.records import Limited, MetricFacts, Prompt, Verdict, WorstPrompt
from bench.stats.bounds import LEVEL, METHOD, MIN_PROMPTS, detectable_loss, mean_bounds, prompts_for
from bench.stats.effects import Floats, is_constant, mean, rescaled
from bench.stats.groups import Units, group_units
from bench.stats.votes import Spread, voted_bounds
from bench.suite.limits import limit_outcome, metric_margin

WORST = 10
LARGEST = 1e100
"""No metric gives numbers of this size, and sums of their squares would overflow."""
FEW = 25
"""Under so many prompts, or effective groups of them, a rare large loss is easily missed."""
MANY = 100
SKEWED = 1.0
"""Skewness of the losses, towards the side that misleads, from which on a verdict on under 100 says so."""


def check_metric(
    check: Verdict,
    facts: MetricFacts,
    prompts: Sequence[Prompt],
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    spread: Spread | None = None,
) -> Verdict:
    """The verdict on per-prompt means: loss = reference - candidate in the better direction, prompts as the unit.

    pass: the upper end of ``mean_bounds`` at 90 % is at most the margin; fail: the lower end is over it; else
    inconclusive, and always so under 10 prompts, except that equal weights with equal values pass. invalid: a
    missing or non-finite value, no prompt, no margin, one that no loss could exceed, or, over two or more
    prompts, scores of a side that are constant or vary by less than a hundredth of the other side's
    (``FLAT``). Of prompts in groups the groups are the unit (``bench.stats.groups``).

    Args:
        check: the limit and the two variants.
        facts: of the metric; ``higher_is_better`` is not None.
        prompts: those of both sides.
        ours: the candidate's mean of each prompt, in the metric's unit; None where it is not complete.
        theirs: the reference's.
        spread: of the mean difference of shares of votes, over prompts and voters; None of any other metric.

    Raises:
        ValueError: a number of values that is not that of the prompts.
    """
    if not len(prompts) == len(ours) == len(theirs):
        raise ValueError(f"{len(prompts)} prompts have {len(ours)} and {len(theirs)} values")
    check, ids = replace(check, n=len(prompts)), [prompt.id for prompt in prompts]
    reason = _unusable(ids, ours, "the candidate") or _unusable(ids, theirs, "the reference")
    if reason:
        return invalid(check, reason)
    above, below = (np.array(side, dtype=np.float64) for side in (ours, theirs))
    upwards = _is_limited_upwards(check, facts, mean(above - below))
    losses = (above - below) if upwards else (below - above)
    check = replace(
        check,
        loss=mean(losses),
        shift=mean(above - below) if facts.higher_is_better is None else None,
        candidate_mean=mean(above),
        reference_mean=mean(below),
        worst=_worst_prompts(ids, above, below, losses),
        tags_explain=tags_explain(prompts, losses.tolist()),
    )
    margin, no_margin = metric_margin(check.limit, below.tolist())
    ends: dict[Limited, float | None] = {"rise": facts.low, "loss": facts.high if facts.higher_is_better else facts.low}
    scored = len(prompts) > 1 and spread is None  # what has half of the votes has it on every prompt
    flat = flat_scores(above, below, ends.get(check.limit.limited)) if scored else ""
    if flat:
        return invalid(check, flat)
    if margin is None and len(prompts) > 1:
        return invalid(check, no_margin)
    worst = (facts.low, facts.high) if check.limit.limited == "shift" else (facts.high if upwards else facts.low,)
    if margin is not None and all(end is not None and margin >= abs(mean(below) - end) for end in worst):
        return invalid(check, f"its limit {check.limit.text} is one that no {check.limit.limited} could exceed")
    units = group_units(losses, [prompt.unit for prompt in prompts])
    if len(units.values) < len(losses):
        check = replace(check, groups=len(units.values), effective=units.effective)
    decided = _decided(replace(check, margin=margin), losses, units, upwards, spread)
    found = decided.interval
    if decided.shift is None or found is None:
        return decided
    low, high = (found.low, found.high) if upwards else (-found.high, -found.low)
    return replace(decided, shift_interval=replace(found, low=low, high=high))


def _is_limited_upwards(check: Verdict, facts: MetricFacts, shift: float) -> bool:
    """Whether a rise is what is limited; of a limit either way, whether the mean rose."""
    if facts.higher_is_better is not None:
        return not facts.higher_is_better
    return shift >= 0 if check.limit.limited == "shift" else check.limit.limited == "rise"


def _decided(check: Verdict, losses: Floats, units: Units, upwards: bool, spread: Spread | None) -> Verdict:
    n, margin, worth, both = check.n, check.margin, int(units.effective), check.limit.limited == "shift"
    if check.equal_weights and not losses.any():
        same = with_interval(check, 0.0, 0.0, "equal values")
        return replace(same, outcome="pass", sentence=unchanged_sentence(same))
    check = replace(check, outcome="inconclusive")
    if margin is None or len(units.values) < 2:
        check = replace(check, needed=math.ceil(MIN_PROMPTS * n / units.effective))
    else:
        low, high = (
            mean_bounds(units.values, freedom=units.freedom)
            if spread is None
            else voted_bounds(units.values, spread, LEVEL)
        )
        # Of votes: prompts and voters are planned for in their proportion here.
        spread_sd = units.sd if spread is None else math.sqrt(spread.variance * units.effective)
        check = replace(with_interval(check, low, high, METHOD), detectable=detectable_loss(worth, spread_sd))
        if worth >= MIN_PROMPTS:
            check = replace(check, outcome=limit_outcome(low, high, margin, check.limit.limited))
        if check.outcome == "pass" and not losses.any():
            return replace(check, sentence=unchanged_sentence(check))
        if check.outcome == "inconclusive":
            # Prompts with which 80 of 100 gates would decide, if the estimated loss were the true one.
            away = max(abs(margin - mean(losses)), NEAREST * margin)
            # Both ends of an interval must hold: each in 90 of 100, so that both do in 80.
            more = math.ceil(prompts_for(away, spread_sd, power=0.9 if both else 0.8) * n / units.effective)
            check = replace(check, needed=max(n + 1, more))
    better: Literal["higher", "lower"] = "lower" if upwards else "higher"
    return replace(check, sentence=metric_sentence(check, better, _caution(check, units)))


def _caution(check: Verdict, units: Units) -> str:
    """What a pass or fail on few or skewed prompts is worth less; empty where the error rates hold."""
    if check.outcome not in ("pass", "fail") or units.effective >= MANY:
        return ""
    few = units.effective < FEW
    skewness = _skewness(units.values) * (1 if check.outcome == "pass" else -1)
    return few_sentence(check.outcome, few=few, grouped=check.groups is not None) if few or skewness > SKEWED else ""


def _skewness(values: Floats) -> float:
    """sum(d^3) / n over (sum(d^2) / n)^1.5, d the deviations from the mean; 0 where all are equal."""
    if is_constant(values):
        return 0.0
    deviations, _ = rescaled(values - mean(values))
    return float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)


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
