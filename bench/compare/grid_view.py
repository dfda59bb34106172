"""What a grid says: whether the order of the variants holds, and what their differences depend on, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import formatting as text
from bench.comparability import differences as fact_differences
from bench.comparability import pixel_facts
from bench.compare.grid import grid_pairs, scored_settings
from bench.compare.headline import headline_metrics
from bench.records import AxisEffect, Grid, GridCell, GridDifference, MetricFacts, Run
from bench.store.grid import GridRuns
from bench.suite.grid import SEED, flag_of, setting_words, value_words

CLEAR = 0.05
"""The p-value, by Holm, up to which a difference is said to depend on an axis."""
MOST_NAMED = 4
"""Settings that a sentence names."""


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is of, and a cell a pair."""

    label: str
    cells: tuple[str, ...]
    orders: tuple[str, ...] = ()
    """Whether the order holds there, by pair; of settings only."""


@dataclass(frozen=True)
class MetricTable:
    """One metric: the differences under each setting, and what they depend on."""

    facts: MetricFacts
    pairs: tuple[str, ...]
    settings: tuple[Row, ...]
    changes: tuple[Row, ...]
    orders: tuple[str, ...]
    """A sentence a pair, whether its order holds; none where no direction is better."""
    dependence: tuple[str, ...]
    """What the differences depend on, as far as that is told, and their spread over seeds."""


@dataclass(frozen=True)
class GridView:
    """What the reports show of a grid."""

    found: GridRuns
    differences: tuple[GridDifference, ...]
    title: str
    kicker: str
    """Which suite, and under how many settings."""
    summary: tuple[str, ...]
    tables: tuple[MetricTable, ...]
    banners: tuple[str, ...]
    notes: tuple[str, ...]
    tally: tuple[tuple[str, str], ...]
    command: str

    @property
    def headline(self) -> tuple[MetricFacts, ...]:
        """The metrics that say what is better."""
        return headline_metrics([table.facts for table in self.tables])


def grid_view(found: GridRuns, differences: Sequence[GridDifference]) -> GridView:
    """What the reports show of a grid and of the differences of ``compare_grid``."""
    grid = found.grid
    facts = {one.name: one for run in found.runs if run is not None for one in run.info.metrics}
    shown = [*headline_metrics(list(facts.values()))]
    shown += [one for one in facts.values() if one not in shown]
    tables = [_table(grid, one, [own for own in differences if own.metric == one.name]) for one in shown]
    tables = [table for table in tables if table.settings]
    lead = {one.name for one in headline_metrics(list(facts.values()))}
    summary = [line for table in tables if table.facts.name in lead for line in table.orders]
    return GridView(
        found=found,
        differences=tuple(differences),
        title=_title([variant.name for variant in grid.suite.variants]),
        kicker=f"{grid.suite.name} under {text.plural(len(scored_settings(grid)), 'setting')}",
        summary=tuple(summary) or ("Nothing has been scored on both sides of a pair yet.",),
        tables=tuple(tables),
        banners=_banners(found),
        notes=_notes(found, differences),
        tally=_tally(found),
        command=grid_command(grid),
    )


def _title(names: Sequence[str]) -> str:
    return text.joined(names) if len(names) <= MOST_NAMED else f"{len(names)} variants"


def _table(grid: Grid, facts: MetricFacts, own: Sequence[GridDifference]) -> MetricTable:
    decimals = _decimals(own)
    settings = tuple(
        Row(
            label=setting_words(setting) or "all seeds",
            cells=tuple(_cell(_at(one, setting), decimals) for one in own),
            orders=tuple((found.order or "") if (found := _at(one, setting)) else "" for one in own),
        )
        for setting, _ in scored_settings(grid)
        if any(_at(one, setting) for one in own)
    )
    return MetricTable(
        facts=facts,
        pairs=tuple(f"{one.candidate} {text.MINUS} {one.reference}" for one in own),
        settings=settings,
        changes=_change_rows(own, decimals),
        orders=tuple(order_sentence(grid, one) for one in own if facts.higher_is_better is not None),
        dependence=tuple(line for one in own for line in dependence_sentences(one, decimals)),
    )


def _decimals(own: Sequence[GridDifference]) -> int:
    cells = [cell for one in own for cell in one.cells]
    widths = [(cell.interval.high - cell.interval.low) / 2 for cell in cells if cell.interval is not None]
    return text.decimals_for(text.scale_of(widths) or text.scale_of(abs(cell.mean) for cell in cells) / 10)


def _at(one: GridDifference, setting: Mapping[str, object]) -> GridCell | None:
    return next((cell for cell in one.cells if cell.setting == setting), None)


def _cell(cell: GridCell | None, decimals: int) -> str:
    if cell is None:
        return text.NONE
    return f"{text.signed(cell.mean, decimals)} {text.interval(cell.interval, decimals)}"


def _change_rows(own: Sequence[GridDifference], decimals: int) -> tuple[Row, ...]:
    """What each axis does to the differences: a row a value but the base, then the p-value; of seeds their spread."""
    rows = []
    for axis in dict.fromkeys(effect.axis for one in own for effect in one.axes):
        effects = [next((effect for effect in one.axes if effect.axis == axis), None) for one in own]
        first = next(effect for effect in effects if effect is not None)
        name = axis.replace("_", " ")
        if axis == SEED:
            spread = [None if one is None else one.sd for one in effects]
            rows.append(Row(f"sd over {len(first.levels)} seeds", tuple(text.number(sd, decimals) for sd in spread)))
        else:
            rows += [
                Row(
                    f"change of {name} from {text.value_text(first.base)} to {text.value_text(level.value)}",
                    tuple(_change(one, place, decimals) for one in effects),
                )
                for place, level in enumerate(first.levels)
                if level.value != first.base
            ]
        p_values = [None if one is None else one.p_holm for one in effects]
        rows.append(Row(f"{name} makes no difference: p", tuple(map(text.p_value, p_values))))
    return tuple(rows)


def _change(effect: AxisEffect | None, place: int, decimals: int) -> str:
    if effect is None:
        return text.NONE
    level = effect.levels[place]
    return f"{text.signed(level.change, decimals)} {text.interval(level.interval, decimals)}"


# What it says.


def order_sentence(grid: Grid, one: GridDifference) -> str:
    """Under how many settings an order holds, and where it flips or is not shown."""
    seeds = seeds_of(grid)
    count = text.plural(len(one.cells), "setting") + (f" ({seeds} seeds each)" if seeds > 1 else "")
    if one.winner is None:
        signs = [cell for cell in one.cells if cell.interval is not None and not _holds_zero(cell)]
        if signs:
            return (
                f"{one.metric}: between {one.candidate} and {one.reference} as many settings show the one order as the "
                f"other, of {count}."
            )
        return f"{one.metric}: no order of {one.candidate} and {one.reference} is shown in any of {count}."
    loser = one.reference if one.winner == one.candidate else one.candidate
    settings = {order: [cell for cell in one.cells if cell.order == order] for order in ("holds", "flips", "not shown")}
    said = f"{one.metric}: {one.winner} over {loser} holds in {len(settings['holds'])} of {count}"
    if settings["flips"]:
        said += f", flips at {where(grid, settings['flips'])}"
    left = settings["not shown"]
    if left:
        at = where(grid, left)
        said += f", is not shown at {at}" if ";" not in at else f", is not shown in the other {len(left)}"
    return f"{said}."


def seeds_of(grid: Grid) -> int:
    """How many suite seeds each setting has."""
    return next((len(axis.values) for axis in grid.axes if axis.name == SEED), 1)


def _holds_zero(cell: GridCell) -> bool:
    return cell.interval is None or cell.interval.low <= 0 <= cell.interval.high


def where(grid: Grid, cells: Sequence[GridCell]) -> str:
    """Settings in words: the value of an axis where they are just those that have it, else one by one."""
    every = [setting for setting, _ in scored_settings(grid)]
    for axis in grid.axes:
        for value in axis.values:
            having = [setting for setting in every if setting.get(axis.name) == value]
            if having and [cell.setting for cell in cells] == having:
                return value_words(axis.name, value)
    named = [setting_words(cell.setting) for cell in cells[:MOST_NAMED]]
    rest = len(cells) - len(named)
    return "; ".join(named) + (f" and {text.plural(rest, 'other setting')}" if rest else "")


def dependence_sentences(one: GridDifference, decimals: int) -> list[str]:
    """What a difference depends on, as far as that is told; and the spread over seeds."""
    said = []
    name = f"{one.candidate} {text.MINUS} {one.reference}"
    for effect in one.axes:
        at = text.joined([f"{text.signed(lv.mean, decimals)} at {text.value_text(lv.value)}" for lv in effect.levels])
        if effect.p_holm is not None and effect.p_holm <= CLEAR:
            axis = effect.axis.replace("_", " ")
            said.append(f"{one.metric}: {name} depends on the {axis}: {at} (p {text.p_value(effect.p_holm)}).")
        elif effect.axis == SEED and one.higher_is_better is not None:
            said.append(f"{one.metric}: {name} over {len(effect.levels)} seeds: {_spread(effect, decimals)}.")
    return said


def _spread(effect: AxisEffect, decimals: int) -> str:
    means = [level.mean for level in effect.levels]
    low, high = text.signed(min(means), decimals), text.signed(max(means), decimals)
    return f"{low} to {high} (sd {text.number(effect.sd, decimals)})"


def _banners(found: GridRuns) -> tuple[str, ...]:
    """What is unfinished, and what makes the runs unlike."""
    said = []
    missing = sum(run is None or run.info.status != "complete" for run in found.runs)
    if missing:
        said.append(
            f"This grid is not finished: {missing} of {text.plural(len(found.runs), 'run')} "
            f"{'is' if missing == 1 else 'are'} missing or not complete; the same command continues it."
        )
    runs = [run for run in found.runs if run is not None]
    clauses = [clause for run in runs[1:] for clause in _environment_differences(runs[0], run)]
    if clauses:
        said.append(f"The runs were drawn in different environments: {'; '.join(dict.fromkeys(clauses))}.")
    if found.grid.suite.limit is not None:
        said.append(f"Only the first {text.plural(found.grid.suite.limit, 'prompt')}: a grid for trying out.")
    return tuple(said)


def _environment_differences(first: Run, other: Run) -> list[str]:
    ours, theirs = (pixel_facts(run.info.machine, run.info.packages) for run in (first, other))
    places = f"in {Path(first.path).name}", f"in {Path(other.path).name}"
    return fact_differences(ours, theirs, places)


def _notes(found: GridRuns, differences: Sequence[GridDifference]) -> tuple[str, ...]:
    notes = []
    intervals = [cell.interval for one in differences for cell in one.cells if cell.interval is not None]
    if intervals:
        notes.append(f"Intervals: {intervals[0].level:.0%}, {intervals[0].method}; they hold all settings at once.")
    missing = max((one.missing for one in differences), default=0)
    if missing:
        notes.append(
            f"{text.plural(missing, 'pair')} of images left out of a metric: a prompt counts that has scores under "
            "every setting."
        )
    every = {one.name: one for run in found.runs if run is not None for one in run.info.metrics}
    whole = [name for name, one in every.items() if one.over in ("tag", "prompt pairs")]
    if whole:
        notes.append(f"Not compared, since they have no number of a prompt: {', '.join(whole)}; each run shows them.")
    names = [variant.name for variant in found.grid.suite.variants]
    if len(grid_pairs(found.grid.suite)) == len(names) - 1 and len(names) > 2:
        notes.append("With so many variants each is compared with the first only; --pairs names others.")
    return tuple(notes)


def _tally(found: GridRuns) -> tuple[tuple[str, str], ...]:
    suite, seeds = found.grid.suite, seeds_of(found.grid)
    images = sum(one.image is not None for run in found.runs if run is not None for one in run.renders)
    counts = [
        ("settings", len(scored_settings(found.grid))),
        *([("seeds", seeds)] if seeds > 1 else []),
        ("prompts", len(suite.prompts)),
        ("variants", len(suite.variants)),
        ("images", images),
    ]
    return tuple((label, f"{count:,}") for label, count in counts)


def grid_command(grid: Grid) -> str:
    """The command that makes the grid, up to its folder and device."""
    flags = [f"{flag_of(axis.name)} {','.join(map(text.value_text, axis.values))}" for axis in grid.axes]
    limit = [] if grid.suite.limit is None else [f"--limit {grid.suite.limit}"]
    source = text.argument(grid.suite.source or grid.suite.name)
    return " ".join(["hotart-bench grid", source, *flags, *limit])
