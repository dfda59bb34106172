"""``plan`` and ``calibrate``: how large a gate must be, and how much of what it sees is noise."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import AsJson, Device, Fresh, Limit, Metrics, Quiet, SuiteName, WeightsDir
from bench.cli.printing import Column, print_json, print_table, printable, say
from bench.cli.targets import RUNS, read_suite
from bench.cli.verbs import group, verb
from bench.errors import UsageError
from bench.formatting import NONE, decimals_for, duration, number, percent, plural, signed
from bench.records import Calibration, MetricNoise, MetricPlan, SessionNoise, SizePlan, Suite

# A plan and a calibration as tables.

LOWER_BOUND = (
    "A margin is the smallest loss that matters to you; this noise is only its lower bound, not a reason for it."
)


def print_plan(plan: SizePlan) -> None:
    """Prints on stdout the prompts that each metric needs, and then the runs that serve them all."""
    print(
        printable(
            f"Prompts with which a metric passes in {percent(plan.power)} of gates when nothing was lost, "
            f"by samples a prompt (pilot: {plan.pilot})\n"
        )
    )
    samples = [run.samples for run in plan.runs]
    columns = [Column("metric"), Column("pair"), Column("limit"), Column("sd", number=True)]
    columns += [Column(f"{plural(n, 'sample')}", number=True) for n in samples]
    print_table([*columns, Column("now", number=True)], [_plan_row(metric, plan) for metric in plan.metrics])
    now = f"{plural(plan.prompts_now, 'prompt')} x {plural(plan.samples_now, 'sample')}"
    print(f"\nsd: of a prompt's difference at 1 sample; now: how often a gate with the suite's {now} passes.\n")
    headings = ("samples", "prompts", "images", "time")
    rows = [
        [
            str(run.samples),
            f"{run.prompts:,}",
            f"{run.images:,}",
            NONE if run.seconds is None else duration(run.seconds),
        ]
        for run in plan.runs
    ]
    print_table([Column(heading, number=True) for heading in headings], rows)
    print()
    for note in plan.notes:
        print(printable(note))


def print_calibration(calibration: Calibration, limits: Mapping[str, str]) -> None:
    """Prints on stdout the noise by its source, the margins that it allows, and the noise between sessions."""
    print(
        f"{calibration.suite}: the same weights against themselves "
        f"({plural(calibration.prompts, 'prompt')} x {plural(calibration.samples, 'sample')})\n"
    )
    several = len({noise.variant for noise in calibration.noise}) > 1
    headings = ("a prompt differs by", "the mean by", "+-95 %")
    columns = [Column("metric"), Column("other"), *(Column(heading, number=True) for heading in headings)]
    print_table(columns, [row for noise in calibration.noise for row in _source_rows(noise, several)])
    print()
    columns = [Column("metric"), *(Column(name, number=True) for name in ("noise floor", "margin", "in sd"))]
    rows = [_margin_row(noise, limits, several) for noise in calibration.noise]
    print_table([*columns, Column("suite's limit", number=True)], rows)
    print(
        f"\nmargin: the smallest at which runs with other seeds pass in 90 of 100 gates of this size.\n{LOWER_BOUND}\n"
    )
    for noise in calibration.noise:
        if noise.reason is not None:
            print(f"{_label(noise, several)} has no margin: {noise.reason}.")
    _print_sessions(calibration.session_noise, len({noise.variant for noise in calibration.noise}))
    for note in calibration.notes:
        print(printable(note))


def _plan_row(metric: MetricPlan, plan: SizePlan) -> list[str]:
    prompts = {size.samples: size.prompts for size in metric.sizes}
    first = metric.sizes[0]
    now = next((size.power_now for size in metric.sizes if size.samples == plan.samples_now), None)
    return [
        metric.metric,
        f"{metric.candidate} - {metric.reference}",
        metric.limit.text,
        number(first.sd, decimals_for(first.sd)),
        *(f"{prompts[run.samples]:,}" for run in plan.runs),
        percent(now),
    ]


def _source_rows(noise: MetricNoise, several: bool) -> list[list[str]]:
    decimals = decimals_for(max((source.half_width for source in noise.sources), default=0.0))
    return [
        [
            _label(noise, several),
            source.source,
            number(source.mean_absolute, decimals),
            signed(source.mean, decimals),
            number(source.half_width, decimals),
        ]
        for source in noise.sources
    ]


def _margin_row(noise: MetricNoise, limits: Mapping[str, str], several: bool) -> list[str]:
    return [
        _label(noise, several),
        round_up(noise.floor),
        round_up(noise.margin),
        round_up(noise.margin_sd),
        limits.get(noise.metric, NONE),
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


def _print_sessions(found: Sequence[SessionNoise], variants: int) -> None:
    if not found:
        return
    rows = [
        [one.name, f"{100 * one.sd_log_ratio:.2g} %", str(one.sessions), str(variants * (one.sessions - 1))]
        for one in found
    ]
    headings = ("sessions differ by", "sessions", "degrees of freedom")
    print_table([Column("median of"), *(Column(heading, number=True) for heading in headings)], rows)
    print("\nsessions differ by: standard deviation of the log ratio of two sessions' medians.\n")


def _label(noise: MetricNoise, several: bool) -> str:
    return f"{noise.metric} of {noise.variant}" if several else noise.metric


# ``plan`` and ``calibrate``: how large a gate must be, and how much of what it sees is noise.

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
            help="A target limit, as a suite writes it; may be repeated.  [default: the suite's]",
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
    from bench.plan import plan_sizes
    from bench.store import load_run
    from bench.suite.limits import parse_limits

    found = plan_sizes(
        read_suite(suite, None),
        load_run(pilot),
        margins=parse_limits(split_margins(margin or ())),
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
    """A/A test: how far apart chance alone puts the same weights.

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

    write_calibration(found, file)
    if not quiet:
        say(f"Done: {file}, for `hotart-bench baseline RUN -o FILE --calibration {shlex.quote(str(file))}`.")
    if json:
        print_json(found)
    else:
        print_calibration(found, {limit.name: limit.text for limit in suite.limits})


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
