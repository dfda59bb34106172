"""What a run says, in plain sentences made from its paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from bench import wording as text
from bench.plots.data import PlotData
from bench.records import Axis, Delta, MetricFacts
from bench.report.headline import judged


def summary(data: PlotData) -> tuple[str, ...]:
    """One plain sentence a pair: on which judges better, on which worse, on which not told apart."""
    facts = {one.name: one for one in data.metrics}
    pairs = dict.fromkeys((one.candidate, one.reference) for one in data.deltas)
    decimals = {name: text.decimals_of_deltas(one for one in data.deltas if one.metric == name) for name in facts}
    return tuple(
        _sentence(pair, [one for one in data.deltas if (one.candidate, one.reference) == pair], facts, decimals)
        for pair in pairs
    )


def _sentence(
    pair: tuple[str, str], deltas: Sequence[Delta], facts: dict[str, MetricFacts], decimals: dict[str, int]
) -> str:
    groups: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    for delta in deltas:
        groups[judged(delta, facts[delta.metric])].append(
            f"{_WORDS[facts[delta.metric].axis]} ({delta.metric} {text.signed(delta.mean, decimals[delta.metric])})"
        )
    clauses = []
    if groups["better"]:
        clauses.append(f"better than {pair[1]} on {text.listed(groups['better'])}")
    if groups["worse"]:
        clauses.append(f"worse {'' if clauses else f'than {pair[1]} '}on {text.listed(groups['worse'])}")
    if groups[""]:
        other = "" if clauses else f" from {pair[1]}"
        clauses.append(f"not told apart{other} on {text.listed(groups[''])}")
    return f"{pair[0]} is {'; '.join(clauses)}."


_WORDS: dict[Axis, str] = {"preference": "preference", "aesthetic": "aesthetics", "alignment": "alignment"}


def cautions(data: PlotData) -> tuple[str, ...]:
    """What a reader must know before believing the headline: judges' standing, few prompts, missing scores."""
    found = []
    judges = [facts for facts in data.metrics if facts.axis != "alignment"]
    kin = [facts.name for facts in judges if facts.standing == "in-family"]
    if kin:
        found.append(
            f"{text.listed(kin)} {'was' if len(kin) == 1 else 'were'} part of the training of preference-optimised "
            "variants (in-family): a gain there is expected, and is no evidence of its own."
        )
    if judges and not any(facts.standing == "held-out" for facts in judges):
        found.append("No judge of preference or aesthetics in this run is held out.")
    prompts = max((one.prompts for one in data.deltas), default=0)
    if 0 < prompts < 30:
        verb = "is" if prompts == 1 else "are"
        found.append(f"{text.plural(prompts, 'prompt')} {verb} few: read the intervals, not the means.")
    return tuple(found)
