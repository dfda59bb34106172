"""``grid``: the suite under several settings, to see whether the order of its variants holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.cost import say_cost, timed_run
from bench.cli.ledger import check_ledger, note_run
from bench.cli.options import (
    Device,
    DryRun,
    Fresh,
    LedgerPath,
    Limit,
    MetricDtype,
    Metrics,
    Quiet,
    Ray,
    SuiteName,
    Variants,
    WeightsDir,
)
from bench.cli.printing import DONE, Columns, print_table, say, show
from bench.cli.progress import show_progress
from bench.cli.targets import default_folder, read_suite
from bench.documents import refuse_url
from bench.formatting import NONE, argument, duration, plural
from bench.machine import machine_facts, pick_device
from bench.plan.grid import MemberCost, grid_cost, with_seconds
from bench.questions.registry import registry_of_suite
from bench.records import Grid, RunOptions
from bench.run.grid import run_grid
from bench.store.reading import RUNS
from bench.suite.grid import AXES, flag_of, left_out_notes, make_grid, member_notes, read_axis, setting_words


def _values(axis: str, help_text: str, values: str) -> object:
    return typer.Option(flag_of(axis), metavar=values, help=help_text, show_default=False)


GuidanceScale = Annotated[str | None, _values("guidance_scale", "CFG scales.", "A,B,...")]
SamplerNames = Annotated[str | None, _values("sampler", "Samplers, by our names, A1111's or ComfyUI's.", "A,B,...")]
Schedules = Annotated[
    str | None,
    _values("schedule", "Schedules of noise levels, likewise.", "A,B,..."),
]
Steps = Annotated[str | None, _values("steps", "Numbers of steps.", "A,B,...")]
Eta = Annotated[str | None, _values("eta", "Eta of ddim and tcd.", "A,B,...")]
Size = Annotated[str | None, _values("size", "Width and height in pixels.", "WxH,...")]
Seed = Annotated[
    str | None,
    _values("seed", "Suite seeds. An order is judged over all of them; their spread is told.", "A,B,..."),
]
Place = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        help="The folder of the runs.  [default: reports/runs/grid-<suite>]",
        show_default=False,
    ),
]


def grid(
    suite: SuiteName = "mini",
    guidance_scale: GuidanceScale = None,
    sampler: SamplerNames = None,
    schedule: Schedules = None,
    steps: Steps = None,
    eta: Eta = None,
    size: Size = None,
    seed: Seed = None,
    output: Place = None,
    variants: Variants = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    metric_dtype: MetricDtype = None,
    ray: Ray = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    ledger: LedgerPath = None,
    quiet: Quiet = False,
) -> int:
    """Does the order of the variants hold under other settings: each setting is a run.

    Every combination of the values is rendered and scored, in a run folder of its own; nothing is timed. The same
    command again continues, and with more values of a flag it adds their runs: what is there is not drawn again.

    The report shows for each two variants the difference under each setting, under how many settings the order holds,
    where it flips, and whether the difference depends on a setting.

    Examples:
      hotart-bench grid mini --guidance-scale 3,7.5 --dry-run
      hotart-bench grid mini --guidance-scale 3,5,7.5 --seed 0,1,2 -o runs/cfg
      hotart-bench grid sdxl --steps 20,30 --size 1024x1024,832x1216
      hotart-bench compare runs/cfg
    """
    given = dict(zip(AXES, (guidance_scale, sampler, schedule, steps, eta, size, seed), strict=True))
    axes = [
        read_axis(name, options.split_names(text, flag_of(name)) or ())
        for name, text in given.items()
        if text is not None
    ]
    checked = read_suite(suite, limit)
    found = make_grid(checked, axes)
    folder = output or RUNS / f"grid-{default_folder(checked).name}"
    refuse_url(folder)
    chosen = RunOptions(
        variants=options.variants_of(checked, variants),
        metrics=options.split_names(metrics, "--metrics"),
        device=options.check_device(device),
        fresh=fresh,
        weights_dir=options.check_weights_dir(weights_dir),
        metric_dtype=options.check_dtype(metric_dtype),
        ray=ray,
    )
    options.check_known(
        chosen.metrics, "--metrics", sorted(registry_of_suite(checked).scored), "hotart-bench list metrics"
    )
    if not quiet or dry_run:
        for note in (*checked.notes, *member_notes(found), *left_out_notes(checked)):
            say(note)
        _tell_cost(found, folder, chosen, table=dry_run)
    if dry_run:
        return DONE
    check_ledger(ledger)
    with show_progress(quiet) as progress:
        outcomes = run_grid(found, folder, chosen, progress=progress)
    if not quiet:
        for note in dict.fromkeys(note for outcome in outcomes for note in outcome.notes):
            say(note)
        images = sum(outcome.images for outcome in outcomes)
        done = "Nothing was left to do" if all(outcome.done_before for outcome in outcomes) else "Done"
        say(f"{done}: {plural(len(outcomes), 'run')}, {images:,} images in {folder}.")
        say(f"  next: hotart-bench compare {argument(folder)}")
    if ledger is not None:
        for member in found.members:
            note_run(ledger, folder / member.folder, quiet=quiet)
    show(f"{folder}/report.html")
    return DONE


# What it costs.


def _tell_cost(found: Grid, folder: Path, chosen: RunOptions, *, table: bool) -> None:
    """Says settings x variants x images, their time and disk; the table of a dry run says it of each setting."""
    costs = grid_cost(found, folder, chosen.variants, fresh=chosen.fresh)
    basis = "Not known: the workers' devices are not known here."
    if any(any(one.cost.missing.values()) for one in costs) and chosen.ray is None:
        machine = machine_facts(pick_device(chosen.device))
        costs, basis = with_seconds(costs, found, machine, timed_run(found.suite), chosen.weights_dir)
    variants = len(costs[0].cost.missing)
    each = plural(costs[0].cost.images // variants, "image")
    what = f"{plural(len(costs), 'setting')} x {plural(variants, 'variant')} x {each}"
    say_cost(what, [one.cost for one in costs], [one.seconds for one in costs], basis)
    if table:
        columns: Columns = {"setting": "name", "run": "name", "to draw": "number", "time": "number"}
        print_table(columns, [_cost_row(one) for one in costs])


def _cost_row(one: MemberCost) -> list[str]:
    missing = sum(one.cost.missing.values())
    time = NONE if one.seconds is None else duration(one.seconds)
    return [setting_words(one.member.setting), one.member.folder, f"{missing:,}", time]
