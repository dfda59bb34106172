"""``report``: the page, the markdown and the plots alone."""

from __future__ import annotations

from bench.cli.options import Limit, Output, Quiet, RunOrSuite
from bench.cli.printing import DONE, show
from bench.cli.stages import do_stage
from bench.cli.targets import find_target
from bench.report.grid import write_grid_report
from bench.store.grid import is_grid, load_grid


def report(run_or_suite: RunOrSuite, output: Output = None, limit: Limit = None, quiet: Quiet = False) -> int:
    """Write report.html, report.md and the plots of a run or a grid anew.

    Examples:
      hotart-bench report reports/runs/mini
      hotart-bench report reports/runs/grid-mini
      hotart-bench report mini
    """
    if is_grid(run_or_suite) and output is None and limit is None:
        page, _ = write_grid_report(load_grid(run_or_suite))
        show(str(page))
        return DONE
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage("report", suite, folder, quiet)
    return DONE
