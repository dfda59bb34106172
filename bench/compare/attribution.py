"""A variant in windows of steps -> how much of its gain each gives, whether windows add up, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench import stats
from bench.compare.pairing import paired_prompts
from bench.records import (
    Additivity,
    AttributedMetric,
    Attribution,
    Delta,
    Interval,
    Limit,
    Run,
    StepAttribution,
    WindowFront,
    WindowGain,
    WindowPlace,
)
from bench.suite.limits import metric_margin

ONE_SD = Limit(name="", text="1sd", kind="sd", amount=1.0)
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
        variant=plan.variant,
        reference=reference,
        steps=run.info.suite.settings.steps,
        metrics=tuple(metrics),
        front=_front(run, plan, metrics),
    )


def _is_clear(delta: Delta) -> bool:
    """Whether a difference is told from 0: shares of one that is not mean nothing."""
    return delta.interval is not None and not delta.interval.low <= 0 <= delta.interval.high


def _first_with(windows: Sequence[WindowGain], kind: str, whole: Delta) -> int | None:
    """The earliest last step of windows of a kind that give nearly all of a clear gain."""
    enough = [one.last for one in windows if one.kind == kind and one.share is not None and one.share >= NEARLY_ALL]
    return min(enough, default=None) if _is_clear(whole) else None


# What a window gives against what it costs.


def _front(run: Run, plan: Attribution, metrics: Sequence[AttributedMetric]) -> WindowFront | None:
    directed = [one for one in metrics if one.higher_is_better is not None]
    main = _main_metric(run, plan, directed)
    if main is None:
        return None
    gains = _gains(main)
    whole = gains[plan.variant] if _is_clear(main.whole) else None
    others = [(one.metric, _gains(one), _loss_unit(run, plan, one)) for one in directed if one is not main]
    spans = {plan.variant: (1, run.info.suite.settings.steps)}
    spans |= {window.variant: (window.first, window.last) for window in plan.windows}
    places = []
    for variant, (first, last) in spans.items():
        if variant not in gains:
            continue
        losses = [(-own[variant] / unit, name) for name, own, unit in others if unit is not None and variant in own]
        loss, worst = max(losses, default=(0.0, None))
        places.append(
            WindowPlace(
                variant=variant,
                first=first,
                last=last,
                gain=gains[variant],
                share=gains[variant] / whole if whole else None,
                loss=max(loss, 0.0),
                worst=worst if loss > 0 else None,
                on_front=False,
            )
        )
    front = tuple(
        msgspec.structs.replace(one, on_front=not any(_beats(other, one) for other in places)) for one in places
    )
    return WindowFront(metric=main.metric, places=front, best=_best(whole, front))


def _main_metric(run: Run, plan: Attribution, directed: Sequence[AttributedMetric]) -> AttributedMetric | None:
    if plan.gain is not None:
        return next((one for one in directed if one.metric == plan.gain), None)
    kinds = {facts.name: facts.category for facts in run.info.metrics}
    of_people = [one for wanted in ("preference", "aesthetic") for one in directed if kinds[one.metric] == wanted]
    return next(iter(of_people), None)


def _gains(one: AttributedMetric) -> dict[str, float]:
    """Mean differences by variant, more being better."""
    sign = 1 if one.higher_is_better else -1
    return {delta.candidate: sign * delta.mean for delta in (one.whole, *(window.delta for window in one.windows))}


def _loss_unit(run: Run, plan: Attribution, one: AttributedMetric) -> float | None:
    """What a loss in a metric is measured by; None where the reference scores the same on every prompt."""
    pairs = paired_prompts(run, run, (one.whole.reference, one.whole.reference), one.metric)
    means = [pair.reference for pair in pairs]
    limit = next((limit for limit in plan.limits if limit.name == one.metric), ONE_SD)
    return metric_margin(limit, means)[0]


def _beats(one: WindowPlace, other: WindowPlace) -> bool:
    return one.gain >= other.gain and one.loss <= other.loss and (one.gain, one.loss) != (other.gain, other.loss)


def _best(whole: float | None, front: Sequence[WindowPlace]) -> WindowPlace | None:
    keeping = [one for one in front if one.share is not None and one.share >= NEARLY_ALL]
    return min(keeping, key=lambda one: (one.loss, -one.gain), default=None) if whole and whole > 0 else None


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
