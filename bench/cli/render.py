"""``render``: the images alone."""

from __future__ import annotations

from bench.cli.options import Device, Fresh, Limit, Output, Quiet, Ray, RunOrSuite, Variants, WeightsDir
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import find_target


def render(
    run_or_suite: RunOrSuite,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> int:
    """Render the images that are missing, and nothing else.

    Examples:
      hotart-bench render mini
      hotart-bench render reports/runs/mini --variants spo
      hotart-bench render my-suite.toml -o runs/mine --fresh
    """
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage(
        "render",
        suite,
        folder,
        quiet,
        variants=variants,
        device=device,
        weights_dir=weights_dir,
        ray=ray,
        fresh=fresh,
    )
    return DONE
