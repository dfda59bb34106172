"""``steps``: which denoising steps a model improves, and from which steps its gain comes."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import (
    Device,
    Fresh,
    Limit,
    Output,
    Quiet,
    Ray,
    RunOrSuite,
    Variants,
    WeightsDir,
    split_names,
)
from bench.cli.printing import DONE, say
from bench.cli.stages import do_stage
from bench.cli.targets import find_target
from bench.errors import UsageError
from bench.steps.plan import cost_of


def steps(
    run_or_suite: RunOrSuite,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Metrics of the predicted image, and step metrics, which know the step.  [default: the suite's "
            "[step_metrics], else its metrics of preference]",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="STEPS", help='all, "every 2", or numbers such as 1,5,20.  [default: all]'),
    ] = None,
    attribute: Annotated[
        str | None,
        typer.Option(
            "--attribute",
            metavar="VARIANT",
            help="Instead: render this variant in windows of steps only, to see where its gain comes from.",
        ),
    ] = None,
    windows: Annotated[int, typer.Option("--windows", metavar="N", help="With --attribute: how many.")] = 5,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and do nothing.")] = False,
    quiet: Quiet = False,
) -> int:
    """Which denoising steps a model improves: the predicted image at each step, scored.

    The path of each image is drawn again with the run's own batches. At the chosen steps the image that the model
    predicts is decoded and scored; step metrics, such as SPO's own model, know the step that they judge. The report
    then shows the difference of variants at each step, when an image is decided, and where the order at a step is
    the reverse of the final one.

    With --attribute a variant runs in windows of steps only, and the report says from which its gain comes.

    Examples:
      hotart-bench steps reports/runs/mini --metrics mini-preference,mini-step-aware
      hotart-bench steps mini --at "every 4" --dry-run
      hotart-bench steps mini --attribute spo --windows 5
    """
    suite, folder = find_target(run_or_suite, output, limit)
    if suite.external_images is not None:
        raise UsageError(f"{run_or_suite}: its images are external; nothing is known of their steps.")
    if attribute is not None:
        return _attribute(
            suite,
            run_or_suite,
            folder,
            attribute,
            windows,
            output,
            locals_of(metrics, device, weights_dir, ray, fresh),
            dry_run,
            quiet,
        )
    plan = _plan(suite, metrics, at)
    cost = cost_of(suite, plan, split_names(variants, "--variants"))
    say(cost)
    if dry_run:
        return DONE
    do_stage(
        "steps",
        suite,
        folder,
        quiet,
        variants=variants,
        device=device,
        weights_dir=weights_dir,
        ray=ray,
        fresh=fresh,
        steps=plan,
    )
    _tell(folder)
    return DONE
