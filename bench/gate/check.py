"""What one check of a gate compares, and the margin that its limit comes to.

A check is a ``Verdict`` that has no outcome yet: ``quality`` and ``timing`` fill in the statistics, the outcome and
the sentence.
"""

from __future__ import annotations

from msgspec.structs import replace

from bench.records import Interval, Limit, Verdict
from bench.stats.bounds import LEVEL
from bench.suite.limits import quantity_of

NEAREST = 0.1
"""An estimate nearer to the margin than this share of it is planned for as if it lay that far away."""


def new_check(
    limit: Limit, candidate: str, reference: str, *, unit: str, samples: int, equal_weights: bool = False
) -> Verdict:
    """A verdict without numbers and outcome.

    Args:
        limit: of a metric or timed quantity.
        candidate: a variant's name.
        reference: the variant that it is compared with.
        unit: of the quantity.
        samples: images a prompt, or values a round.
        equal_weights: whether both variants have the same weights.
    """
    return Verdict(
        name=limit.name,
        kind="timing" if is_timed(limit) else "metric",
        unit=unit,
        candidate=candidate,
        reference=reference,
        limit=limit,
        samples=samples,
        equal_weights=equal_weights,
    )


def with_interval(check: Verdict, low: float, high: float, method: str) -> Verdict:
    """The check with the two-sided 90 % interval of its loss."""
    return replace(check, interval=Interval(low=low, high=high, method=method, level=LEVEL))


def subject(check: Verdict) -> str:
    """Who is checked for what, as a sentence begins: ``mini-clip of spo``, ``mini-clip of spo against base``."""
    against = "" if check.candidate == check.reference else f" against {check.reference}"
    return f"{check.name} of {check.candidate}{against}"


def invalid(check: Verdict, reason: str) -> Verdict:
    """The verdict that nothing can be said, with the reason as the end of its sentence."""
    return replace(check, outcome="invalid", sentence=f"{subject(check)} cannot be checked: {reason}.")


def is_timed(limit: Limit) -> bool:
    """Whether a limit is on a timed quantity, of time, memory or energy, and not on a metric."""
    return quantity_of(limit.name) != "metric"


def timing_margin(limit: Limit, reference_median: float) -> float:
    """The largest allowed ratio of medians minus 1; amounts and floors in the quantity's unit are taken as shares."""
    amount = limit.amount if limit.kind == "relative" else limit.amount / reference_median
    return max(amount, (limit.floor or 0.0) / reference_median)
