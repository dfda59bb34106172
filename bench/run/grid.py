"""A grid: the run of each setting, one after another, and the report of the whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.records import Grid, Progress, RunOptions
from bench.report.grid import write_grid_report
from bench.run import Outcome, labelled, run_all
from bench.store.grid import load_grid, open_grid
from bench.suite.grid import member_suite, setting_words


def run_grid(grid: Grid, folder: Path, options: RunOptions, *, progress: Progress | None = None) -> list[Outcome]:
    """Do what the runs of a grid still lack, and write the report of the whole.

    Every setting is a run folder below ``folder``; the same call goes on where it stopped, and draws nothing again. A
    grid with more values of the same axes adds their runs.

    Args:
        grid: of ``bench.suite.grid.make_grid``.
        folder: where its runs lie.
        options: as ``run_all`` takes them, for each run; ``fresh`` moves the whole folder aside.
        progress: told how far each run is.

    Raises:
        HotartError: as ``bench.store.grid.open_grid``, and as ``run_all`` of each run; those before it are kept.
    """
    outcomes = []
    each = msgspec.structs.replace(options, fresh=False)
    with open_grid(folder, grid, fresh=options.fresh):
        for number, member in enumerate(grid.members, start=1):
            label = f"{setting_words(member.setting)} ({number} of {len(grid.members)})"
            suite = member_suite(grid.suite, member.setting)
            outcomes.append(run_all(suite, folder / member.folder, each, progress=labelled(progress, label)))
        write_grid_report(load_grid(folder))
    return outcomes
