"""``render``: the images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.cost import say_run_cost
from bench.cli.options import Device, DryRun, Fresh, Limit, Output, Quiet, Ray, RunOrSuite, Variants, WeightsDir
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import find_target
from bench.documents import exists
from bench.errors import UsageError
from bench.formatting import argument, did_you_mean, quoted
from bench.records import Suite

PromptIds = Annotated[
    list[str] | None,
    typer.Option("--prompt-id", metavar="ID", help="Only images of this prompt; may be repeated.", show_default=False),
]
Samples = Annotated[
    list[int] | None,
    typer.Option("--sample", metavar="N", help="Only samples of this number, from 0; may be repeated."),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="Only images of prompts with this tag; may be repeated."),
]


def render(
    run_or_suite: RunOrSuite,
    output: Output = None,
    variants: Variants = None,
    prompt_id: PromptIds = None,
    tag: Tags = None,
    sample: Samples = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> int:
    """Render the images that are missing, and nothing else.

    With --prompt-id or --tag these prompts alone, with --sample these samples alone: the planned batches that hold
    them are drawn, since the size of a batch changes pixels, and just those images are written. A later command
    without them renders the rest.

    Examples:
      hotart-bench render mini
      hotart-bench render reports/runs/mini --variants spo
      hotart-bench render RUN --prompt-id mini-portrait-03 --sample 0
      hotart-bench render sdxl --tag portrait --dry-run
      hotart-bench render my-suite.toml -o runs/mine --fresh
    """
    suite, folder = find_target(run_or_suite, output, limit)
    if suite.external_images is not None:
        raise UsageError(
            f"{run_or_suite}: its images are external; there is no model to render.",
            f"hotart-bench score {argument(run_or_suite)}",
        )
    only = wanted_images(suite, prompt_id or (), tag or (), sample or ())
    if dry_run:
        say_run_cost(
            suite,
            folder,
            variants=variants,
            device=device,
            weights_dir=weights_dir,
            ray=ray,
            fresh=fresh,
            only=only,
            on_top="loading",
        )
        return DONE
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
        only=only,
    )
    return DONE


def wanted_images(
    suite: Suite, ids: Sequence[str], tags: Sequence[str], samples: Sequence[int]
) -> frozenset[tuple[str, int]] | None:
    """Prompt and sample of the images that the flags name; None where they name none, which means all.

    A prompt is wanted by its id or by one of its tags.

    Raises:
        UsageError: an id, a tag or a sample that the suite has not.
    """
    if not (ids or tags or samples):
        return None
    listing = f"hotart-bench list prompts {argument(_first_set(suite))} --ids"
    known = {one.id for one in suite.prompts}
    for name in ids:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"--prompt-id: {quoted(name)} is none of the suite's {len(known)} prompts{near}.", listing)
    options.check_known(tags, "--tag", sorted({tag for one in suite.prompts for tag in one.tags}), listing)
    for number in samples:
        if not 0 <= number < suite.samples:
            allowed = "0" if suite.samples == 1 else f"0 to {suite.samples - 1}"
            raise UsageError(f"--sample: there is no sample {number}; the suite has {allowed}.")
    prompts = [one.id for one in suite.prompts if one.id in ids or not set(tags).isdisjoint(one.tags)]
    if not (ids or tags):
        prompts = [one.id for one in suite.prompts]
    return frozenset((name, number) for name in prompts for number in samples or range(suite.samples))


def _first_set(suite: Suite) -> str:
    """The first prompt set of a suite as `list prompts` takes it."""
    name = suite.prompt_files[0]
    beside = Path(suite.source).parent / name
    return str(beside) if suite.source.endswith(".toml") and exists(beside) else name
