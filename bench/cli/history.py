"""``history``: metrics over releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from bench.cli import options
from bench.cli.options import AsJson
from bench.cli.printing import DONE, Columns, print_json, print_table, say, show
from bench.formatting import NONE, decimals_for, number
from bench.history import History, Value, read_history
from bench.plots.history import write_history_plot
from bench.plots.style import Format


def history(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Baseline files, run folders or gates, side by side.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where the plot goes.  [default: FOLDER]")
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="A,B", help="[default: all]")] = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="png, svg or pdf.")] = "png",
    dpi: Annotated[int, typer.Option("--dpi", metavar="N", help="Dots per inch of a PNG, 50 to 1200.")] = 150,
    json: AsJson = False,
) -> int:
    """Every metric over the releases whose baselines or runs a folder holds.

    A release is a baseline file, a run folder, or a file of gate --json; the time is when it was accepted, made or
    checked. What cannot be compared with the newest one is left out, and said.

    Examples:
      hotart-bench history releases
      hotart-bench history releases --metrics clip-l14 -o figures --format svg
      hotart-bench history releases --json
    """
    options.check_known((format_,), "--format", get_args(Format), "hotart-bench history --help")
    found = read_history(folder, options.split_names(metrics, "--metrics"))
    for note in found.notes:
        say(note)
    if json:
        print_json(_table(found))
        return DONE
    for variant in found.variants:
        show(f"{variant}\n")
        _print(found, variant)
        show()
    show(str(write_history_plot(found, output or folder, cast(Format, format_), dpi)))
    return DONE


def _print(found: History, variant: str) -> None:
    names = [facts.name for facts in found.metrics]
    columns: Columns = {"release": "name", "time": "name", **dict.fromkeys(names, "number"), "gate": "name"}
    decimals = {name: _decimals(found, name) for name in names}
    rows = []
    for one in found.releases:
        values = [one.values.get((variant, name)) for name in names]
        if any(value is not None for value in values):
            shown = [_text(value, decimals[name]) for name, value in zip(names, values, strict=True)]
            rows.append((one.name, one.time[:10], *shown, one.outcome or NONE))
    print_table(columns, rows)


def _text(value: Value | None, decimals: int) -> str:
    return NONE if value is None else number(value.mean, decimals)


def _decimals(found: History, name: str) -> int:
    """Two figures of the narrowest interval, so that releases that differ look so."""
    halves = [
        (value.interval.high - value.interval.low) / 2
        for one in found.releases
        for (_, metric), value in one.values.items()
        if metric == name and value.interval is not None
    ]
    return decimals_for(min((half for half in halves if half > 0), default=0.0))


def _table(found: History) -> dict[str, object]:
    """The history as JSON: a list of releases, and of each the values by variant and metric."""
    releases = []
    for one in found.releases:
        values: dict[str, dict[str, object]] = {}
        for (variant, metric), value in one.values.items():
            values.setdefault(variant, {})[metric] = {
                "mean": value.mean,
                "interval": value.interval,
                "prompts": value.prompts,
            }
        releases.append(
            {"name": one.name, "kind": one.kind, "time": one.time, "outcome": one.outcome, "values": values}
        )
    return {"metrics": [facts.name for facts in found.metrics], "releases": releases, "notes": found.notes}
