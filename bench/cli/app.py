"""The verbs together, and the first help that a newcomer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.cli import baseline, doctor, fetch, gate, inspect, lists, merge, planning, stages, sweep
from bench.cli import compare as results
from bench.cli.verbs import Job, group

HELP = """Is the merge better, by how much, at what cost, and did it break anything?

Renders fixed prompts through the variants of a model (base, DPO, SPO, your merge), scores and times
the images, and explains the differences in a report.

\b
First steps:
  hotart-bench run
      the built-in suite: render, score, time, report (minutes on a CPU)
  hotart-bench compare reports/runs/mini
      its paired differences as a table
  hotart-bench doctor sdxl
      what a full-size suite needs, and what is missing here
  hotart-bench run my-suite.toml -o runs/mine
      your own checkpoints and prompts
"""
LIST_HELP = "List what there is: suites, variants, metrics or prompts."
LIST_EXAMPLES = (
    "hotart-bench list suites",
    "hotart-bench list variants sdxl",
    "hotart-bench list metrics --json",
    "hotart-bench list prompts portraits",
)
EXIT_CODES = """\b
Exit codes:
  0    done, or the gate passed
  1    the gate failed: a regression
  2    bad usage or a bad suite
  3    bad checkpoint or weights
  4    not comparable
  5    inconclusive, or results that allow no verdict
  6    environment error (disk, memory, permission)
  70   internal error
  130  interrupted; the same command continues
"""


def parse(arguments: Sequence[str]) -> Job | None:
    """The job that the arguments ask for; None where typer has answered itself (help, version)."""
    answer = build()(args=list(arguments) or ["--help"], prog_name="hotart-bench", standalone_mode=False)
    return answer if callable(answer) else None


def build() -> typer.Typer:
    """The whole command line as a typer application."""
    app = group(HELP)
    app.callback(epilog=EXIT_CODES)(_common)
    rooms = (stages, results, gate, baseline, sweep, merge, inspect, planning, fetch, doctor)
    for verbs in (room.app for room in rooms):
        app.registered_commands += verbs.registered_commands
    listing = group(LIST_HELP, *LIST_EXAMPLES)
    for verbs in (lists.app,):
        listing.registered_commands += verbs.registered_commands
    app.add_typer(listing, name="list")
    return app


def _show_version(asked: bool) -> None:
    if asked:
        from bench.machine import package_versions

        typer.echo(f"hotart-bench {package_versions().get('hotart-bench', '(not installed)')}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """What stands before a verb; ``--version`` has answered already when this is called."""
