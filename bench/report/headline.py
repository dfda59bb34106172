"""What paired differences say in words: better, worse or not told apart, and what a reader should be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import formatting as text
from bench.compare.tags import ADVICE
from bench.metrics.training_data import SAY_IT
from bench.plots.data import PlotData
from bench.records import Category, Delta, Interval, MetricFacts, RateChange, TrainingOverlap

_CATEGORIES: dict[Category, str] = {"preference": "preference", "aesthetic": "aesthetics", "alignment": "alignment"}


def way(facts: MetricFacts) -> int:
    """1 where higher is better, -1 where lower is, 0 where a metric only describes."""
    return 0 if facts.higher_is_better is None else 1 if facts.higher_is_better else -1


def direction(facts: MetricFacts) -> str:
    """``higher is better``, ``lower is better`` or ``descriptive``."""
    return ("descriptive", "higher is better", "lower is better")[way(facts)]


def decisive(delta: Delta) -> Interval | None:
    """The t interval under 30 prompts, where the bootstrap's is too narrow, else the bootstrap's."""
    return delta.small_sample or delta.interval


def better_or_worse(delta: Delta, facts: MetricFacts) -> str:
    """``better`` or ``worse`` where the interval of ``decisive`` lies on one side of zero, else an empty string."""
    found = decisive(delta)
    if found is None or way(facts) == 0:
        return ""
    low, high = sorted((way(facts) * found.low, way(facts) * found.high))
    return "better" if low > 0 else "worse" if high < 0 else ""


def pair_name(delta: Delta | RateChange) -> str:
    """``spo − base``."""
    return f"{delta.candidate} {text.MINUS} {delta.reference}"


def won(delta: Delta) -> str:
    """``14 of 20``, and how many prompts are tied."""
    return f"{delta.wins} of {delta.prompts}" + (f", {delta.ties} tied" if delta.ties else "")


def compared(delta: Delta) -> str:
    """``20 prompts``, and how many pairs of images lack a score."""
    return text.plural(delta.prompts, "prompt") + (f", {delta.missing} missing" if delta.missing else "")


def summary(data: PlotData) -> tuple[str, ...]:
    """One sentence a pair: on which metrics it is better, on which worse, on which not told apart."""
    decimals = {facts.name: text.decimals_of_deltas(deltas) for facts, deltas in data.by_metric()}
    pairs: dict[tuple[str, str], list[Delta]] = {}
    for delta in data.deltas:
        pairs.setdefault((delta.candidate, delta.reference), []).append(delta)
    facts = {one.name: one for one in data.metrics}
    return tuple(_sentence(deltas, facts, decimals) for deltas in pairs.values())


def _sentence(deltas: Sequence[Delta], facts: Mapping[str, MetricFacts], decimals: Mapping[str, int]) -> str:
    candidate, reference = deltas[0].candidate, deltas[0].reference
    groups: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    for delta in deltas:
        own = facts[delta.metric]
        groups[better_or_worse(delta, own)].append(
            f"{_CATEGORIES[own.category]} ({delta.metric} {text.signed(delta.mean, decimals[delta.metric])})"
        )
    clauses: list[str] = []
    for found, words in (("better", "better than"), ("worse", "worse than"), ("", "not told apart from")):
        if groups[found]:
            # The first clause names the reference, the others mean the same one.
            against = words.rpartition(" ")[0] if clauses else f"{words} {reference}"
            clauses.append(f"{against} on {text.joined(groups[found])}")
    return f"{candidate} is {'; '.join(clauses)}."


def overlap_cautions(data: PlotData) -> list[str]:
    """Of each candidate, which metrics of preference and aesthetics prove little, or nobody can say."""
    liking = {facts.name for facts in data.metrics if facts.category != "alignment"}
    labels: dict[str, dict[str, TrainingOverlap]] = {}
    for one in data.deltas:
        if one.metric in liking:
            labels.setdefault(one.candidate, {})[one.metric] = one.training_overlap
    same: dict[tuple[str, ...], list[str]] = {}
    for candidate, own in labels.items():
        same.setdefault(tuple(metric for metric, label in own.items() if label == "same data"), []).append(candidate)
    found = [
        f"{text.joined(names)} {'was' if len(names) == 1 else 'were'} trained to please {text.joined(metrics)}, or on "
        "the data that it learnt from (same data): a gain there is expected, and is not evidence of its own."
        for metrics, names in same.items()
        if metrics
    ]
    unknown = [name for name, own in labels.items() if "unknown" in own.values()]
    bare = [name for name, own in labels.items() if name not in unknown and "none" not in own.values()]
    if bare:
        found.append(
            f"No metric of preference or aesthetics in this run is free of training overlap with {text.joined(bare)}."
        )
    if unknown:
        advice = "images that are given do not say it" if data.suite.external_images is not None else SAY_IT
        found.append(f"Whether a metric shares training data with {text.joined(unknown)} is unknown: {advice}.")
    return found


def cautions(data: PlotData) -> tuple[str, ...]:
    """What to know before believing the headline: training overlap, prompts that are alike, few prompts."""
    found = overlap_cautions(data)
    explained = max((one.tags_explain for one in data.deltas if one.tags_explain is not None), default=None)
    if explained is not None:
        found.append(f"Tags explain up to {text.percent(explained)} of the differences in a metric. {ADVICE}")
    prompts = max((one.prompts for one in data.deltas), default=0)
    if 0 < prompts < 30:
        verb = "is" if prompts == 1 else "are"
        found.append(f"{text.plural(prompts, 'prompt')} {verb} few: read the intervals, not the means.")
    return tuple(found)


def tradeoff_note(data: PlotData) -> str:
    """How to read the figure of the trade-off."""
    across = next((one for one in data.metrics if one.category != "alignment"), None)
    up = next((one for one in data.metrics if one.category == "alignment"), None)
    if across is None or up is None:
        return ""
    corner = f"{'up' if up.higher_is_better else 'down'} and to the {'right' if across.higher_is_better else 'left'}"
    return (
        "Each faint mark is a prompt, each large one a variant's mean difference to its reference with its 95 % "
        f"intervals. The dashed lines are no difference; what is better in both lies {corner}."
    )


def headline_note(data: PlotData) -> str:
    """How to read the figure and the tables of the headline."""
    method = next((f" ({one.interval.method})" for one in data.deltas if one.interval), "")
    small = any(one.small_sample for one in data.deltas)
    return (
        "Preference and aesthetics say how much an image is liked, alignment how well it follows its prompt. Images "
        f"are paired by prompt and {'sample' if data.suite.external_images else 'noise'}, and the samples of a prompt "
        f"are averaged first. Marks are mean differences, bars 95 % intervals{method}; faint strokes are single "
        f"prompts.{' Under 30 prompts a t interval stands beside.' if small else ''}"
    )
