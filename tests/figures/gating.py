"""The error rates of the gate, by simulation through its own code: ``python -m tests.figures.gating``.

One simulated gate draws the losses of n prompts x 4 samples, averages the samples as a frozen run does, and
asks ``check_metric``, which ``check_limits`` calls for each metric. Losses are in standard deviations of the per-prompt
paired differences. With ``--write`` the tables go into ``docs/gate.md``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench.gate.check import new_check
from bench.gate.quality import check_metric
from bench.records import Limit, MetricFacts, Prompt
from bench.stats import wilson_interval
from bench.stats.bounds import power_of_pass

from .figure import Figure, table

Floats = NDArray[np.float64]
Shape = Callable[[np.random.Generator, int], Floats]

GATES = 10_000
SEEDS = (1, 2, 3, 4, 5)
SAMPLES = 4
SIZES = (25, 100, 400)
MARGIN = 0.25
BEYOND = 0.5
MARGINS = (0.1, 0.2, 0.3, 0.4, 0.5)
POWER_GATES = 2_500
GROUP_GATES = 4_000
BOOTSTRAP_GATES = 500
RESAMPLES = 200
PAGE = Path(__file__).parents[2] / "docs" / "gate.md"
BEGIN, END = "<!-- simulation begins -->", "<!-- simulation ends -->"


def _lognormal(rng: np.random.Generator, n: int) -> Floats:
    """Lognormal with sigma 1, standardised: skewness 6.2, beyond what the goal asks for."""
    return (rng.lognormal(size=n) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)


def _outliers(rng: np.random.Generator, n: int) -> Floats:
    """Normal, but one prompt in 20 loses 5 sd more, standardised: skewness 2.5, which few prompts do not show."""
    return (rng.normal(size=n) + 5.0 * (rng.random(n) < 0.05) - 0.25) / math.sqrt(1 + 25 * 0.05 * 0.95)


SHAPES: dict[str, Shape] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy-tailed (t3)": lambda rng, n: rng.standard_t(3, size=n) / math.sqrt(3),
    "left-skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "right-skewed (exponential)": lambda rng, n: 1 - rng.exponential(size=n),
}
"""Per-prompt losses with mean 0 and standard deviation 1, named after the differences candidate - reference.

Left-skewed: a few prompts lose much and most gain a little, which is what misleads a gate into passing.
"""
STRESS: dict[str, Shape] = {"left-skewed (lognormal)": _lognormal, "outliers (one loses much)": _outliers}
STRESS_SIZES = (10, *SIZES)
SHARED = 0.3
"""Share of the variance of the losses that the prompts of a group have in common."""
GROUPS = {
    "10 of 5": (5,) * 10,
    "20 of 5": (5,) * 20,
    "80 of 5": (5,) * 80,
    "20 of 1 to 15": (1, 2, 5, 15) * 5,
    "80 of 1 to 15": (1, 2, 5, 15) * 20,
}
"""Sizes of the groups, by what the table calls them."""
GROUP_SHAPES = ("normal", "left-skewed (exponential)", "right-skewed (exponential)")


@dataclass
class Tally:
    """How simulated gates of one kind came out."""

    gates: int = 0
    passes: int = 0
    fails: int = 0

    def add(self, outcome: str) -> None:
        """Count one gate."""
        self.gates += 1
        self.passes += outcome == "pass"
        self.fails += outcome == "fail"


@dataclass(frozen=True)
class Row:
    """All gates of one shape, size and true loss: this gate's, and of two others on the same images."""

    shape: str
    prompts: int
    gate: Tally
    naive: Tally
    unclustered: Tally


@dataclass(frozen=True)
class GroupRow:
    """Gates on prompts in groups: with the groups named, and with them kept from the gate."""

    shape: str
    groups: str
    prompts: int
    named: Tally
    unnamed: Tally


Results = dict[str, list[Row]]
"""The rows of each table: ``at_margin``, ``stress``, ``identical`` and ``beyond``."""
Power = tuple[int, float, Tally, float]
"""Prompts, margin, gates at no true loss, and how often they pass as ``plan`` computes it."""


class OneMetric:
    """A gate on one metric of ``prompts`` prompts with an absolute margin, ready for many losses.

    ``sizes`` are those of the groups that the prompts name, one after another; none where each stands alone.
    """

    def __init__(self, prompts: int, margin: float, sizes: Sequence[int] = ()) -> None:
        self.facts = MetricFacts(
            name="simulated",
            version="1",
            summary="A score of which higher is better.",
            unit="sd",
            higher_is_better=True,
            low=None,
            high=None,
            category="preference",
            encoder=None,
            trained_on=(),
            training_data="nothing",
            licence="Apache-2.0",
            reference="tests/figures/gating.py",
        )
        limit = Limit(name="simulated", text=f"{margin:g}", kind="absolute", amount=margin)
        self.check = new_check(limit, "candidate", "base", unit="sd", samples=SAMPLES)
        names = [f"group-{number}" for number, size in enumerate(sizes) for _ in range(size)] or [""] * prompts
        self.prompts = [Prompt(id=f"{number:04d}", text="", group=name) for number, name in enumerate(names)]
        self.below = np.random.default_rng(0).normal(size=prompts)
        self.theirs = self.below.tolist()

    def outcome(self, losses: Floats) -> str:
        """The outcome on per-prompt losses."""
        ours = (self.below - losses).tolist()
        return check_metric(self.check, self.facts, self.prompts, ours, self.theirs).outcome


def images(rng: np.random.Generator, shape: Shape, prompts: int, true_loss: float) -> Floats:
    """Losses of (prompts, samples) images whose prompt means have exactly the shape, mean ``true_loss`` and sd 1.

    The samples of a prompt differ around its mean by normal noise of variance 0.8, which makes the intraclass
    correlation of the images (1 - 0.8 / 4) / (1 - 0.8 / 4 + 0.8) = 0.5.
    """
    noise = rng.normal(0, math.sqrt(0.8), size=(prompts, SAMPLES))
    means = shape(rng, prompts) + true_loss
    values: Floats = means[:, None] + noise - noise.mean(axis=1, keepdims=True)
    return values


def unclustered(rng: np.random.Generator, values: Floats, margin: float) -> str:
    """A gate by a percentile bootstrap that takes every image for independent."""
    flat = values.ravel()
    means = flat[rng.integers(len(flat), size=(RESAMPLES, len(flat)))].mean(axis=1)
    low, high = np.quantile(means, (0.05, 0.95))
    return "pass" if high <= margin else "fail" if low > margin else "inconclusive"


def simulate_row(name: str, shape: Shape, prompts: int, true_loss: float) -> Row:
    """All gates of one row, over the fixed seeds."""
    gate = OneMetric(prompts, MARGIN)
    row = Row(name, prompts, Tally(), Tally(), Tally())
    for seed in SEEDS:
        rng = np.random.default_rng([seed, prompts])
        for number in range(GATES // len(SEEDS)):
            values = images(rng, shape, prompts, true_loss)
            losses = values.mean(axis=1)
            row.gate.add(gate.outcome(losses))
            row.naive.add("pass" if losses.mean() <= MARGIN else "fail")
            if number < BOOTSTRAP_GATES // len(SEEDS):
                row.unclustered.add(unclustered(rng, values, MARGIN))
    return row


def simulate_groups(name: str, groups: str) -> GroupRow:
    """All gates of one row on prompts in groups, at a loss of exactly the margin, over the fixed seeds."""
    sizes, shape = GROUPS[groups], SHAPES[name]
    prompts = sum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    named, unnamed = OneMetric(prompts, MARGIN, sizes), OneMetric(prompts, MARGIN)
    row = GroupRow(name, groups, prompts, Tally(), Tally())
    for seed in SEEDS:
        rng = np.random.default_rng([seed, prompts, 11])
        for _ in range(GROUP_GATES // len(SEEDS)):
            shared = math.sqrt(SHARED) * shape(rng, len(sizes))[owner]
            losses = MARGIN + shared + math.sqrt(1 - SHARED) * shape(rng, prompts)
            row.named.add(named.outcome(losses))
            row.unnamed.add(unnamed.outcome(losses))
    return row


def simulate_power(prompts: int, margin: float) -> Power:
    """Gates on normal losses of mean 0."""
    gate, tally = OneMetric(prompts, margin), Tally()
    for seed in SEEDS:
        rng = np.random.default_rng([seed, prompts, 7])
        for _ in range(POWER_GATES // len(SEEDS)):
            tally.add(gate.outcome(images(rng, SHAPES["normal"], prompts, 0.0).mean(axis=1)))
    return prompts, margin, tally, power_of_pass(prompts, 1.0, margin, 0.0)


def simulate() -> tuple[Results, list[GroupRow], list[Power]]:
    """The whole simulation, one core, a few minutes.

    How many prompts would decide an inconclusive gate is left out: it takes most of the time and changes no outcome.
    """
    with patch("bench.gate.quality.prompts_for", return_value=0):
        return _simulate()


def _simulate() -> tuple[Results, list[GroupRow], list[Power]]:

    def rows(shapes: dict[str, Shape], sizes: tuple[int, ...], true_loss: float) -> list[Row]:
        return [simulate_row(name, shapes[name], n, true_loss) for name in shapes for n in sizes]

    results = {
        "at_margin": rows(SHAPES, SIZES, MARGIN),
        "stress": [
            simulate_row("left-skewed (exponential)", SHAPES["left-skewed (exponential)"], STRESS_SIZES[0], MARGIN),
            *rows(STRESS, STRESS_SIZES, MARGIN),
        ],
        "identical": rows(SHAPES, SIZES, 0.0),
        "beyond": rows(SHAPES, SIZES[1:], MARGIN + BEYOND),
    }
    groups = [simulate_groups(name, sizes) for name in GROUP_SHAPES for sizes in GROUPS]
    return results, groups, [simulate_power(n, margin) for n in SIZES for margin in MARGINS]


def figure_gating() -> tuple[Figure, ...]:
    """The figures of the gate's error rates; every row goes to stderr as a table."""
    results, groups, power = simulate()
    sys.stderr.write("\n".join(tables(results, groups, power)) + "\n")
    return figures(results)


def figures(results: Results) -> tuple[Figure, ...]:
    """The worst row of each table, against its goal."""
    normal = [row for row in results["at_margin"] if row.shape == "normal"]
    caught = [row.gate.fails / row.gate.gates for row in results["beyond"] if row.prompts == 100]
    gates = results["beyond"][0].gate.gates
    return (
        _at_most("gate_passes_at_margin_normal", normal, "passes", 0.06),
        _at_most("gate_passes_at_margin", results["at_margin"], "passes", 0.08),
        _at_most("gate_false_alarms_normal", normal, "fails", 0.06),
        _at_most("gate_false_alarms", results["at_margin"], "fails", 0.08),
        _at_most("gate_false_alarms_identical", results["identical"], "fails", 0.01),
        Figure("gate_catches_loss", min(caught), ">= 0.9", min(caught) >= 0.9, gates, min(caught), max(caught)),
        _at_most("gate_passes_beyond", [row for row in results["beyond"] if row.prompts == 400], "passes", 0.0),
    )


def _at_most(name: str, rows: list[Row], what: str, bound: float) -> Figure:
    rates = [getattr(row.gate, what) / row.gate.gates for row in rows]
    worst = max(rates)
    return Figure(name, worst, f"<= {bound:g}", worst <= bound, rows[0].gate.gates, min(rates), worst)


def tables(results: Results, groups: list[GroupRow], power: list[Power]) -> Iterator[str]:
    """The rows as markdown, in lines."""
    gates = f"{GATES:,} gates per row over {len(SEEDS)} fixed seeds"
    yield f"**At a loss of exactly the margin**, {gates}. Nominal: 5 % pass, 5 % fail. Brackets: 95 % Wilson intervals."
    yield from _table(results["at_margin"])
    yield "Beyond the goal: shapes so skewed, or prompts so few, that this interval does not hold its level."
    yield from _table(results["stress"])
    yield from _group_table(groups)
    yield f"**Identical models** (no true loss, other seeds) with a margin of {MARGIN} sd, {gates}."
    yield from _table(results["identical"])
    yield f"**A loss of the margin and {BEYOND} sd more**, {gates}."
    yield from _table(results["beyond"])
    yield f"**Power**: how often a gate passes at no true loss, normal losses, {POWER_GATES:,} gates per row."
    yield ""
    yield "| prompts | margin in sd | passes | as `plan` computes it |"
    yield "|---:|---:|---|---:|"
    for prompts, margin, gate, planned in power:
        yield f"| {prompts} | {margin:g} | {_rate(gate.passes, gate.gates)} | {100 * planned:.1f} % |"


def _group_table(rows: list[GroupRow]) -> Iterator[str]:
    yield (
        f"**Prompts in groups** that share {100 * SHARED:.0f} % of the variance of the losses, at a loss of exactly "
        f"the margin, {GROUP_GATES:,} gates per row: with the groups named, and with every prompt taken to stand alone."
    )
    yield ""
    yield "| group means and prompts | groups | prompts | passes | fails | unnamed passes | unnamed fails |"
    yield "|---|---|---:|---|---|---:|---:|"
    for row in rows:
        named = [_rate(count, row.named.gates) for count in (row.named.passes, row.named.fails)]
        unnamed = [f"{100 * count / row.unnamed.gates:.1f} %" for count in (row.unnamed.passes, row.unnamed.fails)]
        yield f"| {' | '.join([row.shape, row.groups, str(row.prompts), *named, *unnamed])} |"
    yield ""


def _table(rows: list[Row]) -> Iterator[str]:
    others = [f"{gate} {what}" for gate in ("naive", "unclustered") for what in ("passes", "fails")]
    yield ""
    yield f"| {' | '.join(['per-prompt differences', 'prompts', 'passes', 'fails', *others])} |"
    yield "|---|---:|---|---|---:|---:|---:|---:|"
    yield from (_row(row) for row in rows)
    yield ""


def _row(row: Row) -> str:
    ours = [_rate(count, row.gate.gates) for count in (row.gate.passes, row.gate.fails)]
    others = [
        f"{100 * count / tally.gates:.1f} %"
        for tally in (row.naive, row.unclustered)
        for count in (tally.passes, tally.fails)
    ]
    return f"| {' | '.join([row.shape, str(row.prompts), *ours, *others])} |"


def _rate(count: int, of: int) -> str:
    low, high = (100 * end for end in wilson_interval(count, of))
    return f"{100 * count / of:.2f} % [{low:.2f}, {high:.2f}]"


def main(arguments: list[str]) -> None:
    """Print every table, or write the tables into the page between its two marks."""
    if arguments not in ([], ["--write"]):
        raise SystemExit("python -m tests.figures.gating [--write]")
    results, groups, power = simulate()
    shown = "\n".join(tables(results, groups, power))
    sys.stdout.write(f"{shown}\n\n{table(figures(results))}\n")
    if arguments:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
        PAGE.write_text(f"{before}\n\n{shown}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
