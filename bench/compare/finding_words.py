"""The sentences of a finding: what it is, what it rests on, how large that is without statistics, what stays open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench import formatting as text
from bench.metrics.training_data import SAY_IT, SAY_IT_OF_JUDGE
from bench.records import GAINS, VOTES_METRIC, FindingMetric, FindingWord, TrainingOverlap
from bench.suite.judges import is_of_judge

_FIRST: tuple[TrainingOverlap, ...] = ("none", "unknown", "related data", "same data")
"""The order in which gains are told."""


def sentences(word: FindingWord, candidate: str, reference: str, metrics: Sequence[FindingMetric]) -> tuple[str, ...]:
    """The finding in plain words first, then a sentence for each gain and price, and what is not known."""
    gains = sorted((one for one in metrics if one.reads == "gain"), key=lambda one: _FIRST.index(one.training_overlap))
    prices = [one for one in metrics if one.reads == "price"]
    prompts = max((one.prompts for one in metrics), default=0)
    found = [
        _lead(word, f"{candidate} gains over {reference}", gains, prices, text.plural(prompts, "prompt")),
        *(_gain(one, reference) for one in gains),
        *(_price(one, reference) for one in prices),
        _gains_not_excluded(word, metrics, reference),
        _open(metrics),
        _say_training(candidate, metrics) if word == "not shown" else "",
        _no_free_metric(candidate, metrics),
        _not_read(metrics),
    ]
    return tuple(filter(None, found))


def _lead(
    word: FindingWord,
    pair: str,
    gains: Sequence[FindingMetric],
    prices: Sequence[FindingMetric],
    prompts: str,
) -> str:
    free, unknown = (_names(one for one in gains if one.training_overlap == label) for label in ("none", "unknown"))
    price = f" The price: {_names(prices)}." if prices else ""
    if word == "earned":
        return f"Earned: {pair} in {free}, free of overlap with its training, and no price is shown ({prompts})."
    if word == "mixed":
        return f"Mixed: {pair} in {free}, free of overlap with its training, and pays in {_names(prices)} ({prompts})."
    if word == "bought":
        return f"Bought: {pair} only in {_names(gains)}, which share data with its training ({prompts}).{price}"
    if word == "worse":
        return f"Worse: {pair} in no metric, and loses in {_names(prices)} ({prompts})."
    if unknown:
        return (
            f"Not shown: {pair} in {unknown}, but nobody says whether it was trained on their data ({prompts}).{price}"
        )
    moved = f" What moved: {_names(prices)}." if prices else ""
    return f"Not shown: {pair} in no metric, as far as {prompts} can tell.{moved}"


def _names(metrics: Iterable[FindingMetric]) -> str:
    return text.joined([one.metric for one in metrics])


def _gain(one: FindingMetric, reference: str) -> str:
    overlap = {
        "none": "no training overlap",
        "unknown": "training overlap unknown",
        "same data": "trained on the same data",
        "related data": "trained on related data",
    }[one.training_overlap]
    return f"Gain in {one.metric} ({overlap}): {_size(one, reference)}{_difference(one)}."


def _price(one: FindingMetric, reference: str) -> str:
    whose = "the suite's limit" if one.own_limit else "the default limit"
    what = "Shift of" if one.higher_is_better is None else "Loss in"
    beyond = f"beyond {whose} of {one.limit} ({_number(one, one.margin)})"
    return f"{what} {one.metric}: {_size(one, reference)}{_difference(one)}, {beyond}."


def _difference(one: FindingMetric) -> str:
    decimals = _decimals(one)
    return f"{text.signed(one.mean, decimals)} {text.interval(one.interval, decimals)}"


def _size(one: FindingMetric, reference: str) -> str:
    """How large a difference is for somebody who reads no statistics."""
    parts = []
    if one.pairs_won is not None:
        what = "votes" if one.metric == VOTES_METRIC else "pairs of images"
        parts.append(f"{text.number(10 * one.pairs_won, 1)} of 10 {what} won")
    if one.prompt_spreads is not None:
        parts.append(f"{_times(one.prompt_spreads)} the spread between prompts of {reference}")
    if one.sample_spreads is not None:
        parts.append(f"{_times(one.sample_spreads)} what another seed does")
    return f"{text.joined(parts)}; " if parts else ""


def _times(value: float) -> str:
    size = abs(value)
    return f"{text.number(size, 2 if size < 0.095 else 1)} times"


def _open(metrics: Sequence[FindingMetric]) -> str:
    """What so many prompts cannot exclude."""
    found = [one for one in metrics if one.reads == "not excluded"]
    if not found:
        return ""
    parts = [f"{one.metric} (up to {_number(one, _farthest(one))}, limit {_number(one, one.margin)})" for one in found]
    return f"Not excluded by so many prompts is a price in {text.joined(parts)}."


def _gains_not_excluded(word: FindingWord, metrics: Sequence[FindingMetric], reference: str) -> str:
    """Of what is called bought, the gains without training overlap that so few prompts may have missed."""
    parts = []
    for one in metrics if word == "bought" else ():
        if one.training_overlap != "none" or one.category not in GAINS or one.interval is None:
            continue
        most = one.interval.high if one.higher_is_better else -one.interval.low
        if one.higher_is_better is not None and most > 0:
            size = (
                f", {_times(most / one.prompt_sd)} the spread between prompts of {reference}" if one.prompt_sd else ""
            )
            parts.append(f"{one.metric} (up to {_number(one, most)}{size})")
    return f"Not excluded by so many prompts is a gain in {text.joined(parts)}." if parts else ""


def _farthest(one: FindingMetric) -> float:
    """The largest loss, or shift the way its limit is on, that the interval holds."""
    if one.interval is None:
        return 0.0
    low, high = one.interval.low, one.interval.high
    if one.higher_is_better is None:
        return {"+": high, "-": -low}.get(one.limit[0] if one.limit[:2] != "+-" else "", max(high, -low))
    return -low if one.higher_is_better else high


def _say_training(candidate: str, metrics: Sequence[FindingMetric]) -> str:
    """Who has to say what it was trained on where a gain is of unknown overlap: the candidate, a judge, or both.

    It is a judge alone where the overlap of what is no judge's is known.
    """
    unknown = [one for one in metrics if one.training_overlap == "unknown"]
    if not any(one.reads == "gain" for one in unknown):
        return ""
    others = [one for one in metrics if not is_of_judge(one.metric)]
    judged = any(is_of_judge(one.metric) for one in unknown if one.reads == "gain")
    parts = [f"of {candidate}, {SAY_IT}"] if not others or any(one in unknown for one in others) else []
    parts += [SAY_IT_OF_JUDGE] if judged else []
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}."


def _no_free_metric(candidate: str, metrics: Sequence[FindingMetric]) -> str:
    able = [one for one in metrics if one.higher_is_better is not None and one.category in ("preference", "aesthetic")]
    if not able or any(one.training_overlap in ("none", "unknown") for one in able):
        return ""
    return (
        f"Every metric of preference and aesthetics here shares training data with {candidate}: add one that does not."
    )


def _not_read(metrics: Sequence[FindingMetric]) -> str:
    reasons: dict[str, list[str]] = {}
    for one in metrics:
        if one.reads in ("not read", "no limit"):
            reasons.setdefault(one.reason, []).append(one.metric)
    parts = [f"{text.joined(names)} ({reason})" for reason, names in reasons.items()]
    missing = max((one.missing for one in metrics), default=0)
    lacking = f" Up to {text.plural(missing, 'prompt')} without scores on both sides were left out." if missing else ""
    return (f"Not judged: {'; '.join(parts)}." if parts else "") + lacking


def _decimals(one: FindingMetric) -> int:
    found = one.interval
    half = 0.0 if found is None else (found.high - found.low) / 2
    return text.decimals_for(half if half > 0 else abs(one.mean or 0.0))


def _number(one: FindingMetric, value: float | None) -> str:
    return text.number(value, _decimals(one))
