"""What every output of the gate shows: the order and words of outcomes, formatted numbers, a verdict's sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from bench import formatting as text
from bench.gate.check import subject
from bench.records import Gate, Limited, Outcome, Unit, Verdict
from bench.stats.bounds import LEVEL, MIN_PROMPTS

Inconclusive = Literal["fail", "warn"]
"""What an inconclusive verdict means to CI: it stops the merge, or it is shown and lets it through."""

WORST_FIRST: tuple[Outcome, ...] = ("invalid", "fail", "inconclusive", "pass")

WORDS: dict[Outcome, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts by outcome, invalid first and pass last, otherwise in their order."""
    return sorted(verdicts, key=lambda verdict: WORST_FIRST.index(verdict.outcome))


def unexplained(gate: Gate) -> str | None:
    """A sentence where no verdict says what the whole gate says, so that no list of verdicts looks better than it.

    None where the worst verdict is the gate's outcome. A gate without a verdict checked nothing.
    """
    if not gate.verdicts:
        return "The gate gave no verdict: nothing was checked."
    worst = worst_first(gate.verdicts)[0].outcome
    if worst == gate.outcome:
        return None
    return f"The gate as a whole is {gate.outcome}, while its worst verdict is {worst}; its notes say why."


# A verdict's numbers as a table shows them.

SIGNS: dict[Limited, str] = {"loss": "", "rise": "+", "fall": text.MINUS, "shift": "±"}


@dataclass(frozen=True)
class Formatted:
    """A dash where there is no number."""

    reference: str
    candidate: str
    loss: str
    interval: str
    margin: str
    detectable: str
    behind: str
    """How much stands behind it, such as ``240 prompts x 2``."""


def formatted(verdict: Verdict) -> Formatted:
    """The numbers in words: of a metric in its unit, of a timed quantity the loss in per cent.

    Of a metric that only describes, loss and interval are those of its shift, and the margin has its limit's sign. They
    are rounded by the interval's half width, or a tenth of the largest number there is.
    """
    timed, found = verdict.kind == "timing", verdict.interval
    scale, unit = (100.0, " %") if timed else (1.0, "")
    if found is not None and found.high > found.low:
        resolution = (found.high - found.low) / 2
    else:
        resolution = max((abs(one) for one in (verdict.loss, verdict.margin) if one is not None), default=0.0) / 10
    decimals = text.decimals_for(scale * resolution)

    def amount(value: float | None, sign: bool = False) -> str:
        write = text.signed if sign else text.number
        return text.NONE if value is None else write(scale * value, decimals) + unit

    def mean(value: float | None) -> str:
        if timed and value is not None and verdict.unit in ("second", "byte", "joule"):
            return text.quantity(value, cast(Unit, verdict.unit))
        return text.number(value, decimals)

    change, ends = (verdict.loss, found) if verdict.shift is None else (verdict.shift, verdict.shift_interval)
    per, many = ("round", "values") if timed else ("prompt", "images")
    return Formatted(
        reference=mean(verdict.reference_mean),
        candidate=mean(verdict.candidate_mean),
        loss=amount(change, True),
        interval=text.NONE if ends is None else f"[{amount(ends.low, True)}, {amount(ends.high, True)}]",
        margin=text.NONE if verdict.margin is None else SIGNS[verdict.limit.limited] + amount(verdict.margin),
        detectable=amount(verdict.detectable),
        behind=f"{text.plural(verdict.n, per) if timed else _prompts(verdict)} x {verdict.samples} {many}",
    )


# A verdict in one sentence that needs no statistics.

SURE = text.percent((1 + LEVEL) / 2)
NOMINAL, RATE_OF_FEW, RATE_OF_SKEWED = "5 %", "13 %", "10 %"
"""How often a gate passes, or fails, a model at exactly the limit: nominally, with 10 lognormal losses, and with 25 of
them. ``tests/figures/gating.py`` computes them."""
_GROWTH = {
    "second": ("took", "exactly as long as before", "longer", "shorter"),
    "byte": ("took up", "exactly as much as before", "more", "less"),
    "joule": ("used", "exactly as much as before", "more", "less"),
}
"""By unit: the verb, and the words for no change, a loss and a gain."""


def metric_sentence(verdict: Verdict, better: Literal["higher", "lower"], caution: str = "") -> str:
    """The verdict on a metric whose mean loss and interval are known as far as they can be.

    ``caution`` is what makes it worth less (``few_sentence``).
    """
    worse, gain = ("fall", "rise") if better == "higher" else ("rise", "fall")
    loss = verdict.loss or 0.0
    size = _amount(verdict, abs(loss))
    if loss == 0:
        moved = "did not change"
    elif float(size) == 0:
        moved = "hardly changed"
    else:
        moved = f"{'fell' if (loss > 0) == (better == 'higher') else 'rose'} by {size}"
    if verdict.margin and verdict.limit.limited == "shift":
        allowed = f"a shift of at most {_amount(verdict, verdict.margin)} either way is allowed"
    elif verdict.margin:
        allowed = f"a {worse} of at most {_amount(verdict, verdict.margin)} is allowed"
    else:
        allowed = "there is no margin yet"
    return (
        f"{subject(verdict)} {moved} on average over {_prompts(verdict)}; {allowed}, and "
        f"{_metric_reason(verdict, worse, gain)}{_weights(verdict)}.{caution}"
    )


def few_sentence(outcome: Outcome, *, few: bool, grouped: bool) -> str:
    """What the simulation of docs/gate.md says of a pass or fail on few prompts, or on fewer than 100 skewed ones."""
    verb, moves = ("pass", "lose") if outcome == "pass" else ("fail", "gain")
    what = "groups of prompts" if grouped else "prompts"
    if few:
        return (
            f" With so few {what}, up to {RATE_OF_FEW} of models at exactly the limit {verb} where a few {moves} much, "
            f"not {NOMINAL}."
        )
    return (
        f" The losses are skewed: with a long tail over so few {what}, up to {RATE_OF_SKEWED} of models at exactly "
        f"the limit {verb}, not {NOMINAL}."
    )


def _prompts(verdict: Verdict) -> str:
    """How many prompts, in how many groups, and what these are worth where their sizes differ much."""
    if verdict.groups is None or verdict.effective is None:
        return text.plural(verdict.n, "prompt")
    worth = f", worth {verdict.effective:.1f} equal ones" if verdict.effective < 0.9 * verdict.groups else ""
    return f"{text.plural(verdict.n, 'prompt')} in {text.plural(verdict.groups, 'group')}{worth}"


def unchanged_sentence(verdict: Verdict) -> str:
    """The verdict on a metric of which not one prompt changed."""
    if verdict.equal_weights:
        every = "the one prompt" if verdict.n == 1 else f"all {verdict.n:,} prompts"
        return f"{subject(verdict)} is the same on {every}, as it must be: the weights on both sides are equal."
    return f"{subject(verdict)}: no prompt changed, over {_prompts(verdict)}, although the weights differ."


def timing_sentence(verdict: Verdict, open_question: str = "") -> str:
    """The verdict on a timed quantity; ``open_question`` is why it is inconclusive where it is not the interval."""
    verb, same, more, less = _GROWTH[verdict.unit]
    loss, margin = verdict.loss or 0.0, text.NONE if verdict.margin is None else _share(verdict.margin)
    how = same if loss == 0 else f"{_share(abs(loss))} {more if loss > 0 else less}"
    means = verdict.candidate_mean, verdict.reference_mean
    now, before = (text.NONE if one is None else text.quantity(one, cast(Unit, verdict.unit)) for one in means)
    begin = f"{subject(verdict)} {verb} {how} ({now} against {before}, {text.plural(verdict.n, 'round')})"
    reason = open_question or _timing_reason(verdict, more)
    return f"{begin}; at most {margin} {more} is allowed, and {reason}{_weights(verdict)}."


def _metric_reason(verdict: Verdict, worse: str, gain: str) -> str:
    found, would_decide = verdict.interval, _would_decide(verdict.needed, "prompt")
    independent = verdict.n if verdict.effective is None else int(verdict.effective)
    if found is None or (verdict.outcome == "inconclusive" and independent < MIN_PROMPTS):
        what = "prompts" if verdict.effective is None else "groups of prompts of equal size"
        return f"fewer than {MIN_PROMPTS} {what} decide nothing; {would_decide}"
    low, high = _amount(verdict, found.low), _amount(verdict, found.high)
    if verdict.outcome == "fail":
        return f"the {worse} is larger than that: at least {low} with {SURE} confidence"
    if verdict.outcome == "pass" and verdict.limit.limited == "shift":
        most = _amount(verdict, max(-found.low, found.high))
        return f"with {SURE} confidence it is no larger than {most}"
    if verdict.outcome == "pass":
        none = f"with {SURE} confidence there is none"
        return none if found.high <= 0 else f"with {SURE} confidence it is no larger than {high}"
    start = f"a {gain} of {_amount(verdict, -found.low)}" if found.low < 0 else f"a {worse} of {low}"
    return f"the truth may lie on either side of that, from {start} to a {worse} of {high}; {would_decide}"


def _timing_reason(verdict: Verdict, more: str) -> str:
    found = verdict.interval
    if found is None:
        return "a single round decides nothing; give [measure] of the suite 5 rounds or more"
    if verdict.outcome == "fail":
        return f"the true figure is larger than that: at least {_share(found.low)} with {SURE} confidence"
    if verdict.outcome == "pass":
        none = f"with {SURE} confidence it is not {more} at all"
        return none if found.high <= 0 else f"with {SURE} confidence it is no more than {_share(found.high)}"
    ends = f"{text.signed(100 * found.low, 1)} % to {text.signed(100 * found.high, 1)} %"
    spans = f"the truth may lie on either side of that, from {ends}"
    if verdict.needed is None:
        return f"{spans}; more rounds would not decide it, but both as variants of one run might"
    return f"{spans}; {_would_decide(verdict.needed, 'round')}"


def _would_decide(needed: int | None, what: str) -> str:
    if needed is None:
        return f"how many {what}s would decide it is not known"
    return f"about {text.plural(needed, what)} would probably decide it"


def _weights(verdict: Verdict) -> str:
    if not verdict.equal_weights:
        return ""
    return "; the weights on both sides are equal" + (", so the change is not the model's" if verdict.loss else "")


def _amount(verdict: Verdict, value: float) -> str:
    """A number with two figures of what matters: the interval's half width or the margin, if that is smaller."""
    half = 0.0 if verdict.interval is None else (verdict.interval.high - verdict.interval.low) / 2
    resolution = min((size for size in (half, verdict.margin or 0.0) if size > 0), default=abs(value))
    return f"{value:.3g}" if resolution < 1e-4 else text.number(value, text.decimals_for(resolution))


def _share(value: float) -> str:
    return f"{text.number(100 * value, 1)} %"
