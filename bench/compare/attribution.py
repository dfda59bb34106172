"""A variant in windows of steps -> how much of its gain each gives, whether windows add up, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from bench import stats
from bench.compare.pairing import paired_prompts
from bench.records import (
    Additivity,
    AttributedMetric,
    Delta,
    Interval,
    Run,
    StepAttribution,
    WindowGain,
)

NEARLY_ALL = 0.9
"""Share of the whole gain from which on a window counts as giving nearly all of it."""


def attribute_steps(run: Run, deltas: Sequence[Delta]) -> StepAttribution | None:
    """What each window of an attribution's run gives, from the deltas of ``compare_run``; None for another run.

    Args:
        run: of a suite with ``attribution``.
        deltas: each variant against the first.
    """
    plan = run.info.suite.attribution
    if plan is None:
        return None
    reference = run.info.suite.variants[0].name
    known = {(one.candidate, one.metric): one for one in deltas if one.tag is None and one.reference == reference}
    metrics = []
    for facts in run.info.metrics:
        whole = known.get((plan.variant, facts.name))
        if whole is None:
            continue
        windows = tuple(
            WindowGain(
                kind=window.kind,
                first=window.first,
                last=window.last,
                delta=found,
                share=found.mean / whole.mean if _is_clear(whole) else None,
            )
            for window in plan.windows
            if (found := known.get((window.variant, facts.name))) is not None
        )
        metrics.append(
            AttributedMetric(
                metric=facts.name,
                higher_is_better=facts.higher_is_better,
                whole=whole,
                windows=windows,
                additivity=_additivity(run, facts.name, reference),
                nearly_all_until=_first_with(windows, "until", whole),
            )
        )
    return StepAttribution(
        variant=plan.variant, reference=reference, steps=run.info.suite.settings.steps, metrics=tuple(metrics)
    )


def _is_clear(delta: Delta) -> bool:
    """Whether a difference is told from 0: shares of one that is not mean nothing."""
    return delta.interval is not None and not delta.interval.low <= 0 <= delta.interval.high


def _first_with(windows: Sequence[WindowGain], kind: str, whole: Delta) -> int | None:
    """The earliest last step of windows of a kind that give nearly all of a clear gain."""
    enough = [one.last for one in windows if one.kind == kind and one.share is not None and one.share >= NEARLY_ALL]
    return min(enough, default=None) if _is_clear(whole) else None


def _additivity(run: Run, metric: str, reference: str) -> Additivity | None:
    """The sum of the windows' gains less the whole gain, over the prompts that have all of them."""
    plan = run.info.suite.attribution
    if plan is None:
        return None
    parts = [one.variant for one in plan.windows if one.kind == "only"]
    gains = [
        {one.prompt.id: one for one in paired_prompts(run, run, (name, reference), metric)}
        for name in (*parts, plan.variant)
    ]
    shared = [prompt for prompt in run.info.suite.prompts if all(prompt.id in own for own in gains)]
    if len({prompt.unit for prompt in shared}) < 2:
        return None
    sums = [sum(own[prompt.id].difference for own in gains[:-1]) for prompt in shared]
    excess = [total - gains[-1][prompt.id].difference for total, prompt in zip(sums, shared, strict=True)]
    units = stats.group_units(excess, [prompt.unit for prompt in shared])
    low, high = stats.bootstrap_bca(units.values)
    return Additivity(
        sum_of_windows=stats.mean(sums),
        excess=stats.mean(excess),
        interval=Interval(low=low, high=high, method="BCa bootstrap over prompts"),
    )
