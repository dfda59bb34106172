"""What a grid found, on stdout: ``compare`` of its folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from bench.cli.printing import DONE, Columns, Table, print_json, print_tables, say, show
from bench.compare.grid import compare_grid
from bench.compare.grid_view import GridView, grid_view
from bench.errors import UsageError
from bench.formatting import argument, value_text
from bench.records import GridDifference, GridValue
from bench.store.grid import load_grid


def compare_grid_folder(
    path: str, pairs: Sequence[tuple[str, str]] | None, metrics: Sequence[str] | None, form: str
) -> int:
    """Prints the differences of a grid, what they depend on, and the sentences; ``compare`` of such a folder."""
    found = load_grid(path)
    differences = compare_grid(found, pairs=pairs, metrics=metrics)
    view = grid_view(found, differences)
    if not view.tables:
        raise UsageError(
            f"{path}: no two variants of this grid have scores yet.", f"{view.command} -o {argument(path)}"
        )
    if form == "json":
        print_json({"grid": {"axes": found.grid.axes, "suite": found.grid.suite.name}, "differences": differences})
    elif form == "csv":
        show(tidy_grid_csv(differences, [axis.name for axis in found.grid.axes]).removesuffix("\n"))
    else:
        for banner in view.banners:
            say(banner)
        print_tables(form, list(_tables(view, metrics)), [*_sentences(view, metrics), *view.notes])
    return DONE


def _tables(view: GridView, metrics: Sequence[str] | None) -> list[Table]:
    """Two tables a metric: the differences, and what they depend on; of metrics that only describe where named."""
    tables: list[Table] = []
    for table in view.tables:
        if metrics is None and table.facts not in view.headline:
            continue
        pairs: Columns = dict.fromkeys(table.pairs, "number")
        title = f"{table.facts.name}: difference under each setting"
        tables.append((title, {"setting": "name", **pairs}, [[row.label, *row.cells] for row in table.settings]))
        if table.changes:
            title = f"{table.facts.name}: what the difference depends on"
            tables.append((title, {"axis": "name", **pairs}, [[row.label, *row.cells] for row in table.changes]))
    return tables


def _sentences(view: GridView, metrics: Sequence[str] | None) -> list[str]:
    shown = [table for table in view.tables if metrics is not None or table.facts in view.headline]
    said = [line for table in shown for line in table.orders]
    said += [line for table in shown for line in table.dependence]
    left_out = [table.facts.name for table in view.tables if table not in shown]
    if left_out:
        said.append(f"Not shown, since they only describe: {', '.join(left_out)}; --metrics names them.")
    return said


def tidy_grid_csv(differences: Sequence[GridDifference], axes: Sequence[str]) -> str:
    """A row a result, unrounded: ``kind`` is ``difference`` of a setting, or ``change`` of a value of one axis."""
    text = io.StringIO()
    names = ["kind", "metric", "candidate", "reference", *axes, "value", "low", "high", "level", "order", "p", "p_holm"]
    writer = csv.DictWriter(text, [*names, "prompts", "samples", "missing"], restval="", lineterminator="\n")
    writer.writeheader()
    for one in differences:
        fields = ("metric", "candidate", "reference", "prompts", "samples", "missing")
        same = {name: getattr(one, name) for name in fields}
        for cell in one.cells:
            ends = {} if cell.interval is None else {"low": cell.interval.low, "high": cell.interval.high}
            level = {} if cell.interval is None else {"level": cell.interval.level}
            writer.writerow(
                {"kind": "difference", **same, **_texts(cell.setting), "value": cell.mean, **ends, **level}
                | {"order": cell.order}
            )
        for effect in one.axes:
            for at in effect.levels:
                if at.change is None:
                    continue
                ends = {} if at.interval is None else {"low": at.interval.low, "high": at.interval.high}
                row = {"kind": "change", **same, effect.axis: value_text(at.value), "value": at.change, **ends}
                writer.writerow(row | {"p": effect.p, "p_holm": effect.p_holm})
    return text.getvalue()


def _texts(setting: Mapping[str, GridValue]) -> dict[str, str]:
    return {axis: value_text(value) for axis, value in setting.items()}
