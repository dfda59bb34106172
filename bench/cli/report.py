"""``report``: the page, the markdown and the plots alone."""

from __future__ import annotations

from bench.cli.options import Limit, Output, Quiet, RunOrSuite
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import find_target


def report(run_or_suite: RunOrSuite, output: Output = None, limit: Limit = None, quiet: Quiet = False) -> int:
    """Write report.html, report.md and the plots of a run anew.

    Examples:
      hotart-bench report reports/runs/mini
      hotart-bench report mini
    """
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage("report", suite, folder, quiet)
    return DONE
