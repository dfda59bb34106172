"""``calibrate``: how much of what a gate sees is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bench.calibrate import calibrate as run_calibration
from bench.calibrate import write_calibration
from bench.cli import options
from bench.cli.options import AsJson, Device, Fresh, Limit, Metrics, Quiet, SuiteName, WeightsDir
from bench.cli.printing import DONE, Columns, print_json, print_table, say, show
from bench.cli.progress import show_progress
from bench.cli.targets import read_suite
from bench.formatting import NONE, argument, decimals_for, number, plural, signed
from bench.records import Calibration, MetricNoise, Suite
from bench.store.reading import RUNS

Place = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR_OR_FILE",
        help="Where the runs go, or a .json file for the result alone.  [default: reports/runs/calibrate-<suite>]",
        show_default=False,
    ),
]
Variants = Annotated[
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


def calibrate(
    suite: SuiteName,
    output: Place = None,
    variants: Variants = None,
    metrics: Metrics = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Runs with other seeds.")] = 2,
    sessions: Annotated[int, typer.Option("--sessions", metavar="N", help="Sessions of timing; 0 for none.")] = 3,
    device: Device = "auto",
    other_device: OtherDevice = None,
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> int:
    """A/A test: how far apart chance alone puts the same weights.

    The same command again continues: it does only what is missing.

    Examples:
      hotart-bench calibrate mini
      hotart-bench calibrate mini --limit 8 --sessions 0
      hotart-bench calibrate my-suite.toml -o runs/calibration --sessions 5
    """
    checked = read_suite(suite, limit)
    folder, file = calibration_places(checked, output)
    chosen, names = options.variants_of(checked, variants), options.split_names(metrics, "--metrics")
    for name in (device, other_device):
        options.check_device(name or "auto")
    options.check_weights_dir(weights_dir)
    with show_progress(quiet) as progress:
        found = run_calibration(
            checked,
            folder,
            variants=chosen,
            metrics=names,
            device=device,
            beside=other_device,
            seeds=seeds,
            sessions=sessions,
            fresh=fresh,
            weights_dir=weights_dir,
            progress=progress,
        )
    write_calibration(found, file)
    if not quiet:
        say(f"Done: {file}, for `hotart-bench baseline RUN -o FILE --calibration {argument(file)}`.")
    if json:
        print_json(found)
    else:
        print_calibration(found, {limit.name: limit.text for limit in checked.limits})
    return DONE


def calibration_places(suite: Suite, output: Path | None) -> tuple[Path, Path]:
    """The folder of a calibration's runs, and its file."""
    own = f"calibrate-{suite.name}" + ("" if suite.limit is None else f"-limit-{suite.limit}")
    if output is not None and output.suffix == ".json":
        return RUNS / own, output
    folder = output or RUNS / own
    return folder, folder / "calibration.json"


def print_calibration(calibration: Calibration, limits: Mapping[str, str]) -> None:
    """Prints on stdout the noise by its source, the margins that it allows, and the noise between sessions."""
    show(
        f"{calibration.suite}: the same weights against themselves "
        f"({plural(calibration.prompts, 'prompt')} x {plural(calibration.samples, 'sample')})\n"
    )
    variants = len({noise.variant for noise in calibration.noise})
    labels = [f"{one.metric} of {one.variant}" if variants > 1 else one.metric for one in calibration.noise]
    labelled = list(zip(labels, calibration.noise, strict=True))
    columns: Columns = {
        "metric": "name",
        "other": "name",
        "a prompt differs by": "number",
        "the mean by": "number",
        "+-95 %": "number",
    }
    print_table(columns, [row for label, noise in labelled for row in _source_rows(label, noise)])
    show()
    columns = {"metric": "name", **dict.fromkeys(("noise floor", "margin", "in sd", "suite's limit"), "number")}
    rows = [
        [label, *map(round_up, (noise.floor, noise.margin, noise.margin_sd)), limits.get(noise.metric, NONE)]
        for label, noise in labelled
    ]
    print_table(columns, rows)
    show(
        "\nmargin: the smallest at which runs with other seeds pass in 90 of 100 gates of this size.\n"
        "A margin is the smallest loss that matters to you; this noise is only its lower bound, not a reason for it.\n"
    )
    for label, noise in labelled:
        if noise.reason is not None:
            show(f"{label} has no margin: {noise.reason}.")
    if calibration.session_noise:
        rows = [
            [one.name, f"{100 * one.sd_log_ratio:.2g} %", str(one.sessions), str(variants * (one.sessions - 1))]
            for one in calibration.session_noise
        ]
        headings = ("sessions differ by", "sessions", "degrees of freedom")
        print_table({"median of": "name", **dict.fromkeys(headings, "number")}, rows)
        show("\nsessions differ by: standard deviation of the log ratio of two sessions' medians.\n")
    for note in calibration.notes:
        show(note)


def _source_rows(label: str, noise: MetricNoise) -> list[list[str]]:
    decimals = decimals_for(max((source.half_width for source in noise.sources), default=0.0))
    return [
        [
            label,
            source.source,
            number(source.mean_absolute, decimals),
            signed(source.mean, decimals),
            number(source.half_width, decimals),
        ]
        for source in noise.sources
    ]


def round_up(value: float | None) -> str:
    """Two figures, rounded up: a margin must not be under its bound for the sake of a shorter number."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    decimals = 1 - math.floor(math.log10(value))
    raised = math.ceil(value * 10.0**decimals - 1e-9) / 10.0**decimals
    return f"{raised:.{max(0, decimals)}f}"
