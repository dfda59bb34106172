"""What every output of the gate has to know of verdicts: their order, their words, and their numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench import formatting as text
from bench.gate.check import Check, Statistics
from bench.records import Gate, Outcome, Unit, Verdict
from bench.stats.bounds import LEVEL, MIN_PROMPTS

# What every output of the gate has to know of verdicts: their order, their words, and their numbers in words.

Inconclusive = Literal["fail", "warn"]

"""What an inconclusive verdict means to CI: it stops the merge, or it is shown and lets it through."""

GRAVEST_FIRST: tuple[Outcome, ...] = ("invalid", "fail", "inconclusive", "pass")

WORDS: dict[Outcome, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}

_UNITS: dict[str, Unit] = {"second": "second", "byte": "byte", "joule": "joule"}


@dataclass(frozen=True)
class Shown:
    """A verdict's numbers as a table shows them; a dash where there is none."""

    reference: str
    candidate: str
    loss: str
    interval: str
    margin: str
    detectable: str
    behind: str
    """How much stands behind it, such as ``240 prompts x 2``."""


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts by outcome, invalid first and pass last, otherwise in their order."""
    return sorted(verdicts, key=lambda verdict: GRAVEST_FIRST.index(verdict.outcome))


def unexplained(gate: Gate) -> str | None:
    """A sentence where no verdict says what the whole gate says, so that no list of verdicts looks better than it.

    None where the gravest verdict is the gate's outcome. A gate without a verdict judged nothing.
    """
    if not gate.verdicts:
        return "The gate gave no verdict: nothing was judged."
    gravest = worst_first(gate.verdicts)[0].outcome
    if gravest == gate.outcome:
        return None
    return f"The gate as a whole is {gate.outcome}, while its gravest verdict is {gravest}; its notes say why."


def case_names(verdicts: Sequence[Verdict]) -> list[str]:
    """A name for each verdict that is unique within its candidate: the quantity, with the reference if it must."""
    seen = [(verdict.candidate, verdict.name) for verdict in verdicts]
    return [
        verdict.name if seen.count((verdict.candidate, verdict.name)) == 1 else f"{verdict.name} vs {verdict.reference}"
        for verdict in verdicts
    ]


def shown(verdict: Verdict) -> Shown:
    """The numbers in words: of a metric in its unit, of a timed quantity the loss in per cent."""
    timed = verdict.kind == "timing"
    scale, unit = (100.0, " %") if timed else (1.0, "")
    decimals = text.decimals_for(scale * _resolution(verdict))

    def amount(value: float | None, sign: bool = False) -> str:
        if value is None:
            return text.NONE
        write = text.signed if sign else text.number
        return write(scale * value, decimals) + unit

    found = verdict.interval
    ends = text.NONE if found is None else f"[{amount(found.low, True)}, {amount(found.high, True)}]"
    per, many = ("round", "values") if timed else ("prompt", "images")
    return Shown(
        reference=_mean(verdict, verdict.reference_mean, decimals),
        candidate=_mean(verdict, verdict.candidate_mean, decimals),
        loss=amount(verdict.loss, True),
        interval=ends,
        margin=amount(verdict.margin),
        detectable=amount(verdict.detectable),
        behind=f"{text.plural(verdict.n, per)} x {verdict.samples} {many}",
    )


def _resolution(verdict: Verdict) -> float:
    """What rounding goes by: the interval's half width, or a tenth of the largest number there is."""
    if verdict.interval is not None and verdict.interval.high > verdict.interval.low:
        return (verdict.interval.high - verdict.interval.low) / 2
    return max((abs(value) for value in (verdict.loss, verdict.margin) if value is not None), default=0.0) / 10


def _mean(verdict: Verdict, value: float | None, decimals: int) -> str:
    unit = _UNITS.get(verdict.unit)
    if value is not None and verdict.kind == "timing" and unit is not None:
        return text.quantity(value, unit)
    return text.number(value, decimals)


# A verdict in one sentence that needs no statistics.

SURE = text.percent((1 + LEVEL) / 2)

Better = Literal["higher", "lower"]


def metric_sentence(check: Check, outcome: Outcome, statistics: Statistics, better: Better) -> str:
    """The verdict on a metric whose margin and mean loss are known."""
    worse_is = "fall" if better == "higher" else "rise"
    begin = f"{check.subject} {_moved(statistics, better)} on average over {text.plural(statistics.n, 'prompt')}"
    margin = _amount(statistics, statistics.margin)
    allowed = f"a {worse_is} of at most {margin} is allowed" if margin else "there is no margin yet"
    return f"{begin}; {allowed}, and {_metric_reason(outcome, statistics, better)}{_weights(check, statistics)}."


def unchanged_sentence(check: Check, n: int) -> str:
    """The verdict on a metric of which not one prompt changed."""
    if check.equal_weights:
        every = f"the same on {_every(n)}, as it must be"
        return f"{check.subject} is {every}: the weights on both sides are equal."
    return f"{check.subject}: no prompt changed, over {text.plural(n, 'prompt')}, although the weights differ."


def timing_sentence(check: Check, outcome: Outcome, statistics: Statistics, doubt: str = "") -> str:
    """The verdict on a timed quantity; ``doubt`` says why it is inconclusive where it is not the interval."""
    more = "longer" if check.unit == "second" else "more"
    margin = text.NONE if statistics.margin is None else _share(statistics.margin)
    begin = f"{check.subject} {_grew(check, statistics, more)}; at most {margin} {more} is allowed"
    return f"{begin}, and {doubt or _timing_reason(outcome, statistics, more)}{_weights(check, statistics)}."


def _moved(statistics: Statistics, better: Better) -> str:
    loss = statistics.loss or 0.0
    if loss == 0:
        return "did not change"
    size = _amount(statistics, abs(loss))
    if float(size) == 0:
        return "hardly changed"
    return f"{'fell' if (loss > 0) == (better == 'higher') else 'rose'} by {size}"


def _metric_reason(outcome: Outcome, statistics: Statistics, better: Better) -> str:
    worse, gain = ("fall", "rise") if better == "higher" else ("rise", "fall")
    low, high = statistics.low, statistics.high
    if low is None or high is None:
        return _too_few(statistics)
    if outcome == "fail":
        return f"the {worse} is larger than that: at least {_amount(statistics, low)} with {SURE} confidence"
    if outcome == "pass":
        if high <= 0:
            return f"with {SURE} confidence there is none"
        return f"with {SURE} confidence it is no larger than {_amount(statistics, high)}"
    if statistics.n < MIN_PROMPTS:
        return _too_few(statistics)
    ends = f"a {gain} of {_amount(statistics, -low)}" if low < 0 else f"a {worse} of {_amount(statistics, low)}"
    return (
        f"the truth may lie on either side of that, from {ends} to a {worse} of {_amount(statistics, high)}; "
        f"{_would_decide(statistics.needed, 'prompt')}"
    )


def _too_few(statistics: Statistics) -> str:
    return f"fewer than {MIN_PROMPTS} prompts decide nothing; {_would_decide(statistics.needed, 'prompt')}"


def _would_decide(needed: int | None, what: str) -> str:
    if needed is None:
        return f"how many {what}s would decide it is not known"
    return f"about {text.plural(needed, what)} would probably decide it"


def _timing_reason(outcome: Outcome, statistics: Statistics, more: str) -> str:
    low, high = statistics.low, statistics.high
    if low is None or high is None:
        return "a single round decides nothing; give [measure] of the suite 5 rounds or more"
    if outcome == "fail":
        return f"the true figure is larger than that: at least {_share(low)} with {SURE} confidence"
    if outcome == "pass":
        none = f"with {SURE} confidence it is not {more} at all"
        return none if high <= 0 else f"with {SURE} confidence it is no more than {_share(high)}"
    spans = f"the truth may lie on either side of that, from {_signed(low)} to {_signed(high)}"
    if statistics.needed is None:
        return f"{spans}; more rounds would not decide it, but both as variants of one run might"
    return f"{spans}; {_would_decide(statistics.needed, 'round')}"


def _grew(check: Check, statistics: Statistics, more: str) -> str:
    less = {"longer": "shorter", "more": "less"}[more]
    verb = "took" if more == "longer" else "took up"
    loss = statistics.loss or 0.0
    same = "exactly as long as before" if more == "longer" else "exactly as much as before"
    how = same if loss == 0 else f"{_share(abs(loss))} {more if loss > 0 else less}"
    means = statistics.candidate_mean, statistics.reference_mean
    unit: Unit = "second" if check.unit == "second" else "byte"
    now, before = (text.NONE if value is None else text.quantity(value, unit) for value in means)
    return f"{verb} {how} ({now} against {before}, {text.plural(statistics.n, 'round')})"


def _weights(check: Check, statistics: Statistics) -> str:
    if not check.equal_weights:
        return ""
    return "; the weights on both sides are equal" + (", so the change is not the model's" if statistics.loss else "")


def _every(n: int) -> str:
    return "the one prompt" if n == 1 else f"all {n:,} prompts"


def _amount(statistics: Statistics, value: float | None) -> str:
    """A number with two figures of what matters: the interval's half width or the margin, if that is smaller."""
    if value is None:
        return ""
    half = 0.0 if statistics.low is None or statistics.high is None else (statistics.high - statistics.low) / 2
    sizes = [size for size in (half, statistics.margin or 0.0) if size > 0]
    resolution = min(sizes, default=abs(value))
    if resolution < 1e-4:
        return f"{value:.3g}"
    return text.number(value, text.decimals_for(resolution))


def _share(value: float) -> str:
    return f"{text.number(100 * value, 1)} %"


def _signed(value: float) -> str:
    return f"{text.signed(100 * value, 1)} %"
