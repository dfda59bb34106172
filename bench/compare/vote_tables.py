"""Votes as tables of text, for ``compare``, ``vote status`` and both reports; names of voters in one of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from bench.compare.votes import MARGIN
from bench.formatting import NONE, decimals_for, interval, number, plural, signed
from bench.records import Interval, VotedReason, VoteResults

Columns = Mapping[str, Literal["name", "number", "text"]]
"""What the column of each heading holds."""
Table = tuple[str, Columns, list[list[str]]]


def _numbers(name: str, *headings: str) -> Columns:
    return {name: "name", **dict.fromkeys(headings, "number")}


def _times(found: VotedReason | None) -> str:
    return NONE if found is None else f"{found.votes:,} of {found.of:,}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f} %"


def _percent_ends(found: Interval | None) -> str:
    return NONE if found is None else f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def vote_tables(results: VoteResults, margin: float = 100 * MARGIN) -> Iterator[Table]:
    """Shares of votes, strengths, and the metrics beside the votes; ``margin`` is in points of per cent."""
    columns = _numbers(
        "votes on",
        "won / tied / lost",
        "both bad",
        "prompts",
        "voters",
        "share won",
        "interval",
        f"votes for ±{margin:g}",
    )
    yield (
        "Votes of people",
        columns,
        [
            [
                f"{one.candidate} against {one.reference}",
                f"{one.wins:,} / {one.ties:,} / {one.losses:,}",
                f"{one.bad:,}",
                f"{one.prompts:,}",
                f"{one.voters:,}",
                _percent(one.share),
                _percent_ends(one.interval),
                "enough" if one.needed is None and one.interval else NONE if one.needed is None else f"{one.needed:,}",
            ]
            for one in results.pairs
        ],
    )
    if results.strengths:
        decimals = decimals_for(max(one.interval.high - one.interval.low for one in results.strengths) / 2)
        rows = [
            [one.variant, signed(one.strength, decimals), interval(one.interval, decimals)] for one in results.strengths
        ]
        yield "Strengths by votes", _numbers("variant", "strength", "interval"), rows
    if results.reasons:
        variants = list(dict.fromkeys(one.variant for one in results.reasons))
        known = {(one.reason, one.variant): one for one in results.reasons}
        rows = [
            [reason, *(_times(known.get((reason, variant))) for variant in variants)]
            for reason in dict.fromkeys(one.reason for one in results.reasons)
        ]
        yield "Why it was chosen", _numbers("reason named", *variants), rows
    if results.agreement:
        rows = [
            [
                one.metric,
                f"{one.votes:,}",
                _percent(one.agreement),
                _percent_ends(one.interval),
                _percent(one.decided),
            ]
            for one in results.agreement
        ]
        if results.ceiling is not None:
            rows.append(["another voter", "", _percent(results.ceiling), NONE, NONE])
        yield "Metrics beside votes", _numbers("metric", "votes", "agrees", "interval", "of decided votes"), rows


def voter_table(results: VoteResults) -> Table:
    """Who voted, and how their controls went."""
    columns = _numbers("voter", "votes", "broken seen", "same called tie", "repeated alike")
    rows = [
        [
            one.label,
            f"{one.votes:,}",
            f"{one.broken_right} of {one.broken}",
            f"{one.same_tied} of {one.same}",
            f"{one.repeated_alike} of {one.repeated}",
            "no" if one.left_out else "yes",
        ]
        for one in results.voters
    ]
    return plural(len(rows), "voter"), {**columns, "counts": "name"}, rows


def vote_notes(results: VoteResults, *, names: bool = False) -> list[str]:
    """What stands below the tables; ``names`` says that those who are left out are named there already."""
    notes = list(results.notes)
    if not names and any(one.left_out for one in results.voters):
        notes.append("hotart-bench vote status names whose votes are not counted.")
    if results.strengths:
        notes.append("Strength by votes: log odds of a vote, by Davidson's model with ties.")
    if results.left is not None and results.left_interval is not None:
        notes.append(
            f"By its side the left picture gains {signed(results.left, 2)} {interval(results.left_interval, 2)} log "
            f"odds, which are taken out; a tie weighs {number(results.tie, 2)}."
        )
    if results.agreement:
        notes.append(
            "A metric agrees where it prefers what the voter preferred, or calls a tie what the voter called one; its "
            "threshold for a tie is chosen on other prompts."
        )
    return notes
