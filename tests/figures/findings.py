"""How often a finding says the wrong word, by simulation through the product's own function.

``python -m tests.figures.findings`` prints the tables of docs/finding.md, ``--write`` puts them there. Ten metrics are
read at once: seven with a better direction, three that only describe. A metric's prompt means on the reference are
standard normal; the differences of a prompt have standard deviation 1 too and are correlated by 0.3 between metrics, so
an effect of 0.5 sd is half of either. Limits are the defaults.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.compare.finding import DEFAULTS, PairedMetric, find
from bench.records import Category, MetricFacts, TrainingOverlap
from bench.stats import wilson_interval
from bench.stats.effects import Floats

from .figure import Figure, table, write_between

PAGE = Path(__file__).parents[2] / "docs" / "finding.md"
BEGIN, END = "<!-- simulation begins -->", "<!-- simulation ends -->"
RUNS = 1_000
SIZES = (24, 100, 280)
EFFECT = 0.5
LOOK = 1.0
"""Of a metric that only describes, whose default limit is half a standard deviation."""
SHARED = 0.3
"""Correlation of the differences of any two metrics."""
WORDS = ("earned", "mixed", "bought", "worse", "not shown")
Shape = Literal["normal", "skewed"]

PANEL: dict[str, tuple[Category, bool | None, TrainingOverlap]] = {
    "preference, same data": ("preference", True, "same data"),
    "preference, related data": ("preference", True, "related data"),
    "preference, free": ("preference", True, "none"),
    "aesthetic, related data": ("aesthetic", True, "related data"),
    "aesthetic, free": ("aesthetic", True, "none"),
    "alignment, free": ("alignment", True, "none"),
    "blur": ("pixels", False, "none"),
    **dict.fromkeys(("saturation", "contrast", "clipped"), ("pixels", None, "none")),
}
"""Category, whether higher is better, and training overlap of each metric."""


@dataclass(frozen=True)
class Truth:
    """True mean differences in standard deviations, and the word that is right."""

    name: str
    word: str
    effects: dict[str, float]
    unknown: bool = False
    """Whether nobody says what the candidate was trained on."""


TAUGHT = {"preference, same data": EFFECT, "preference, related data": EFFECT, "aesthetic, related data": EFFECT}
FREE = {"preference, free": EFFECT}
TRUTHS = (
    Truth("earned", "earned", {**TAUGHT, **FREE}),
    Truth("mixed: alignment pays", "mixed", {**TAUGHT, **FREE, "alignment, free": -EFFECT}),
    Truth("mixed: saturation moves", "mixed", {**TAUGHT, **FREE, "saturation": LOOK}),
    Truth("bought", "bought", TAUGHT),
    Truth("bought: alignment pays", "bought", {**TAUGHT, "alignment, free": -EFFECT}),
    Truth("unknown overlap", "not shown", {**TAUGHT, **FREE}, unknown=True),
    Truth("worse", "worse", {"preference, free": -EFFECT}),
    Truth("price only: alignment", "worse", {"alignment, free": -EFFECT}),
    Truth("price only: saturation", "not shown", {"saturation": LOOK}),
    Truth("A/A", "not shown", {}),
)
NOT_EARNED = ("bought", "bought: alignment pays", "price only: alignment", "price only: saturation", "A/A")
SKEWED = ("earned", "bought", "price only: alignment", "price only: saturation", "A/A")
SMALL = (
    Truth("a gain of 0.2 sd", "earned", {"preference, free": 0.2}),
    Truth("a gain of 0.3 sd", "earned", {"preference, free": 0.3}),
    Truth("a gain, and a loss of 0.2 sd", "mixed", {**FREE, "alignment, free": -0.2}),
    Truth("a gain, and a loss of 0.3 sd", "mixed", {**FREE, "alignment, free": -0.3}),
    Truth("a gain, and a loss of exactly the limit", "earned", {**FREE, "alignment, free": -0.1}),
)
"""Beyond the goals: what smaller effects do."""


@dataclass(frozen=True)
class Row:
    """The words of all runs of one truth, size and shape."""

    truth: Truth
    shape: Shape
    prompts: int
    words: Counter[str]

    @property
    def runs(self) -> int:
        """How many there were."""
        return self.words.total()


def facts_of(name: str) -> MetricFacts:
    """A metric of the panel."""
    category, better, _ = PANEL[name]
    return MetricFacts(
        name=name,
        version="1",
        summary="A simulated score.",
        unit="sd",
        higher_is_better=better,
        low=None,
        high=None,
        category=category,
        encoder=None,
        trained_on=(),
        training_data="nothing",
        licence="Apache-2.0",
        reference="tests/figures/findings.py",
    )


FACTS = {name: facts_of(name) for name in PANEL}


def noise(rng: np.random.Generator, shape: Shape, prompts: int) -> Floats:
    """(metrics, prompts) of mean 0 and standard deviation 1, correlated between metrics; skewed: a long left tail."""

    def draw(size: tuple[int, int]) -> Floats:
        return rng.normal(size=size) if shape == "normal" else 1 - rng.exponential(size=size)

    shared, own = draw((1, prompts)), draw((len(PANEL), prompts))
    return np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own


def word_of_run(rng: np.random.Generator, truth: Truth, shape: Shape, prompts: int) -> str:
    """The finding's word on one simulated run."""
    differences = noise(rng, shape, prompts)
    below = rng.normal(size=differences.shape)
    panel = []
    for place, (name, facts) in enumerate(FACTS.items()):
        effect = truth.effects.get(name, 0.0)
        overlap: TrainingOverlap = "unknown" if truth.unknown else PANEL[name][2]
        above = below[place] + differences[place] + effect
        panel.append(PairedMetric(facts, overlap, above.tolist(), below[place].tolist()))
    return find("candidate", "base", panel).word


def simulate(runs: int = RUNS) -> list[Row]:
    """All rows, each from a seed of its own."""
    rows = []
    cells: list[tuple[Truth, Shape, int]] = [(truth, "normal", prompts) for truth in TRUTHS for prompts in SIZES]
    cells += [(truth, "skewed", prompts) for truth in TRUTHS if truth.name in SKEWED for prompts in SIZES]
    cells += [(truth, "normal", prompts) for truth in SMALL for prompts in SIZES[1:]]
    for number, (truth, shape, prompts) in enumerate(cells):
        rng = np.random.default_rng([number, prompts])
        words = Counter(word_of_run(rng, truth, shape, prompts) for _ in range(runs))
        rows.append(Row(truth, shape, prompts, words))
        sys.stderr.write(f"{truth.name}, {shape}, {prompts} prompts: {dict(words)}\n")
        sys.stderr.flush()
    return rows


def figures(rows: list[Row]) -> tuple[Figure, ...]:
    """The worst row of each goal."""
    wrong = [one.words["earned"] / one.runs for one in rows if one.truth.name in NOT_EARNED and one.truth in TRUTHS]
    right = [
        one.words[one.truth.word] / one.runs
        for one in rows
        if one.truth in TRUTHS and one.prompts == 100 and one.shape == "normal"
    ]
    runs = rows[0].runs
    return (
        Figure("finding_wrongly_earned", max(wrong), "<= 0.06", max(wrong) <= 0.06, runs, min(wrong), max(wrong)),
        Figure("finding_right_word", min(right), ">= 0.8", min(right) >= 0.8, runs, min(right), max(right)),
    )


def figure_findings() -> tuple[Figure, ...]:
    """The figures of the finding's error rates."""
    return figures(simulate())


def tables(rows: list[Row]) -> Iterator[str]:
    """The rows as markdown, in lines."""
    many = f"{rows[0].runs:,} runs a row"
    yield (
        f"**Truths of the goals**, {many}; effects of {EFFECT} sd, of saturation {LOOK:g} sd; limits "
        f"{DEFAULTS['better']} and {DEFAULTS['describes']}. The right word is in bold; brackets: 95 % Wilson interval "
        "of its rate."
    )
    yield from _table([one for one in rows if one.truth in TRUTHS and one.shape == "normal"])
    yield f"**The same with skewed differences** (exponential, a long tail to the left), {many}."
    yield from _table([one for one in rows if one.shape == "skewed"])
    yield f"**Smaller effects**, {many}: beyond the goals."
    yield from _table([one for one in rows if one.truth in SMALL])


def _table(rows: list[Row]) -> Iterator[str]:
    yield ""
    yield f"| truth | prompts | {' | '.join(WORDS)} | right word |"
    yield "|---|---:|" + "---:|" * len(WORDS) + "---|"
    for one in rows:
        cells = []
        for word in WORDS:
            rate = f"{100 * one.words[word] / one.runs:.1f} %"
            cells.append(f"**{rate}**" if word == one.truth.word else rate)
        low, high = (100 * end for end in wilson_interval(one.words[one.truth.word], one.runs))
        yield f"| {one.truth.name} | {one.prompts} | {' | '.join(cells)} | [{low:.1f}, {high:.1f}] |"
    yield ""


def main(arguments: list[str]) -> None:
    """Print every table, or write the tables into the page between its two marks."""
    parser = argparse.ArgumentParser(prog="python -m tests.figures.findings")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/finding.md")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs a row")
    chosen = parser.parse_args(arguments)
    rows = simulate(chosen.runs)
    shown = "\n".join(tables(rows))
    sys.stdout.write(f"{shown}\n\n{table(figures(rows))}\n")
    if chosen.write:
        write_between(PAGE, (BEGIN, END), shown)


if __name__ == "__main__":
    main(sys.argv[1:])
