"""The limits a gate judges by, and the margins they come to."""

from __future__ import annotations

from collections.abc import Sequence

from bench import stats
from bench.errors import UsageError
from bench.records import Baseline, Limit, MetricFacts
from bench.stats.arrays import finite, sd
from bench.suite.limits import check_metric_limit, parse_limit, quantity_of


def frozen_limits(reference: Baseline, label: str) -> tuple[Limit, ...]:
    """The limits that the reference side froze, in its order.

    Args:
        reference: the baseline.
        label: how messages name it.

    Raises:
        UsageError: there are none, or one that cannot be; the sentence names the allowed forms.
    """
    if not reference.limits:
        raise UsageError(
            f"{label}: its suite {reference.suite} has no limits, so there is nothing to judge by.",
            'add to the suite: [limits], and below it a line such as mini-clip = "0.1sd"',
        )
    facts = {known.name: known for known in reference.metrics}
    found = []
    for name, text in reference.limits.items():
        try:
            limit = parse_limit(name, text)
            if name in facts:
                check_metric_limit(limit, facts[name])
        except UsageError as error:
            raise UsageError(f"{label}: {error}", error.hint) from error
        found.append(limit)
    return tuple(found)


def is_timed(limit: Limit) -> bool:
    """Whether a limit is on a timed quantity, of time or memory, and not on a metric."""
    return quantity_of(limit.name) != "metric"


def metric_margin(limit: Limit, reference_means: Sequence[float]) -> tuple[float | None, str]:
    """The largest allowed loss in the metric's unit, or None and the reason why there is none.

    ``amount`` x the standard deviation (n - 1) or the size of the mean of the reference's prompt means, or the
    amount itself; the floor where that is larger.
    """
    amount, floor = limit.amount, limit.floor or 0.0
    if limit.kind == "sd":
        if len(reference_means) < 2:
            return None, "one prompt has no standard deviation"
        amount *= sd(finite(reference_means))
        reason = "its limit is in standard deviations, and the reference scores the same on every prompt"
    else:
        amount *= abs(stats.mean(reference_means)) if limit.kind == "relative" else 1.0
        reason = "its limit is a share of the reference's mean, which is 0"
    margin = max(amount, floor)
    return (margin, "") if margin > 0 else (None, reason)


def timing_margin(limit: Limit, reference_median: float) -> float:
    """The largest allowed ratio of medians minus 1; amounts and floors in the quantity's unit are taken as shares."""
    amount = limit.amount if limit.kind == "relative" else limit.amount / reference_median
    return max(amount, (limit.floor or 0.0) / reference_median)


def facts_by_name(baseline: Baseline) -> dict[str, MetricFacts]:
    """What a side's metrics say of themselves, by name."""
    return {known.name: known for known in baseline.metrics}
