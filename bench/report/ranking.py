"""The report's ranking: three or more variants by the prompts they win, one column a judge."""

from __future__ import annotations

from dataclasses import dataclass

from bench import wording as text
from bench.compare import rank_variants
from bench.plots.data import headline_metrics
from bench.records import Ranking, Run


@dataclass(frozen=True)
class RankingCell:
    """One variant's strength by one judge, and the letters of the tied sets it is in."""

    strength: str
    interval: str
    letters: str


@dataclass(frozen=True)
class RankingRow:
    """One variant; None where a judge has no score of it."""

    variant: str
    colour: int
    cells: tuple[RankingCell | None, ...]


@dataclass(frozen=True)
class RankingTable:
    """The variants, the strongest by the first judge first."""

    note: str
    metrics: tuple[str, ...]
    rows: tuple[RankingRow, ...]


def ranking_table(run: Run) -> RankingTable | None:
    """The judges' rankings of the run's variants; None where there are fewer than three to rank."""
    judges = [facts.name for facts in headline_metrics(run.info.metrics)]
    rankings = sorted(rank_variants(run, metrics=judges), key=lambda one: judges.index(one.metric))
    if not rankings:
        return None
    names = [variant.name for variant in run.info.suite.variants]
    order = dict.fromkeys([one.variant for one in rankings[0].strengths] + names)
    columns = [_cells(one) for one in rankings]
    return RankingTable(
        note=_note(rankings),
        metrics=tuple(one.metric for one in rankings),
        rows=tuple(
            RankingRow(name, names.index(name) % 8, tuple(column.get(name) for column in columns)) for name in order
        ),
    )


def _cells(ranking: Ranking) -> dict[str, RankingCell]:
    decimals = text.decimals_for(max(one.interval.high - one.interval.low for one in ranking.strengths) / 2)
    return {
        one.variant: RankingCell(
            text.signed(one.strength, decimals),
            text.interval(one.interval, decimals),
            text.set_letters(one.variant, ranking.tied_sets),
        )
        for one in ranking.strengths
    }


def _note(rankings: list[Ranking]) -> str:
    counts = sorted({one.prompts for one in rankings})
    prompts = text.plural(counts[-1], "prompt") if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} prompts"
    return (
        f"How often a variant is better, not by how much: any two meet on {prompts}, and one wins or they tie. "
        "Strengths are log odds by Davidson's model with 95 % intervals; one point more wins 2.7 prompts for each "
        "that is lost. "
        "Variants that share a letter are not told apart (sign-flip test at 5 %, Holm over the pairs)."
    )
