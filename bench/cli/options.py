"""The flags that verbs share, and how their text becomes values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from typer.models import OptionInfo

from bench.errors import UsageError
from bench.formatting import argument, did_you_mean
from bench.records import Dtype, Suite

SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A shipped suite's name, or a .toml file.", show_default=True)
]
RunOrSuite = Annotated[
    str, typer.Argument(metavar="RUN_OR_SUITE", help="A run folder, a shipped suite's name, or a .toml file.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the URL of one.")]
SecondRun = Annotated[str | None, typer.Argument(metavar="RUN2", help="Another run folder: RUN is compared with it.")]
OptionalRunOrSuite = Annotated[
    str | None,
    typer.Argument(metavar="RUN_OR_SUITE", help="A run folder, a shipped suite's name, or a .toml file."),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Images from anywhere (PNG, JPEG, WebP) instead of a run."),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Their prompts: .csv or .jsonl with image, prompt and, of several, variant. Without, what the pictures "
        "say of themselves.",
    ),
]
Limits = Annotated[
    str | None,
    typer.Option("--limits", metavar="NAME=LIMIT,...", help="With --images: what a later gate may allow."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR_OR_URL",
        help="The run folder; s3://bucket/run lies on an object store.  [default: reports/runs/<suite>]",
        show_default=False,
    ),
]
Variants = Annotated[
    str | None,
    typer.Option("--variants", metavar="A,B", help="Only these variants.  [default: all of the suite]"),
]
Metrics = Annotated[
    str | None,
    typer.Option("--metrics", metavar="A,B", help="Only these metrics.  [default: those of the suite]"),
]
MetricsFor = Annotated[
    str | None,
    typer.Option("--metrics", metavar="A,B", help="The weights of these metrics.  [default: those of the suite]"),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:<number> or mps.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", help="Only the first N prompts, to try things out.  [default: all]"),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option("--weights-dir", metavar="DIR", envvar="HOTART_WEIGHTS", help="Local weights instead of downloads."),
]
MetricDtype = Annotated[
    str | None,
    typer.Option(
        "--metric-dtype",
        metavar="DTYPE",
        help="What the encoders of metrics compute in: float32, float16 or bfloat16. Scores of another dtype are "
        "another version of the metric.  [default: as the run was scored before, else float32]",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Render on a Ray cluster, a worker on each GPU. Scores and timings are made here, once the workers are "
        "gone: what is timed never shares a device.",
    ),
]
AllowRemote = Annotated[
    bool,
    typer.Option("--allow-remote", help="A judge may be an endpoint of another machine, which then gets the images."),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over; the old folder is kept beside the new one.")]
LedgerPath = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        metavar="FILE",
        envvar="HOTART_LEDGER",
        help="Note it in this ledger, which is made where there is none (docs/publish.md).",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only.")]
Checkpoints = Annotated[
    list[str],
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="A .safetensors file, a diffusers folder, a Hub id, or mini; repeat it for each. The first is the "
        "reference.",
        show_default=False,
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:WEIGHT]",
        help="Each checkpoint is drawn once more with this LoRA; repeat it for each. Without a number after the last "
        "colon its weight is 1.",
        show_default=False,
    ),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Each of these is drawn once more with this runtime, such as torchao-int8, deepcache:3 or compile; repeat "
        "it for each.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost (images, time, disk), and do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def file_option(flag: str, help_text: str) -> OptionInfo:
    """A flag that names a file."""
    option: OptionInfo = typer.Option(flag, metavar="FILE", help=help_text, show_default=False)
    return option


_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def split_names(text: str | None, flag: str) -> tuple[str, ...] | None:
    """Names of a flag's comma-separated value, or None where the flag was not given.

    Raises UsageError where a name is empty or given twice.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for index, name in enumerate(names):
        if not name:
            raise UsageError(f"{flag}: {text!r} holds an empty name; names are separated by single commas.")
        if name in names[:index]:
            raise UsageError(f"{flag}: {name!r} is given twice.")
    return names


def variants_of(suite: Suite, text: str | None) -> tuple[str, ...] | None:
    """The variants of a suite that ``--variants`` names; None without it, UsageError for an unknown one."""
    names = split_names(text, "--variants")
    known = [variant.name for variant in suite.variants]
    check_known(names, "--variants", known, f"hotart-bench list variants {argument(suite.source)}")
    return names


def check_known(names: Sequence[str] | None, flag: str, known: Sequence[str], listing: str) -> None:
    """Raises UsageError, with the nearest match, for the first name that is not ``known``.

    ``listing`` is the command that shows what is known.
    """
    for name in names or ():
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{flag}: {name!r} is not one of {', '.join(known)}{near}.", listing)


def check_device(device: str) -> str:
    """The device as it was given; UsageError where it cannot be one."""
    if _DEVICE.fullmatch(device) is None:
        near = did_you_mean(device, ("auto", "cpu", "cuda", "mps"))
        allowed = "auto, cpu, cuda, cuda:<number>, mps"
        raise UsageError(f"--device: {device!r} is not one of {allowed}{near}.", "hotart-bench doctor")
    return device


def check_dtype(name: str | None, flag: str = "--metric-dtype") -> Dtype | None:
    """The dtype as it was given; UsageError where it is not one."""
    if name is not None and name not in get_args(Dtype):
        near = did_you_mean(name, get_args(Dtype))
        raise UsageError(f"{flag}: {name!r} is not one of {', '.join(get_args(Dtype))}{near}.")
    return cast(Dtype | None, name)


def check_weights_dir(folder: Path | None) -> Path | None:
    """The folder of local weights; UsageError where it is not there."""
    if folder is not None and not os.path.isdir(folder):  # noqa: PTH112 -- Path.is_dir raises for a long name
        raise UsageError(f"--weights-dir (or HOTART_WEIGHTS): {folder} is not a folder.")
    return folder
