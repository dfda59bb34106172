"""``plot``: the comparison plots of a run, or of two, and sheets of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from bench.cli import options
from bench.cli.options import RunFolder, SecondRun
from bench.cli.printing import DONE, say, show
from bench.cli.sheets import draw_sheets
from bench.compare import compare_run, compare_runs
from bench.compare.sweep import sweep_curve
from bench.documents import resolved
from bench.errors import InvalidError, UsageError
from bench.formatting import argument
from bench.plots import write_plots, write_plots_for_runs, write_sweep_plot
from bench.plots.data import machine_differences
from bench.plots.gate import write_gate_plot
from bench.plots.style import Format
from bench.records import Run
from bench.report import gate_of
from bench.report.grid import write_grid_plot
from bench.store import load_run
from bench.store.grid import is_grid, load_grid

DPI = 150
"""Dots per inch of a plot, unless others are asked for."""


def plot(
    run: RunFolder,
    run2: SecondRun = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where to.  [default: plots in the folder of RUN]"),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="png, svg or pdf; of a sheet png or webp.")
    ] = "png",
    dpi: Annotated[
        int | None, typer.Option("--dpi", metavar="N", help="Dots per inch of a PNG, 50 to 1200.  [default: 150]")
    ] = None,
    sheet: Annotated[
        bool,
        typer.Option("--sheet", help="Instead: the images, prompts down, variants, weights or settings across."),
    ] = False,
    contact: Annotated[
        bool, typer.Option("--contact", help="Instead: the images of each variant, one after the other.")
    ] = False,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", metavar="A,B|N", help="Of a sheet: these ids, or the first N.  [default: all]"),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="N", help="Of a sheet: the first N of a prompt.  [default: 1]")
    ] = None,
    variants: Annotated[
        str | None, typer.Option("--variants", metavar="A,B", help="Of a sheet: only these.  [default: all]")
    ] = None,
    side: Annotated[
        int | None,
        typer.Option("--side", metavar="PX", help="Of a sheet: longest side of an image, 32 to 4096.  [default: 256]"),
    ] = None,
) -> int:
    """Draw the plots of a run, of two, or of a grid; or its images on a sheet.

    Examples:
      hotart-bench plot reports/runs/mini
      hotart-bench plot reports/runs/mini -o figures --format svg
      hotart-bench plot runs/new runs/old -o figures --dpi 300
      hotart-bench plot reports/runs/mini --sheet --prompts 8 --samples 2
      hotart-bench plot reports/runs/mini --contact --variants spo
    """
    if sheet or contact:
        if run2 is not None:
            raise UsageError("A sheet is of one run or grid; leave out RUN2.")
        if sheet and contact:
            raise UsageError("--sheet and --contact are two kinds of sheets; give the command once with each.")
        if dpi is not None:
            raise UsageError("--dpi is for plots; the size of a sheet is --side, the longest side of an image.")
        for path, note in draw_sheets(
            run, output, format_, contact=contact, prompts=prompts, samples=samples, variants=variants, side_px=side
        ):
            say(note)
            show(str(path))
        return DONE
    for flag, value in (("--prompts", prompts), ("--samples", samples), ("--variants", variants), ("--side", side)):
        if value is not None:
            raise UsageError(f"{flag} goes with --sheet or --contact.")
    options.check_known((format_,), "--format", get_args(Format), "hotart-bench plot --help")
    dpi = DPI if dpi is None else dpi
    if is_grid(run) and run2 is None:
        found = load_grid(run)
        for path in write_grid_plot(found, output or Path(found.path) / "plots", cast(Format, format_), dpi):
            show(str(path))
        return DONE
    candidate = load_run(run)
    home = Path(candidate.path)
    if run2 is None:
        written = _plot_run(candidate, output or home / "plots", cast(Format, format_), dpi)
    else:
        reference = load_run(run2)
        folder = output or home / f"plots-against-{resolved(reference.path).name}"
        deltas = compare_runs(candidate, reference, tags=False)
        written = write_plots_for_runs(candidate, reference, deltas, folder, cast(Format, format_), dpi)
        if differing := machine_differences(candidate, reference):
            say(f"Latency and memory are left out: the machines of the runs differ ({'; '.join(differing)}).")
    if not written:
        raise InvalidError("There is nothing to draw: no scores and no timings.", f"hotart-bench score {argument(run)}")
    for path in written:
        show(str(path))
    return DONE


def _plot_run(run: Run, folder: Path, fmt: Format, dpi: int) -> tuple[Path, ...]:
    deltas = compare_run(run, tags=False)
    written = write_plots(run, deltas, folder, fmt, dpi)
    gate = gate_of(run)
    if gate is not None:
        written += write_gate_plot(gate, folder, fmt, dpi)
    curve = sweep_curve(run, deltas)
    if curve is not None:
        written += write_sweep_plot(curve, run.info.metrics, folder, fmt, dpi)
    return written
