"""How often intervals of votes hold the truth, by simulation through the product's own functions.

``python -m tests.figures.votes`` prints the table of docs/votes.md, ``--write`` puts it there. Three variants are
voted on by Davidson's model. Each prompt and each voter has an advantage of its own for each variant, normal with the
standard deviation of the row, and each voter an own liking of the left side and of ties. A voter votes on some of the
prompts, each time on two variants at random. The truth is that of an average prompt and voter, from 400,000 votes of as
many prompts and voters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.stats import wilson_interval
from bench.stats.effects import Floats
from bench.stats.votes import fit_votes, share_of_votes

from .figure import Figure, table, write_between

PAGE = Path(__file__).parents[2] / "docs" / "votes.md"
BEGIN, END = "<!-- simulation begins -->", "<!-- simulation ends -->"
RUNS = 1_000
STRENGTHS = np.array([0.0, 0.3, 0.6])
"""Of an average prompt and voter without effects, as log odds."""
LOG_TIE, TIE_SD = -0.7, 0.5
"""Log nu of Davidson's model, and its spread between voters."""
SIDE_SD = 0.3
"""Of the voters' liking of the left side, as log odds."""
LEAST, MOST = 0.93, 0.97
TRUTH_VOTES = 400_000


@dataclass(frozen=True)
class Design:
    """How many vote on how much, and how much they differ."""

    voters: int
    prompts: int
    votes: int
    """Of each voter."""
    prompt_sd: float
    voter_sd: float


DESIGNS = (
    Design(8, 24, 48, 0.0, 0.0),
    Design(8, 24, 48, 0.8, 0.0),
    Design(8, 24, 48, 0.0, 0.5),
    Design(8, 24, 48, 0.8, 0.5),
    Design(8, 100, 60, 0.8, 0.5),
    Design(12, 50, 40, 0.8, 0.5),
    Design(20, 50, 25, 0.8, 0.3),
    Design(20, 100, 100, 0.8, 0.5),
    Design(40, 100, 20, 0.5, 0.5),
    Design(100, 40, 20, 0.8, 0.8),
)


class Drawn(NamedTuple):
    """Simulated votes."""

    pairs: NDArray[np.int64]
    outcomes: Floats
    sides: Floats
    prompts: NDArray[np.int64]
    voters: NDArray[np.int64]


def draw(rng: np.random.Generator, design: Design) -> Drawn:
    """The votes of one simulated panel."""
    places = [rng.permutation(design.prompts * 3)[: design.votes] for _ in range(design.voters)]
    prompts = np.concatenate(places) // 3
    return _draw(rng, design, prompts, np.repeat(np.arange(design.voters), [len(one) for one in places]))


def _draw(rng: np.random.Generator, design: Design, prompts: NDArray[np.int64], voters: NDArray[np.int64]) -> Drawn:
    of_prompt = rng.normal(0, design.prompt_sd, (prompts.max() + 1, len(STRENGTHS)))
    people = voters.max() + 1
    of_voter = rng.normal(0, design.voter_sd, (people, len(STRENGTHS)))
    liking, ties = rng.normal(0, SIDE_SD, people), rng.normal(LOG_TIE, TIE_SD, people)
    first = rng.integers(len(STRENGTHS), size=len(prompts))
    second = (first + rng.integers(1, len(STRENGTHS), size=len(prompts))) % len(STRENGTHS)
    sides = rng.choice([-1.0, 1.0], size=len(prompts))
    own = STRENGTHS + of_prompt[prompts] + of_voter[voters]
    rows = np.arange(len(prompts))
    half = (own[rows, first] - own[rows, second] + liking[voters] * sides) / 2
    logs = np.stack([half, ties[voters], -half], axis=1) + rng.gumbel(size=(len(prompts), 3))
    outcomes = 1.0 - logs.argmax(axis=1)
    return Drawn(np.stack([first, second], axis=1), outcomes, sides, prompts, voters)


class Truth(NamedTuple):
    """Of an average prompt and voter."""

    share: float
    """Of the third variant over the first."""
    strength: float
    """Of the third."""


@cache
def truth(prompt_sd: float, voter_sd: float) -> Truth:
    """From votes each of a prompt and a voter of its own."""
    design = Design(TRUTH_VOTES, TRUTH_VOTES, 1, prompt_sd, voter_sd)
    each = np.arange(TRUTH_VOTES)
    votes = _draw(np.random.default_rng(7), design, each, each)
    points = points_of(votes)
    few = np.arange(len(each)) % 1000  # the fit needs clusters, the truth only their sum
    fit = fit_votes(*votes[:3], few.tolist(), few.tolist(), players=3)
    return Truth(float(np.mean(points[0])), fit.strengths[2])


def points_of(votes: Drawn) -> tuple[Floats, NDArray[np.bool_]]:
    """The points of the third variant in its votes against the first, and which votes these are."""
    third, first = votes.pairs == 2, votes.pairs == 0
    chosen = third.any(axis=1) & first.any(axis=1)
    sign = np.where(third[chosen, 0], 1.0, -1.0)
    return (1 + sign * votes.outcomes[chosen]) / 2, chosen


class Row(NamedTuple):
    """How often intervals of a design held the truth."""

    design: Design
    runs: int
    share: float
    strength: float
    width: float
    """Median half width of the share's interval."""


def hits(rng: np.random.Generator, design: Design) -> tuple[bool, bool, float]:
    """Whether the share's and the strength's 95 % interval of one panel hold the truth; the share's half width."""
    true, votes = truth(design.prompt_sd, design.voter_sd), draw(rng, design)
    points, chosen = points_of(votes)
    found = share_of_votes(points, votes.prompts[chosen].tolist(), votes.voters[chosen].tolist())
    fit = fit_votes(*votes[:3], votes.prompts.tolist(), votes.voters.tolist(), players=3)
    low, high = fit.intervals[2]
    return (
        bool(found.low <= true.share <= found.high),
        low <= true.strength <= high,
        (found.high - found.low) / 2,
    )


def simulate(runs: int = RUNS) -> list[Row]:
    """All rows, each from a seed of its own."""
    rows = []
    for number, design in enumerate(DESIGNS):
        rng = np.random.default_rng([number, design.voters])
        found = [hits(rng, design) for _ in range(runs)]
        share, strength, width = zip(*found, strict=True)
        rows.append(Row(design, runs, float(np.mean(share)), float(np.mean(strength)), float(np.median(width))))
        sys.stderr.write(f"{rows[-1]}\n")
        sys.stderr.flush()
    return rows


def figures(rows: list[Row]) -> tuple[Figure, ...]:
    """The lowest and the highest coverage of the rows in which prompts or voters differ."""
    found = [rate for row in rows if row.design.prompt_sd or row.design.voter_sd for rate in (row.share, row.strength)]
    runs = rows[0].runs
    return (
        Figure("votes_least_coverage", min(found), f">= {LEAST}", min(found) >= LEAST, runs, min(found), max(found)),
        Figure("votes_most_coverage", max(found), f"<= {MOST}", max(found) <= MOST, runs, min(found), max(found)),
    )


def figure_votes() -> tuple[Figure, ...]:
    """The figures of the coverage of intervals of votes."""
    return figures(simulate())


def tables(rows: list[Row]) -> Iterator[str]:
    """The rows as markdown, in lines."""
    yield f"{rows[0].runs:,} panels a row; in brackets the 95 % Wilson interval of the coverage."
    yield ""
    yield (
        "| voters | prompts | votes each | sd of prompts | sd of voters | half width of the share | share: holds | "
        "strengths: holds |"
    )
    yield "|---:|" * 1 + "---:|" * 7
    for row in rows:
        one = row.design
        yield (
            f"| {one.voters} | {one.prompts} | {one.votes} | {one.prompt_sd:g} | {one.voter_sd:g} | "
            f"{100 * row.width:.1f} points | {_rate(row.share, row.runs)} | {_rate(row.strength, row.runs)} |"
        )


def _rate(rate: float, runs: int) -> str:
    low, high = (100 * end for end in wilson_interval(round(rate * runs), runs))
    return f"{100 * rate:.1f} % [{low:.1f}, {high:.1f}]"


def main(arguments: list[str]) -> None:
    """Print the table, or write it into the page between its two marks."""
    parser = argparse.ArgumentParser(prog="python -m tests.figures.votes")
    parser.add_argument("--write", action="store_true", help="write the table into docs/votes.md")
    parser.add_argument("--runs", type=int, default=RUNS, help="panels a row")
    chosen = parser.parse_args(arguments)
    rows = simulate(chosen.runs)
    shown = "\n".join(tables(rows))
    sys.stdout.write(f"{shown}\n\n{table(figures(rows))}\n")
    if chosen.write:
        write_between(PAGE, (BEGIN, END), shown)


if __name__ == "__main__":
    main(sys.argv[1:])
