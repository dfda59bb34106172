"""``sweep``: the weights of a LoRA as the variants of one run."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import Device, Fresh, Limit, Metrics, Output, Quiet, SuiteName, WeightsDir
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import default_folder, read_suite
from bench.errors import UsageError
from bench.suite import sweep_suite


def sweep(
    lora: Annotated[
        str, typer.Option("--lora", metavar="NAME", help="A variant of the suite that has LoRAs, or a LoRA file.")
    ],
    suite: SuiteName = "mini",
    lora_weights: Annotated[
        str,
        typer.Option(
            "--lora-weights",
            metavar="A,B,...",
            help="What the LoRA is applied with, whatever its weight in the suite; 0, without it, is always among "
            "them.",
        ),
    ] = "0,0.25,0.5,0.75,1,1.25,1.5",
    output: Output = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> int:
    """Which weight of a LoRA is best: each is a variant of one run.

    Each is rendered, scored and reported. A weight takes the place of the LoRA's own one in the suite; those of
    components, blocks and further LoRAs of the variant keep their proportion to it.

    The report shows each metric over the weight with its interval, and the weights that no other one beats in
    preference, alignment and the change of the pixels together (the Pareto front). Nothing is timed.

    Examples:
      hotart-bench sweep mini --lora spo
      hotart-bench sweep mini --lora dpo --lora-weights 0,0.5,1
      hotart-bench sweep sdxl --lora my.safetensors --lora-weights 0.5,1
    """
    swept = sweep_suite(read_suite(suite, limit), lora, read_weights(lora_weights))
    folder = output or default_folder(swept)
    do_stage("all", swept, folder, quiet, metrics=metrics, device=device, weights_dir=weights_dir, fresh=fresh)
    return DONE


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
