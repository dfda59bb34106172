"""``init``: a suite file from checkpoints and LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import Checkpoints, Loras, Runtimes, WeightsDir
from bench.cli.printing import DONE, say, show
from bench.cli.targets import read_suite
from bench.documents import exists
from bench.draft.families import TITLES
from bench.draft.make import Draft, init_suite, make_draft
from bench.draft.suite_text import suite_text
from bench.errors import UsageError
from bench.formatting import argument, joined, plural
from bench.records import Suite
from bench.store.journal import make_folder, write_whole

HEADING = (
    "A suite of hotart-bench: the same prompts from the same noise with every variant, scored and compared with the",
    "first one. Paths start from the folder of this file. Written by `hotart-bench init`; it is yours to change.",
)


def init(
    checkpoint: Checkpoints,
    lora: Loras = None,
    runtime: Runtimes = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the suite goes, a .toml file.")
    ] = Path("my-suite.toml"),
    weights_dir: WeightsDir = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> int:
    """Write a suite file from checkpoints and LoRAs.

    Each checkpoint is a variant, the first one the reference, each once more with each LoRA, and all of these once more
    with each runtime. Prompt sets, metrics
    and settings are those of the shipped suite of their family, SDXL or SD 1.5, which is read from the files. The file
    has comments, and is yours to change.

    Examples:
      hotart-bench init --checkpoint old.safetensors --checkpoint new.safetensors
      hotart-bench init --checkpoint old.safetensors --lora spo.safetensors:0.8
      hotart-bench init --checkpoint owner/name --checkpoint D:/new.safetensors
      hotart-bench init --checkpoint mini --lora mini:spo -o my.toml
    """
    options.check_weights_dir(weights_dir)
    if output.suffix != ".toml":
        better = argument(output.with_suffix(".toml"))
        raise UsageError(f"-o: {output} is no .toml file, as a suite is.", f"give -o {better}")
    if exists(output) and not force:
        raise UsageError(f"{output}: is there already.", "give --force to replace it, or another file with -o")
    draft = make_draft(checkpoint, lora or (), weights_dir, runtime or ())
    text = suite_text(init_suite(draft, output.stem), output.parent, HEADING)
    make_folder(output.parent)
    write_whole(output, text.encode())
    suite = read_suite(str(output), None)
    tell_draft(draft, suite)
    say(f"  next: hotart-bench doctor {argument(output)}, then hotart-bench run {argument(output)}")
    show(str(output))
    return DONE


def tell_draft(draft: Draft, suite: Suite) -> None:
    """Says what a suite was made of, and what was assumed."""
    images = len(suite.variants) * len(suite.prompts) * suite.samples
    say(
        f"{plural(len(draft.variants), 'variant')} ({joined([one.name for one in draft.variants])}) of "
        f"{TITLES[draft.family]}, {plural(len(suite.prompts), 'prompt')}: {plural(images, 'image')}."
    )
    for note in draft.notes:
        say(note)
