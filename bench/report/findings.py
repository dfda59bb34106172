"""A finding as the reports show it: its word, and the numbers of its metrics."""

from __future__ import annotations

from bench import formatting as text
from bench.compare.finding import ERROR
from bench.records import Finding, FindingMetric

TOGETHER = f"all upper ends with {text.percent(1 - ERROR)}, and all lower ends"
"""At which level the intervals of a finding hold, of all its metrics at once."""


def word(one: Finding) -> str:
    """``Earned``: how the first sentence begins, to be set in bold."""
    return one.word.capitalize()


def rest(one: Finding) -> str:
    """What follows the word in the first sentence, its colon included."""
    return one.sentences[0].removeprefix(word(one))


def how_to_read(one: Finding) -> str:
    """What stands behind the intervals, in a sentence."""
    found = next((row.interval for row in one.metrics if row.interval is not None), None)
    if found is None:
        return "No metric could be read."
    return (
        f"Differences are {one.candidate} {text.MINUS} {one.reference}, prompts as the unit. The intervals hold "
        f"together: {TOGETHER} ({found.method}). A gain is shown where one lies "
        "wholly on the better side of 0, a price where it lies wholly beyond the limit. docs/finding.md has the rules "
        "and how often they are wrong."
    )


def candidate_mean(row: FindingMetric) -> float | None:
    """The candidate's mean of a metric; None where there is none of one of the sides."""
    return None if row.reference_mean is None or row.mean is None else row.reference_mean + row.mean


def cells(row: FindingMetric) -> dict[str, str]:
    """The numbers of a metric by column, a dash where there is none."""
    half = 0.0 if row.interval is None else (row.interval.high - row.interval.low) / 2
    decimals = text.decimals_for(half if half > 0 else abs(row.mean or 0.0))
    sign = {"+": "+", "-": text.MINUS}.get(row.limit[:1], "") if row.limit[:2] != "+-" else "±"
    return {
        "overlap": row.training_overlap if row.higher_is_better is not None else text.NONE,
        "candidate": text.number(candidate_mean(row), decimals),
        "reference": text.number(row.reference_mean, decimals),
        "difference": text.signed(row.mean, decimals),
        "interval": text.interval(row.interval, decimals),
        "limit": text.NONE if row.margin is None else sign + text.number(row.margin, decimals),
        "whose": "" if not row.limit else f"({row.limit}, {'the suite' if row.own_limit else 'default'})",
        "prompt_spreads": text.signed(row.prompt_spreads, 2),
        "sample_spreads": text.signed(row.sample_spreads, 2),
    }
