"""Limits as a suite or a flag writes them: ``0.05``, ``0.1sd``, ``2%``, ``5% floor 20ms``, ``+0.02``. Read here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from bench import stats
from bench.errors import UsageError
from bench.records import VOTES_METRIC, Limit, Limited, MetricFacts, Outcome, TimingName
from bench.stats.effects import finite, sd

Quantity = Literal["metric", "time", "memory", "energy"]

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_LIMIT = re.compile(
    rf"(?P<sign>\+-|[+-]|)(?P<amount>{_NUMBER})(?P<unit>[A-Za-z%]*)"
    rf"(?: floor (?P<floor>{_NUMBER})(?P<floor_unit>[A-Za-z]*))?"
)
_UNITS: dict[Quantity, dict[str, float]] = {
    "metric": {"": 1.0},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "memory": {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "energy": {"J": 1.0, "mJ": 1e-3, "kJ": 1e3},
}
_LIMITED: dict[str, Limited] = {"": "loss", "+": "rise", "-": "fall", "+-": "shift"}
_SIGNED = '"+0.02" (it may rise by so much), "-0.02" (it may fall by so much) or "+-0.02" (either)'
_FORMS: dict[Quantity, str] = {
    "metric": '"0.05" in its own unit, "0.1sd" or "2%", and a floor such as "2% floor 0.01"',
    "time": '"5%" or "20ms" (s, ms, us), and a floor such as "5% floor 20ms"',
    "memory": '"3%" or "64MiB" (B, KiB, MiB, GiB), and a floor such as "3% floor 64MiB"',
    "energy": '"5%" or "20J" (J, mJ, kJ), and a floor such as "5% floor 20J"',
}


def parse_limits(texts: Mapping[str, str]) -> tuple[Limit, ...]:
    """The limits of a table of name and text, in its order; raises as ``parse_limit`` does."""
    return tuple(parse_limit(name, text) for name, text in texts.items())


def parse_limit(name: str, text: str) -> Limit:
    """The limit of a metric or timed quantity; times in seconds, memory in bytes, energy in joules, shares of 1.

    Args:
        name: a metric, or one of ``TimingName``.
        text: a number with ``sd`` or ``%`` or a unit after it, and perhaps a floor; for a metric that only describes
            with ``+``, ``-`` or ``+-`` before it (``check_metric_limit``).

    Raises:
        UsageError: not of that form, an amount of 0, a unit that does not fit the quantity, a sign on a timed
            quantity, or ``peak_reserved``, which is reported but not gated.
    """
    if name == "peak_reserved":
        raise UsageError(
            "limits.peak_reserved is not possible: identical work reserves very different amounts of memory, so it is "
            "reported and not gated.",
            "limit peak_allocated instead",
        )
    quantity = quantity_of(name)
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise UsageError(
            f"limits.{name} is {text!r}; a limit is a number, with sd or % or a unit after it: {_FORMS[quantity]}."
            + (f" A metric that only describes has a sign before it: {_SIGNED}." if quantity == "metric" else "")
        )
    if found["sign"] and quantity != "metric":
        raise UsageError(
            f"limits.{name} is {text!r}; less of it is always better, so its limit has no sign: {_FORMS[quantity]}."
        )

    def in_units(number: str, unit: str) -> float:
        if unit not in _UNITS[quantity]:
            raise UsageError(
                f"limits.{name} is {text!r}, and {f'the unit {unit!r}' if unit else 'a number without a unit'} does "
                f"not fit {name}; allowed are {_FORMS[quantity]}."
            )
        return float(number) * _UNITS[quantity][unit]

    kind: Literal["absolute", "sd", "relative"] = "absolute"
    if found["unit"] == "%":
        kind, amount = "relative", float(found["amount"]) / 100
    elif found["unit"] == "sd" and quantity == "metric":
        kind, amount = "sd", float(found["amount"])
    else:
        amount = in_units(found["amount"], found["unit"])
    floor = None if found["floor"] is None else in_units(found["floor"], found["floor_unit"])
    if not (0 < amount < math.inf and (floor is None or 0 < floor < math.inf)):
        raise UsageError(f"limits.{name} is {text!r}; its numbers must be over 0 and finite: {_FORMS[quantity]}.")
    limit = Limit(name=name, text=text, kind=kind, amount=amount, floor=floor, limited=_LIMITED[found["sign"]])
    if name == VOTES_METRIC:
        _refuse_limit_of_votes(limit)
    return limit


def _refuse_limit_of_votes(limit: Limit) -> None:
    if (limit.kind, limit.limited, limit.floor) != ("absolute", "loss", None) or limit.amount >= 0.5:
        raise UsageError(
            f"limits.{VOTES_METRIC} is {limit.text!r}; it is the share of people's votes that may be lost, a number "
            'under 0.5 without unit or sign, such as "0.05": 45 of 100 votes against what has half of them.',
        )


def quantity_of(name: str) -> Quantity:
    """Whether a name in ``[limits]`` is a timed quantity's, of time, memory or energy; any other is a metric's."""
    if name not in get_args(TimingName):
        return "metric"
    if name == "energy_per_image":
        return "energy"
    return "memory" if name.startswith("peak_") else "time"


def check_metric_limit(limit: Limit, facts: MetricFacts) -> None:
    """Refuses a limit that says nothing of its metric.

    Raises:
        UsageError: a metric of distance to the reference; a sign where one direction is better, or none where the
            metric only describes; a relative limit where 0 does not mean none; a limit that nothing could exceed.
    """
    if facts.category == "distance":
        raise UsageError(
            f"limits.{limit.name}: this metric is a distance to the reference, which has none to itself, so there is "
            "nothing to compare and no limit.",
            "hotart-bench list metrics",
        )
    if facts.higher_is_better is None and limit.limited == "loss":
        raise UsageError(
            f"limits.{limit.name} is {limit.text!r}, but this metric only describes: no direction of it is better. Its "
            f"limit says which way it may move: {_SIGNED}.",
            f'{limit.name} = "+-{limit.text}"',
        )
    if facts.higher_is_better is not None and limit.limited != "loss":
        better = "higher" if facts.higher_is_better else "lower"
        raise UsageError(
            f"limits.{limit.name} is {limit.text!r}, but of this metric {better} is better: its limit is how much "
            "worse it may get, without a sign.",
            f'{limit.name} = "{limit.text.lstrip("+-")}"',
        )
    if limit.kind == "relative" and facts.low != 0:
        raise UsageError(
            f"limits.{limit.name} is {limit.text!r}, but a score of 0 does not mean none of it, so a share of it "
            'means nothing; allowed are "0.05" in its own unit, or standard deviations such as "0.1sd".'
        )
    span = math.inf if facts.low is None or facts.high is None else facts.high - facts.low
    downwards = limit.limited == "fall" or (limit.limited == "loss" and facts.higher_is_better)
    all_of_it = limit.kind == "relative" and limit.amount >= 1 and downwards
    if all_of_it or (limit.kind == "absolute" and limit.amount >= span) or (limit.floor or 0.0) >= span:
        what = "shift" if limit.limited == "shift" else limit.limited
        raise UsageError(f"limits.{limit.name} is {limit.text!r}, which no {what} could exceed; take a smaller one.")


def metric_margin(limit: Limit, reference_means: Sequence[float]) -> tuple[float | None, str]:
    """The largest allowed loss, rise, fall or shift in the metric's unit, or None and the reason why there is none.

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


def limit_outcome(low: float, high: float, margin: float, limited: Limited = "loss") -> Outcome:
    """pass where the whole interval of the loss is at most the margin, fail where the whole of it is over it.

    A limit on a shift either way passes where the whole interval lies within the margin on both sides (two one-sided
    tests, each at 5 %) and fails where the whole of it lies beyond on one.

    Source: D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).
    """
    if limited == "shift" and low < -margin:
        return "fail" if high < -margin else "inconclusive"
    return "pass" if high <= margin else "fail" if low > margin else "inconclusive"
