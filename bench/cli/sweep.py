"""``sweep``: the weights of a LoRA, or the steps in which it runs, as the variants of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.cost import say_run_cost
from bench.cli.ledger import check_ledger, note_run
from bench.cli.options import Device, DryRun, Fresh, LedgerPath, Limit, Metrics, Output, Quiet, SuiteName, WeightsDir
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.steps import say_windows, tell_steps
from bench.cli.targets import default_folder, read_suite
from bench.errors import UsageError
from bench.formatting import listed
from bench.questions.registry import registry_of_suite
from bench.records import Suite
from bench.steps.plan import changes_text
from bench.store import load_run
from bench.suite import sweep_suite
from bench.suite.attribution import attribution_suite
from bench.suite.sweep import with_and_without

LORA_WEIGHTS = "0,0.25,0.5,0.75,1,1.25,1.5"


LoraName = Annotated[
    str, typer.Option("--lora", metavar="NAME", help="A variant of the suite that has LoRAs, or a LoRA file.")
]
LoraWeights = Annotated[
    str | None,
    typer.Option(
        "--lora-weights",
        metavar="A,B,...",
        help="What the LoRA is applied with, whatever its weight in the suite; 0, without it, is always among "
        f"them.  [default: {LORA_WEIGHTS}]",
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--windows",
        metavar="N",
        help="Instead of weights: the LoRA runs in each of N windows of steps, up to each and from each on.",
    ),
]
GainMetric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="With --windows: the metric that is to gain.  [default: the first of preference]",
    ),
]


def sweep(
    lora: LoraName,
    suite: SuiteName = "mini",
    lora_weights: LoraWeights = None,
    windows: Windows = None,
    metric: GainMetric = None,
    output: Output = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    ledger: LedgerPath = None,
    quiet: Quiet = False,
) -> int:
    """Which weight of a LoRA is best, or which steps: each is a variant of one run.

    Each is rendered, scored and reported. A weight takes the place of the LoRA's own one in the suite; those of
    components, blocks and further LoRAs of the variant keep their proportion to it.

    The report shows each metric over the weight with its interval, and the weights that no other one beats in
    preference, alignment and the change of the pixels together (the Pareto front). Nothing is timed.

    With --windows the report shows what the LoRA gives in which steps, the windows that no other one beats in the gain
    and in the largest loss of any other metric, and the cheapest one that keeps nine tenths of the gain.

    Examples:
      hotart-bench sweep mini --lora spo
      hotart-bench sweep sdxl --lora spo --dry-run
      hotart-bench sweep mini --lora spo --windows 5 --metric mini-preference
      hotart-bench sweep mini --lora dpo --lora-weights 0,0.5,1
      hotart-bench sweep sdxl --lora my.safetensors --lora-weights 0.5,1
    """
    if windows is None and metric is not None:
        raise UsageError("--metric goes with --windows; the front of weights is over preference and alignment.")
    if windows is not None and lora_weights is not None:
        raise UsageError("--windows keeps the LoRA's own weight; leave out --lora-weights, or sweep twice.")
    whole = read_suite(suite, limit)
    if windows is None:
        swept = sweep_suite(whole, lora, read_weights(LORA_WEIGHTS if lora_weights is None else lora_weights))
    else:
        swept = _in_windows(whole, lora, windows, metric, metrics, weights_dir)
        say_windows(swept)
    folder = output or default_folder(swept)
    if dry_run:
        say_run_cost(swept, folder, device=device, weights_dir=weights_dir, fresh=fresh)
        return DONE
    check_ledger(ledger)
    do_stage("all", swept, folder, quiet, metrics=metrics, device=device, weights_dir=weights_dir, fresh=fresh)
    if windows is not None:
        tell_steps(load_run(folder), folder)
    if ledger is not None:
        note_run(ledger, folder, quiet=quiet)
    return DONE


def _in_windows(
    suite: Suite, lora: str, windows: int, metric: str | None, metrics: str | None, weights_dir: Path | None
) -> Suite:
    """The suite of a LoRA in windows of steps; UsageError where the metric is not scored or has no better direction."""
    if metric is not None:
        scored = options.split_names(metrics, "--metrics") or suite.metrics
        if metric not in scored:
            raise UsageError(f"--metric: {metric!r} is not among the metrics: {listed(scored)}.")
        known = registry_of_suite(suite).scored
        options.check_known((metric,), "--metric", sorted(known), "hotart-bench list metrics")
        facts = known[metric].facts
        if facts.higher_is_better is None:
            raise UsageError(f"--metric: {metric} describes; neither end of it is better.")
        if facts.over not in ("image", "prompt"):
            raise UsageError(f"--metric: {metric} has one number of a tag; windows are compared prompt by prompt.")
    pair = with_and_without(suite, lora)
    plain, whole = pair.variants
    return attribution_suite(
        pair, whole.name, windows, lambda one: changes_text(one, plain, weights_dir), lora=lora, gain=metric
    )


def read_weights(text: str) -> tuple[float, ...]:
    """``0,0.5,1`` as numbers; UsageError where one is not a number."""
    weights = []
    for word in options.split_names(text, "--lora-weights") or ():
        try:
            weights.append(float(word))
        except ValueError as error:
            raise UsageError(
                f"--lora-weights: {word!r} is not a number; weights look like 0,0.5,1.", "hotart-bench sweep --help"
            ) from error
    return tuple(weights)
