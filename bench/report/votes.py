"""The section "Votes" of both reports: tables as ``compare`` prints them, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.compare.vote_tables import Table, vote_notes, vote_tables
from bench.compare.votes import vote_results
from bench.records import Run

NOTE = (
    "People saw two pictures of the same prompt without names, in random order and on random sides, and chose the "
    "better one, a tie, or neither. A tie is half a win. Votes share no data with the training of any variant."
)


@dataclass(frozen=True)
class VotesView:
    """What the reports show of people's votes."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def votes_view(run: Run) -> VotesView | None:
    """The votes on a run as the reports show them; None where nobody voted."""
    results = vote_results(run)
    if results is None:
        return None
    return VotesView(tuple(vote_tables(results)), tuple(vote_notes(results)))
