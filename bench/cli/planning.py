"""``plan`` and ``calibrate``: how large a gate must be, and how much of what it sees is noise."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import AsJson, Device, Fresh, Limit, Metrics, Quiet, SuiteName, WeightsDir
from bench.cli.printing import print_json, say
from bench.cli.targets import RUNS, read_suite
from bench.cli.verbs import group, verb
from bench.errors import UsageError
from bench.records import Calibration, Suite

app = group("The size of a gate, and its noise.")
FILE = "calibration.json"


@verb(
    app,
    "plan",
    "hotart-bench plan mini --from reports/runs/mini",
    "hotart-bench plan my-suite.toml --from runs/pilot --margin mini-clip=0.05",
    "hotart-bench plan mini --from reports/runs/mini --candidate spo --json",
)
def plan(
    suite: SuiteName,
    pilot: Annotated[
        str,
        typer.Option("--from", metavar="RUN", help="A run with the suite's settings; a limited one will do."),
    ],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC=LIMIT",
            help="A wished limit, as a suite writes it; may be repeated.  [default: the suite's]",
            show_default=False,
        ),
    ] = None,
    power: Annotated[
        float, typer.Option("--power", metavar="P", help="How often a gate passes when nothing was lost.")
    ] = 0.8,
    candidate: Annotated[
        str | None, typer.Option("--candidate", metavar="V", help="A variant of the run.  [default: each]")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="V", help="A variant of the run.  [default: its first]")
    ] = None,
    json: AsJson = False,
) -> None:
    """Prompts, samples and time that margins need, by a pilot run."""
    from bench.cli.planning_tables import print_plan
    from bench.planning import plan_sizes
    from bench.store import load_run

    found = plan_sizes(
        read_suite(suite, None),
        load_run(pilot),
        margins=split_margins(margin or ()),
        power=power,
        candidate=candidate,
        reference=reference,
    )
    if json:
        print_json(found)
    else:
        print_plan(found)


CalibrationPlace = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR_OR_FILE",
        help="Where the runs go, or a .json file for the result alone.  [default: reports/runs/calibrate-<suite>]",
        show_default=False,
    ),
]
CalibratedVariants = Annotated[
    str | None,
    typer.Option("--variants", metavar="A,B", help="These variants.  [default: the first]", show_default=False),
]
OtherDevice = Annotated[
    str | None,
    typer.Option(
        "--other-device",
        metavar="DEVICE",
        help="Another device to render on.  [default: one like the first, or an accelerator]",
        show_default=False,
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", metavar="N", help="Runs with other seeds.")]
Sessions = Annotated[int, typer.Option("--sessions", metavar="N", help="Sessions of timing; 0 for none.")]


@verb(
    app,
    "calibrate",
    "hotart-bench calibrate mini",
    "hotart-bench calibrate mini --limit 8 --sessions 0",
    "hotart-bench calibrate my-suite.toml -o runs/calibration --sessions 5",
)
def calibrate(
    suite: SuiteName,
    output: CalibrationPlace = None,
    variants: CalibratedVariants = None,
    metrics: Metrics = None,
    seeds: Seeds = 2,
    sessions: Sessions = 3,
    device: Device = "auto",
    beside: OtherDevice = None,
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """A against A: how far apart chance alone puts the same weights.

    The same command again continues: it does only what is missing.
    """
    from bench.calibrate import calibrate as run_calibration
    from bench.cli.progress import show_progress

    checked = read_suite(suite, limit)
    folder, file = calibration_places(checked, output)
    chosen, names = _calibrated(checked, variants), options.split_names(metrics, "--metrics")
    for name in (device, beside):
        options.check_device(name or "auto")
    options.check_weights_dir(weights_dir)
    with show_progress(quiet) as progress:
        found = run_calibration(
            checked,
            folder,
            variants=chosen,
            metrics=names,
            device=device,
            beside=beside,
            seeds=seeds,
            sessions=sessions,
            fresh=fresh,
            weights_dir=weights_dir,
            progress=progress,
        )
    _hand_over(found, file, checked, quiet, json)


def _calibrated(suite: Suite, text: str | None) -> Sequence[str] | None:
    chosen = options.split_names(text, "--variants")
    known = [variant.name for variant in suite.variants]
    options.check_known(chosen, "--variants", known, f"hotart-bench list variants {shlex.quote(suite.source)}")
    return chosen


def _hand_over(found: Calibration, file: Path, suite: Suite, quiet: bool, json: bool) -> None:
    """Write what was found to its file, and print it."""
    from bench.calibrate import write_calibration
    from bench.cli.planning_tables import print_calibration

    write_calibration(found, file)
    if not quiet:
        say(f"Done: {file}, for `hotart-bench baseline RUN -o FILE --calibration {shlex.quote(str(file))}`.")
    if json:
        print_json(found)
    else:
        print_calibration(found, suite.limits)


def split_margins(texts: Sequence[str]) -> dict[str, str]:
    """``mini-clip=0.05`` as metric and limit; UsageError where it is not of that form, or a metric comes twice."""
    margins: dict[str, str] = {}
    for text in texts:
        name, equals, limit = (part.strip() for part in text.partition("="))
        if not (name and equals and limit):
            raise UsageError(
                f"--margin: {text!r} is not of the form METRIC=LIMIT, such as mini-clip=0.05 or mini-clip=0.1sd.",
                "hotart-bench plan --help",
            )
        if name in margins:
            raise UsageError(f"--margin: {name!r} is given twice.")
        margins[name] = limit
    return margins


def calibration_places(suite: Suite, output: Path | None) -> tuple[Path, Path]:
    """The folder of a calibration's runs, and its file."""
    own = f"calibrate-{suite.name}" + ("" if suite.limit is None else f"-limit-{suite.limit}")
    if output is not None and output.suffix == ".json":
        return RUNS / own, output
    folder = output or RUNS / own
    return folder, folder / FILE
