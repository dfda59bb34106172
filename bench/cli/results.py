"""``compare`` and ``plot``: what a finished run, or two of them, say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import msgspec
import typer

from bench.cli import options
from bench.cli.comparison import Comparison, print_comparison
from bench.cli.options import AsJson, Metrics, RunFolder, SecondRun
from bench.cli.printing import print_json, printable, say
from bench.cli.verbs import group, verb
from bench.errors import UsageError
from bench.records import Delta, Run

app = group("What finished runs say.")

PairsFlag = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="A:B,C:D",
        help="Compare A with B and C with D.  [default: each variant with the first, and spo with dpo]",
    ),
]


@verb(
    app,
    "compare",
    "hotart-bench compare reports/runs/mini",
    "hotart-bench compare reports/runs/mini --pairs spo:dpo --tag portrait",
    "hotart-bench compare runs/new runs/old --json",
)
def compare(
    run: RunFolder,
    run2: SecondRun = None,
    pairs: PairsFlag = None,
    metrics: Metrics = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only prompts with this tag.")] = None,
    json: AsJson = False,
) -> None:
    """Paired differences between variants, or between two runs.

    The prompt is the unit; the same prompt and noise stand on both sides of a pair. Three or more variants of a
    run are ranked as well, unless --pairs or --tag choose among them.
    """
    from bench.compare import compare_run, compare_runs, rank_variants
    from bench.store import load_run

    candidate = load_run(run)
    reference = None if run2 is None else load_run(run2)
    names = split_pairs(pairs)
    chosen = options.split_names(metrics, "--metrics")
    by_tag = json or tag is not None
    if reference is None:
        deltas = compare_run(candidate, pairs=names, metrics=chosen, tags=by_tag)
    else:
        deltas = compare_runs(candidate, reference, pairs=names, metrics=chosen, tags=by_tag)
    if tag is not None:
        deltas = _with_tag(deltas, tag, candidate)
    comparison = Comparison(deltas=deltas) if reference else _with_timings(deltas, candidate, names)
    if reference is None and names is None and tag is None:
        comparison = msgspec.structs.replace(comparison, rankings=rank_variants(candidate, metrics=chosen))
    if json:
        print_json(comparison)
    else:
        print_comparison(comparison, candidate.info.metrics)


@verb(
    app,
    "plot",
    "hotart-bench plot reports/runs/mini",
    "hotart-bench plot reports/runs/mini -o figures --format svg",
    "hotart-bench plot runs/new runs/old -o figures --dpi 300",
)
def plot(
    run: RunFolder,
    run2: SecondRun = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where to.  [default: plots in the folder of RUN]"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="png, svg or pdf.")] = "png",
    dpi: Annotated[int, typer.Option("--dpi", metavar="N", help="Dots per inch of a PNG, 50 to 1200.")] = 150,
) -> None:
    """Draw the comparison plots of a run, or of two."""
    from bench.compare import compare_run, compare_runs
    from bench.compare.sweep import sweep_curve
    from bench.plots import write_plots, write_plots_for_runs
    from bench.plots.data import unlike_machines
    from bench.plots.gate import write_gate_plot
    from bench.plots.style import Format
    from bench.plots.sweep import write_sweep_plot
    from bench.report import gate_of
    from bench.store import load_run

    options.check_known((format_,), "--format", get_args(Format), "hotart-bench plot --help")
    fmt = cast(Format, format_)
    candidate = load_run(run)
    home = Path(candidate.path)
    if run2 is None:
        deltas = compare_run(candidate, tags=False)
        written = write_plots(candidate, deltas, output or home / "plots", fmt, dpi)
        gate = gate_of(candidate)
        if gate is not None:
            written += write_gate_plot(gate, output or home / "plots", fmt, dpi)
        curve = sweep_curve(candidate, deltas)
        if curve is not None:
            written += write_sweep_plot(curve, candidate.info.metrics, output or home / "plots", fmt, dpi)
    else:
        reference = load_run(run2)
        folder = output or home / f"plots-against-{Path(reference.path).resolve().name}"
        deltas = compare_runs(candidate, reference, tags=False)
        written = write_plots_for_runs(candidate, reference, deltas, folder, fmt, dpi)
        if unlike := unlike_machines(candidate, reference):
            say(f"Latency and memory are left out: the runs are of unlike machines ({'; '.join(unlike)}).")
    for path in written:
        print(printable(str(path)))
    if not written:
        say("There is nothing to draw: no scores and no timings.")


def split_pairs(text: str | None) -> tuple[tuple[str, str], ...] | None:
    """``spo:dpo,spo:base`` as (candidate, reference) pairs; UsageError where it is not of that form."""
    pairs = []
    for pair in options.split_names(text, "--pairs") or ():
        candidate, colon, reference = pair.partition(":")
        if not (candidate and colon and reference) or ":" in reference:
            raise UsageError(
                f"--pairs: {pair!r} is not of the form CANDIDATE:REFERENCE, such as spo:base.",
                "hotart-bench compare --help",
            )
        pairs.append((candidate, reference))
    return tuple(pairs) or None


def _with_tag(deltas: tuple[Delta, ...], tag: str, run: Run) -> tuple[Delta, ...]:
    from bench.compare import MIN_TAG_PROMPTS

    cases = run.info.suite.cases
    known = sorted({tag for case in cases for tag in case.tags})
    options.check_known((tag,), "--tag", known, f"hotart-bench compare {run.path}")
    chosen = tuple(delta for delta in deltas if delta.tag == tag)
    if not chosen:
        count = sum(tag in case.tags for case in cases)
        raise UsageError(f"--tag: {tag!r} is on {count} prompts of {run.path}; {MIN_TAG_PROMPTS} must have scores.")
    return chosen


def _with_timings(deltas: tuple[Delta, ...], run: Run, pairs: tuple[tuple[str, str], ...] | None) -> Comparison:
    from bench.compare import summarize_timings, timing_ratios, variant_pairs

    chosen = variant_pairs(run.info.suite) if pairs is None else pairs
    return Comparison(deltas=deltas, ratios=timing_ratios(run, pairs=chosen), timings=summarize_timings(run))
