"""Runs of one suite under several settings -> whether the order of variants holds, and what differences depend on.

The unit is the prompt, or the group of prompts, as everywhere: a prompt has one difference a setting, the mean over its
samples and over the seeds of the grid, and settings are compared within prompts. Only prompts count that have scores
under every setting, so that all settings are of the same prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.comparability import check_names, refuse_unlike_runs
from bench.compare.pairing import ImageScores, PromptPair, pair_prompts, usable_scores
from bench.errors import InvalidError, UsageError
from bench.faces.asked import asked_prompts
from bench.formatting import argument, joined
from bench.records import (
    AxisEffect,
    Grid,
    GridAxis,
    GridCell,
    GridDifference,
    GridLevel,
    GridValue,
    Interval,
    MetricFacts,
    Prompt,
    Suite,
)
from bench.stats.effects import sd
from bench.store.grid import GridRuns
from bench.suite.grid import SEED, own_value, setting_words

MOST_PAIRED = 4
"""Up to so many variants besides the reference each two of them are compared by default."""
Setting = dict[str, GridValue]
Array = NDArray[np.float64]


def grid_pairs(suite: Suite) -> tuple[tuple[str, str], ...]:
    """Who is compared with whom by default: each with the first, and each two of up to ``MOST_PAIRED`` others."""
    reference, *others = (variant.name for variant in suite.variants)
    pairs = [(name, reference) for name in others]
    if len(others) <= MOST_PAIRED:
        pairs += [(later, earlier) for earlier, later in itertools.combinations(others, 2)]
    return tuple(pairs)


def scored_settings(grid: Grid) -> tuple[tuple[Setting, tuple[int, ...]], ...]:
    """The settings without their seeds, in order, each with the members that have it."""
    found: list[tuple[Setting, list[int]]] = []
    for number, member in enumerate(grid.members):
        setting = {axis: value for axis, value in member.setting.items() if axis != SEED}
        own = next((members for known, members in found if known == setting), None)
        if own is None:
            found.append((setting, [number]))
        else:
            own.append(number)
    return tuple((setting, tuple(members)) for setting, members in found)


def compare_grid(
    found: GridRuns,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
) -> tuple[GridDifference, ...]:
    """Each pair's paired difference under each setting, by metric and pair, and whether it depends on the axes.

    Intervals of the settings are a simultaneous band (``stats.simultaneous_band``): they hold all settings at once. An
    axis' effect is in what the difference changes along it, of each prompt the mean over the other axes; its p-value
    is that of ``stats.sign_flip_rows_p``. Metrics of category "distance" have no difference with the reference.

    Args:
        found: of ``bench.store.grid.load_grid``.
        pairs: (candidate, reference) variants; None means ``grid_pairs``.
        metrics: names; None means all that the runs have.
        level: two-sided coverage of a band.

    Raises:
        IncomparableError: runs with other weights of a variant, or another version of a metric.
        UsageError: an unknown variant or metric, a metric over tags, or a variant with itself.
        InvalidError: nothing was drawn yet.
    """
    grid, suite = found.grid, found.grid.suite
    runs = {number: run for number, run in enumerate(found.runs) if run is not None}
    if not runs:
        raise InvalidError(f"{found.path}: no run of this grid has been begun.", "give its hotart-bench grid again")
    refuse_unlike_runs({setting_words(grid.members[number].setting): run for number, run in runs.items()})
    facts = {one.name: one for run in runs.values() for one in run.info.metrics}
    check_names(metrics or (), facts, "The grid has no metric")
    whole = [name for name in metrics or () if facts[name].over in ("tag", "prompt pairs")]
    if whole:
        raise UsageError(
            f"A grid compares prompts, and {joined(whole)} has no number of a prompt.",
            f"hotart-bench compare {argument(next(iter(runs.values())).path)} --metrics {','.join(whole)}",
        )
    wanted = grid_pairs(suite) if pairs is None else tuple(pairs)
    for pair in wanted:
        check_names(pair, [variant.name for variant in suite.variants], "The grid has no variant")
        if pair[0] == pair[1]:
            raise UsageError(
                f"Variant {pair[0]!r} is compared with itself.", f"hotart-bench compare {argument(found.path)}"
            )
    scores = {number: usable_scores(run) for number, run in runs.items()}
    differences = [
        one
        for name in facts
        if metrics is None or name in metrics
        for pair in wanted
        if not (facts[name].category == "distance" and suite.variants[0].name in pair)
        if (one := _difference(grid, scores, facts[name], pair, level)) is not None
    ]
    return adjust_axes(differences)


def adjust_axes(differences: Sequence[GridDifference]) -> tuple[GridDifference, ...]:
    """The differences with ``p_holm`` filled in: of a pair all axes of the metrics that know what is better are one
    family, and those of the metrics that only describe another."""
    families: dict[tuple[str, str, bool], list[float]] = {}
    for one in differences:
        own = families.setdefault(_family(one), [])
        own += [effect.p for effect in one.axes if effect.p is not None]
    adjusted = {family: iter(stats.holm(p_values)) for family, p_values in families.items() if p_values}
    return tuple(
        msgspec.structs.replace(
            one,
            axes=tuple(
                effect if effect.p is None else msgspec.structs.replace(effect, p_holm=next(adjusted[_family(one)]))
                for effect in one.axes
            ),
        )
        for one in differences
    )


def _family(one: GridDifference) -> tuple[str, str, bool]:
    return one.candidate, one.reference, one.higher_is_better is None


# One metric of one pair.


class _Table(NamedTuple):
    """What each prompt gives in each run, of the prompts that have scores in all of them."""

    prompts: tuple[Prompt, ...]
    place: dict[int, int]
    """Column by number of the member."""
    candidate: Array
    """(prompts, runs), as the next one."""
    reference: Array
    samples: int
    planned: int

    @property
    def difference(self) -> Array:
        """Candidate minus reference. The means are over the same images on both sides."""
        return self.candidate - self.reference

    @property
    def units(self) -> list[tuple[str, str]]:
        """What counts as one."""
        return [prompt.unit for prompt in self.prompts]

    def over(self, values: Array, members: Sequence[int]) -> Array:
        """The mean of the columns of these members: (prompts,)."""
        mean: Array = values[:, [self.place[number] for number in members if number in self.place]].mean(axis=1)
        return mean


def _difference(
    grid: Grid,
    scores: Mapping[int, Mapping[tuple[str, str], ImageScores]],
    facts: MetricFacts,
    pair: tuple[str, str],
    level: float,
) -> GridDifference | None:
    table = _table(grid, scores, facts, pair)
    if not table.prompts:
        return None
    settings = [
        (setting, members)
        for setting, members in scored_settings(grid)
        if any(number in table.place for number in members)
    ]
    complete = len(table.place) == len(grid.members)
    cells = _cells(table, settings, level)
    winner = _winner(grid, facts, pair, cells)
    return GridDifference(
        metric=facts.name,
        candidate=pair[0],
        reference=pair[1],
        higher_is_better=facts.higher_is_better,
        prompts=len(table.prompts),
        groups=None if len(set(table.units)) == len(table.units) else len(set(table.units)),
        samples=table.samples,
        missing=table.planned - table.samples,
        cells=tuple(msgspec.structs.replace(cell, order=_order(cell, facts, pair, winner)) for cell in cells),
        winner=winner,
        axes=tuple(_effect(grid, axis, table, level) for axis in grid.axes if complete and len(axis.values) > 1),
    )


def _table(
    grid: Grid, scores: Mapping[int, Mapping[tuple[str, str], ImageScores]], facts: MetricFacts, pair: tuple[str, str]
) -> _Table:
    own: dict[int, dict[str, PromptPair]] = {}
    for number, table in scores.items():
        above, below = (table.get((name, facts.name), {}) for name in pair)
        found = pair_prompts(grid.suite, above, below, facts.over)
        if found:
            own[number] = {one.prompt.id: one for one in found}
    shared = [one for one in grid.suite.prompts if own and all(one.id in pairs for pairs in own.values())]
    rows = [[pairs[prompt.id] for pairs in own.values()] for prompt in shared]
    return _Table(
        prompts=tuple(shared),
        place={number: column for column, number in enumerate(own)},
        candidate=np.array([[one.candidate for one in row] for row in rows]),
        reference=np.array([[one.reference for one in row] for row in rows]),
        samples=sum(one.samples for row in rows for one in row),
        planned=len(asked_prompts(facts.prompts, grid.suite.prompts)) * grid.suite.samples * len(own),
    )


def _cells(table: _Table, settings: Sequence[tuple[Setting, Sequence[int]]], level: float) -> list[GridCell]:
    columns = np.column_stack([table.over(table.difference, members) for _, members in settings])
    intervals = _band(columns, table, level)
    return [
        GridCell(
            setting=setting,
            candidate_mean=stats.mean(table.over(table.candidate, members)),
            reference_mean=stats.mean(table.over(table.reference, members)),
            mean=stats.mean(column),
            interval=interval,
            order=None,
        )
        for (setting, members), column, interval in zip(settings, columns.T, intervals, strict=True)
    ]


def _band(columns: Array, table: _Table, level: float) -> list[Interval | None]:
    """The intervals of the columns, which hold all of them at once; none with fewer than 2 prompts, or groups."""
    if len(set(table.units)) < 2:
        return [None] * columns.shape[1]
    band = stats.simultaneous_band(stats.group_rows(columns, table.units), level=level)
    kind = "prompts" if len(set(table.units)) == len(table.units) else "groups of prompts"
    method = f"simultaneous bootstrap-t band over {kind}"
    return [
        Interval(low=float(low), high=float(high), method=method, level=level)
        for low, high in zip(band.low, band.high, strict=True)
    ]


def _sign(cell: GridCell) -> int:
    """1 where the difference is told to be above 0, -1 below, else 0."""
    if cell.interval is None:
        return 0
    return int(cell.interval.low > 0) - int(cell.interval.high < 0)


def _winner(grid: Grid, facts: MetricFacts, pair: tuple[str, str], cells: Sequence[GridCell]) -> str | None:
    if facts.higher_is_better is None:
        return None
    own = {axis.name: own_value(grid.suite, axis.name) for axis in grid.axes if axis.name != SEED}
    sign = next((_sign(cell) for cell in cells if cell.setting == own), 0) or sum(map(_sign, cells))
    if sign == 0:
        return None
    return pair[0] if (sign > 0) == facts.higher_is_better else pair[1]


def _order(
    cell: GridCell, facts: MetricFacts, pair: tuple[str, str], winner: str | None
) -> Literal["holds", "flips", "not shown"] | None:
    if winner is None:
        return None
    sign = _sign(cell) * (1 if facts.higher_is_better else -1) * (1 if winner == pair[0] else -1)
    return "holds" if sign > 0 else "flips" if sign < 0 else "not shown"


def _effect(grid: Grid, axis: GridAxis, table: _Table, level: float) -> AxisEffect:
    """How the difference changes along an axis, of each prompt the mean over the other axes."""
    having = [
        [number for number, member in enumerate(grid.members) if member.setting[axis.name] == value]
        for value in axis.values
    ]
    columns = np.column_stack([table.over(table.difference, members) for members in having])
    own = own_value(grid.suite, axis.name)
    base = axis.values.index(own) if own in axis.values else 0
    others = [place for place in range(len(axis.values)) if place != base]
    changes = dict(zip(others, _band(columns[:, others] - columns[:, [base]], table, level), strict=True))
    means = [stats.mean(column) for column in columns.T]
    levels = tuple(
        GridLevel(
            value=value,
            mean=means[place],
            change=None if place == base else means[place] - means[base],
            interval=changes.get(place),
        )
        for place, value in enumerate(axis.values)
    )
    sums = np.column_stack([stats.group_sums(column, table.units) for column in columns.T])
    return AxisEffect(
        axis=axis.name,
        base=axis.values[base],
        levels=levels,
        sd=sd(np.array(means)),
        p=stats.sign_flip_rows_p(sums),
    )
