"""What every output of the gate has to know of verdicts: their order, their words, and their numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench import wording as text
from bench.records import Gate, Outcome, Unit, Verdict

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


def gravest_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts by outcome, invalid first and pass last, otherwise in their order."""
    return sorted(verdicts, key=lambda verdict: GRAVEST_FIRST.index(verdict.outcome))


def unexplained(gate: Gate) -> str | None:
    """A sentence where no verdict says what the whole gate says, so that no list of verdicts looks better than it.

    None where the gravest verdict is the gate's outcome. A gate without a verdict judged nothing.
    """
    if not gate.verdicts:
        return "The gate gave no verdict: nothing was judged."
    gravest = gravest_first(gate.verdicts)[0].outcome
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
