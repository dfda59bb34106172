"""What one check of a gate compares, the limits it is held to, and the verdict it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench import stats
from bench.errors import UsageError
from bench.records import Baseline, Interval, Limit, MetricFacts, Outcome, Verdict, WorstPrompt
from bench.stats.bounds import LEVEL
from bench.stats.effects import finite, sd
from bench.suite.limits import check_metric_limit, parse_limit, quantity_of

# What one verdict is asked, and the parts that all verdicts are made of.


@dataclass(frozen=True)
class Check:
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
class Statistics:
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


def verdict(check: Check, outcome: Outcome, sentence: str, statistics: Statistics) -> Verdict:
    """The record of a check and its statistics."""
    interval = None
    if statistics.low is not None and statistics.high is not None:
        interval = Interval(low=statistics.low, high=statistics.high, method=statistics.method, level=LEVEL)
    return Verdict(
        name=check.limit.name,
        kind=check.kind,
        unit=check.unit,
        candidate=check.candidate,
        reference=check.reference,
        outcome=outcome,
        sentence=sentence,
        limit=check.limit,
        margin=statistics.margin,
        loss=statistics.loss,
        interval=interval,
        candidate_mean=statistics.candidate_mean,
        reference_mean=statistics.reference_mean,
        n=statistics.n,
        samples=check.samples,
        detectable=statistics.detectable,
        needed=statistics.needed if outcome == "inconclusive" else None,
        equal_weights=check.equal_weights,
        worst=statistics.worst,
    )


def invalid(check: Check, reason: str, statistics: Statistics | None = None) -> Verdict:
    """The verdict that nothing can be said, with the reason as the end of its sentence."""
    return verdict(check, "invalid", f"{check.subject} cannot be judged: {reason}.", statistics or Statistics())


# The limits a gate judges by, and the margins they come to.


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
