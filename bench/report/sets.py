"""The section "Sameness and drift" of both reports: what set metrics say of each variant beside the reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import formatting as text
from bench.compare import compare_sets
from bench.compare.tags import large_tags
from bench.records import Delta, MetricFacts, MetricMean, Run, SetDelta

MOST_REASONS = 6
LARGEST_LOG = 700.0
"""exp of more overflows."""
NOTE = (
    "Numbers of several images at once, from embeddings; only samples and prompts count that every variant has. None "
    "means anything by itself, so each stands beside the reference's. A Vendi score is the number of different images "
    "that a set is worth: × 0.9 is a tenth less than the reference's. A drift is held against how far two noises of "
    "the reference lie apart. Intervals are over prompts; † holds at 5 %, of tags by Holm within them."
)


@dataclass(frozen=True)
class SetCell:
    """What a metric says of one pair of variants."""

    value: str
    interval: str
    holds: bool


@dataclass(frozen=True)
class SetRow:
    """A metric over all prompts, or over a tag."""

    metric: MetricFacts
    tag: str | None
    prompts: int
    beside: str
    """The reference's own value, or what a distance is held against; a dash where there is none."""
    cells: tuple[SetCell | None, ...]
    """A candidate each, in the suite's order."""

    @property
    def unit(self) -> str:
        """Of what is shown: of logarithms, which are stored, the numbers themselves."""
        return "images" if _is_logarithm(self.metric) else self.metric.unit


@dataclass(frozen=True)
class SetsView:
    """What the reports show of set metrics."""

    candidates: tuple[str, ...]
    """Those with set scores, each with a column; the reference is the run's first variant."""
    rows: tuple[SetRow, ...]
    """Over all prompts."""
    tagged: tuple[tuple[MetricFacts, tuple[SetRow, ...]], ...]
    """By metric, a row a tag; only of metrics over tags and distances."""
    notes: tuple[str, ...]
    """Which numbers there are not, and why."""


def sets_view(run: Run, means: Sequence[MetricMean], deltas: Sequence[Delta]) -> SetsView | None:
    """What the reports show of a run's set metrics; None where it has none.

    Args:
        run: a run as it was read.
        means: of ``metric_means``.
        deltas: of ``compare_run``.
    """
    metrics = [facts for facts in run.info.metrics if facts.over != "image"]
    if not metrics or not run.set_scores:
        return None
    first, *rest = (variant.name for variant in run.info.suite.variants)
    scored = {score.variant for score in run.set_scores}
    others = [name for name in rest if name in scored]
    sets = compare_sets(run, [(name, first) for name in others])
    rows, tagged = [], []
    for facts in metrics:
        every = [*_of_sets(facts, others, sets), *_of_prompts(facts, others, first, means, deltas)]
        rows += [row for row in every if row.tag is None]
        if of_tags := tuple(row for row in every if row.tag is not None):
            tagged.append((facts, of_tags))
    return SetsView(tuple(others), tuple(rows), tuple(tagged), tuple(_notes(run)))


def _of_sets(facts: MetricFacts, candidates: Sequence[str], deltas: Sequence[SetDelta]) -> Iterable[SetRow]:
    own = [one for one in deltas if one.metric == facts.name]
    decimals = _decimals(own)
    for tag in dict.fromkeys(one.tag for one in own):
        by_name = {one.candidate: one for one in own if one.tag == tag}
        known = next(iter(by_name.values()))
        beside = _beside(facts, known.reference_value, decimals)
        if known.scale is not None:
            beside = f"{text.number(known.scale, decimals)} between noises"
        cells = tuple(_cell(facts, by_name.get(name), decimals) for name in candidates)
        yield SetRow(facts, tag, known.prompts, beside, cells)


def _of_prompts(
    facts: MetricFacts, candidates: Sequence[str], first: str, means: Sequence[MetricMean], deltas: Sequence[Delta]
) -> Iterable[SetRow]:
    own = {
        one.candidate: one
        for one in deltas
        if one.metric == facts.name and one.tag is None and one.reference == first and one.candidate in candidates
    }
    if not own:
        return
    decimals = _decimals(own.values())
    mean = next((one.mean for one in means if (one.metric, one.variant) == (facts.name, first)), None)
    cells = tuple(_cell(facts, own.get(name), decimals) for name in candidates)
    yield SetRow(facts, None, max(one.prompts for one in own.values()), _beside(facts, mean, decimals), cells)


def _cell(facts: MetricFacts, delta: Delta | SetDelta | None, decimals: int) -> SetCell | None:
    """A difference with its interval; of logarithms their ratio."""
    if delta is None:
        return None
    found, holds = delta.interval, delta.p_holm is not None and delta.p_holm <= 0.05
    if _is_logarithm(facts):
        low_high = "" if found is None else f"[{_ratio(found.low, decimals)}, {_ratio(found.high, decimals)}]"
        return SetCell(f"× {_ratio(delta.mean, decimals)}", low_high or text.NONE, holds)
    sign = facts.category != "distance"
    value = text.signed(delta.mean, decimals) if sign else text.number(delta.mean, decimals)
    return SetCell(value, text.interval(found, decimals, sign), holds)


def _beside(facts: MetricFacts, value: float | None, decimals: int) -> str:
    if value is None:
        return text.NONE
    return f"{_ratio(value, decimals)} images" if _is_logarithm(facts) else text.number(value, decimals)


def _is_logarithm(facts: MetricFacts) -> bool:
    return facts.unit.startswith("ln(")


def _ratio(log: float, decimals: int) -> str:
    return text.number(math.exp(max(-LARGEST_LOG, min(LARGEST_LOG, log))), max(2, decimals))


def _decimals(deltas: Iterable[Delta | SetDelta]) -> int:
    found = list(deltas)
    widths = [(one.interval.high - one.interval.low) / 2 for one in found if one.interval is not None]
    return text.decimals_for(text.scale_of(widths) or text.scale_of(abs(one.mean) for one in found) / 10)


def _notes(run: Run) -> Iterable[str]:
    """How many numbers of each metric there are not, by reason; small tags, which have no row, are left out."""
    reasons: dict[tuple[str, str], int] = {}
    shown = (None, *large_tags(run.info.suite.prompts))
    for score in run.set_scores:
        if score.value is None and score.tag in shown:
            which = score.metric, score.reason or "no reason was recorded"
            reasons[which] = reasons.get(which, 0) + 1
    found = [
        f"{metric}: {text.plural(count, 'set has', 'sets have')} no number: {why}."
        for (metric, why), count in reasons.items()
    ]
    yield from found[:MOST_REASONS]
    if len(found) > MOST_REASONS:
        yield f"And {len(found) - MOST_REASONS} more reasons, in sets.jsonl."
