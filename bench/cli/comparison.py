"""A comparison as tables: for each pair of variants the scores, then the times and the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from bench.cli.printing import Column, print_table, printable, say
from bench.records import Delta, MetricFacts, Ranking, Ratio, Record, TimingSummary
from bench.wording import decimals_for, holds, interval, number, percent, plural, quantity, set_letters, signed

Paired = TypeVar("Paired", Delta, Ratio)


class Comparison(Record, frozen=True):
    """What ``compare`` found; ``--json`` prints it as it is."""

    deltas: tuple[Delta, ...]
    """With ``--tag`` those of the tag; with ``--json`` alone those of all prompts and of every tag."""
    ratios: tuple[Ratio, ...] = ()
    """Timings of candidate over reference. None for two runs: ratios hold within a run, side by side."""
    timings: tuple[TimingSummary, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    """Of the three or more variants of one run; none with ``--tag`` or ``--pairs``, which choose among them."""


def print_comparison(comparison: Comparison, metrics: Sequence[MetricFacts]) -> None:
    """Prints a comparison on stdout, pair by pair; ``metrics`` tell which way is better."""
    pairs = dict.fromkeys((item.candidate, item.reference) for item in comparison.deltas + comparison.ratios)
    if not pairs:
        say("There is nothing to compare: no two variants with scores or timings.")
    for candidate, reference in pairs:
        deltas = _of_pair(comparison.deltas, candidate, reference)
        print(printable(f"{candidate} against {reference}{_behind(deltas)}\n"))
        if deltas:
            _print_deltas(deltas, {facts.name: facts.higher_is_better for facts in metrics})
        ratios = _of_pair(comparison.ratios, candidate, reference)
        if ratios:
            _print_ratios(ratios, comparison.timings)
    for ranking in comparison.rankings:
        _print_ranking(ranking)
    for note in _footnotes(comparison):
        print(note)


def _of_pair(items: Sequence[Paired], candidate: str, reference: str) -> list[Paired]:
    return [item for item in items if (item.candidate, item.reference) == (candidate, reference)]


def _behind(deltas: Sequence[Delta]) -> str:
    """What stands behind a pair's scores; a metric with less of it is counted in the footnotes."""
    if not deltas:
        return ""
    most = max(deltas, key=lambda delta: delta.samples)
    tag = "" if most.tag is None else f" tagged {most.tag}"
    return f" ({plural(most.prompts, 'prompt')}{tag}, {plural(most.samples, 'pair')} of images)"


def _print_deltas(deltas: Sequence[Delta], better: dict[str, bool | None]) -> None:
    headings = ("reference", "candidate", "delta", "interval", "wins")
    columns = [Column("metric"), *(Column(heading, number=True) for heading in headings)]
    print_table(columns, [_delta_row(delta, better.get(delta.metric)) for delta in deltas])
    print()


def _delta_row(delta: Delta, higher_is_better: bool | None) -> list[str]:
    found = delta.interval
    decimals = decimals_for((found.high - found.low) / 2 if found else abs(delta.mean))
    return [
        delta.metric,
        number(delta.reference_mean, decimals),
        number(delta.candidate_mean, decimals),
        signed(delta.mean, decimals),
        interval(found, decimals) + ("†" if holds(delta) else " "),
        # Of a metric that only describes, no side can win.
        "" if higher_is_better is None else percent(delta.win_rate),
    ]


def _print_ratios(ratios: Sequence[Ratio], timings: Sequence[TimingSummary]) -> None:
    summaries = {(summary.variant, summary.name): summary for summary in timings}
    rows = []
    for ratio in ratios:
        above, below = summaries[ratio.candidate, ratio.name], summaries[ratio.reference, ratio.name]
        rows.append(
            [
                ratio.name + ("*" if above.weak or below.weak else ""),
                quantity(below.median, below.unit),
                quantity(above.median, above.unit),
                f"{ratio.ratio:.3f}",
                interval(ratio.interval, 3, sign=False),
            ]
        )
    headings = ("reference", "candidate", "ratio", "interval")
    print_table([Column("median of"), *(Column(heading, number=True) for heading in headings)], rows)
    print()


def _print_ranking(ranking: Ranking) -> None:
    left_out = f"; without a score: {', '.join(ranking.left_out)}" if ranking.left_out else ""
    print(printable(f"Ranking by {ranking.metric} ({plural(ranking.prompts, 'prompt')}{left_out})\n"))
    decimals = decimals_for(max(one.interval.high - one.interval.low for one in ranking.strengths) / 2)
    rows = [
        [
            one.variant,
            signed(one.strength, decimals),
            interval(one.interval, decimals),
            f"{one.wins:,} / {one.ties:,} / {one.losses:,}",
            set_letters(one.variant, ranking.tied_sets),
        ]
        for one in ranking.strengths
    ]
    headings = ("strength", "interval", "won / tied / lost")
    print_table([Column("variant"), *(Column(heading, number=True) for heading in headings), Column("set")], rows)
    print()


def _footnotes(comparison: Comparison) -> list[str]:
    notes = []
    found = [delta.interval for delta in comparison.deltas if delta.interval is not None]
    if found:
        notes.append(f"Intervals: {found[0].level:.0%}, {found[0].method}.")
    spans = [ratio.interval for ratio in comparison.ratios if ratio.interval is not None]
    if spans:
        notes.append(f"Intervals of ratios: {spans[0].level:.0%}, {spans[0].method}; few rounds make them wide.")
    if any(holds(delta) for delta in comparison.deltas):
        tagged = any(delta.tag is not None for delta in comparison.deltas)
        family = "the tags of a metric" if tagged else "the metrics of a pair"
        notes.append(f"† holds at 5%, by Holm over {family}; --json has the p-values.")
    if any(delta.small_sample is not None for delta in comparison.deltas):
        notes.append("Under 30 prompts these are a little narrow; --json has t intervals as well.")
    if comparison.rankings:
        notes.append("Strength: log odds of winning a prompt, by Davidson's model.")
        notes.append("Variants that share a letter are not told apart at 5%, by Holm over the pairs.")
    missing = max((delta.missing for delta in comparison.deltas), default=0)
    if missing:
        notes.append(f"{plural(missing, 'pair')} of images left out of a metric: one side has no score.")
    if comparison.ratios and any(summary.weak for summary in comparison.timings):
        notes.append("* weak: few values, a wide spread or foreign load; --json says which.")
    return notes
