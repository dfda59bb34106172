"""``measure``: the times and the memory alone."""

from __future__ import annotations

from bench.cli.options import Device, Limit, Output, Quiet, RunOrSuite, Variants, WeightsDir
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import find_target


def measure(
    run_or_suite: RunOrSuite,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
) -> int:
    """Time the variants and their memory, each in fresh processes.

    Examples:
      hotart-bench measure reports/runs/mini
      hotart-bench measure mini -o gpu --variants base,spo --device cuda
    """
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage("measure", suite, folder, quiet, variants=variants, device=device, weights_dir=weights_dir)
    return DONE
