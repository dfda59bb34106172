"""Shares of flagged images: metrics that say from which value an image counts (``MetricFacts.thresholds``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import stats
from bench.compare.pairing import ImageScores, pair_prompts, usable_scores
from bench.records import Interval, MetricFacts, RateChange, Run, Suite, Threshold


def rate_changes(
    run: Run, pairs: Sequence[tuple[str, str]], *, metrics: Sequence[str] | None = None, level: float = 0.95
) -> tuple[RateChange, ...]:
    """The share of images above each threshold of each metric, for each (candidate, reference) pair of variants.

    Images are paired by prompt and sample; prompts, or groups of them, are the unit. A pair without a scored image on
    both sides has no record. ``metrics`` names some of the run's; None means all.
    """
    table, suite = usable_scores(run), run.info.suite
    found: list[RateChange] = []
    for facts in run.info.metrics:
        if metrics is not None and facts.name not in metrics:
            continue
        for candidate, reference in pairs:
            above, below = (table.get((name, facts.name), {}) for name in (candidate, reference))
            for threshold in facts.thresholds:
                found += _change(facts, threshold, (candidate, reference), suite, (above, below), level)
    return tuple(found)


def _change(
    facts: MetricFacts,
    threshold: Threshold,
    names: tuple[str, str],
    suite: Suite,
    scores: tuple[ImageScores, ImageScores],
    level: float,
) -> Iterator[RateChange]:
    above, below = ({key: float(value > threshold.above) for key, value in side.items()} for side in scores)
    prompts = pair_prompts(suite, above, below, facts.over)
    if not prompts:
        return
    differences, units = [one.difference for one in prompts], [one.prompt.unit for one in prompts]
    grouped = stats.group_units(differences, units)
    low, high = stats.paired_rate_interval(grouped.values, level=level)
    rate = stats.mean([one.reference for one in prompts])
    yield RateChange(
        metric=facts.name,
        threshold=threshold.name,
        candidate=names[0],
        reference=names[1],
        prompts=len(prompts),
        images=sum(one.samples for one in prompts),
        candidate_rate=stats.mean([one.candidate for one in prompts]),
        reference_rate=rate,
        change=stats.mean(differences),
        interval=Interval(low=low, high=high, method="Agresti and Min, prompts as the unit", level=level),
        rose=sum(difference > 0 for difference in differences),
        fell=sum(difference < 0 for difference in differences),
        smallest_visible=stats.smallest_visible_rise(rate, int(grouped.effective), level=level),
    )
