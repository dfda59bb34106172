"""``run``, and its stages alone: ``render``, ``score``, ``measure``, ``report``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench import records
from bench.cli import options
from bench.cli.options import (
    Device,
    Fresh,
    Images,
    Limit,
    Limits,
    Metrics,
    OptionalRunOrSuite,
    Output,
    Prompts,
    Quiet,
    Ray,
    RunOrSuite,
    SuiteName,
    TowerDtype,
    Variants,
    WeightsDir,
)
from bench.cli.printing import say
from bench.cli.targets import RUNS, as_place, default_folder, find_target, names_run, read_suite, recorded_suite
from bench.cli.verbs import group, verb
from bench.errors import UsageError
from bench.formatting import did_you_mean, is_good_name, listed
from bench.records import RunOptions, Suite

if TYPE_CHECKING:
    from bench.run import Outcome

# ``score --images``: images from anywhere, brought into a run folder and scored there.


def import_given(
    images: Path,
    prompts: Path,
    folder: Path | str,
    *,
    metrics: str | None,
    limits: str | None,
    device: str,
    fresh: bool,
    quiet: bool,
) -> Suite:
    """The suite that a folder of images and a table of their prompts stand for, in the run folder ``folder``.

    Raises:
        UsageError: a flag that will not do, or a table that is wrong.
        InvalidError: none of the images can be judged.
    """
    from bench.cli.progress import show_progress
    from bench.machine import machine_facts, pick_device
    from bench.records import ExternalImages
    from bench.score.external_images import import_images
    from bench.suite.images_table import read_pairs

    options.check_device(device)
    chosen = _chosen_metrics(metrics, quiet)
    allowed = _limits(limits, chosen)
    pairs = read_pairs(prompts, images)
    machine = machine_facts(pick_device(device))
    with show_progress(quiet) as progress:
        return import_images(
            pairs,
            ExternalImages(images=str(images), prompts=str(prompts)),
            folder,
            metrics=chosen,
            limits=allowed,
            machine=machine,
            fresh=fresh,
            progress=progress,
        )


def folder_for(images: Path, runs: Path) -> Path:
    """The run folder of given images unless -o says otherwise: that of their folder's name."""
    name = images.resolve().name
    return runs / (name if is_good_name(name) else "images")


def refuse_mixture(run_or_suite: str | None, images: Path | None, prompts: Path | None, limit: int | None) -> None:
    """Raises UsageError unless either a run or suite is named, or both images and their prompts are."""
    example = "hotart-bench score --images DIR --prompts FILE.csv"
    if run_or_suite is None and images is None and prompts is None:
        raise UsageError("RUN_OR_SUITE is missing, or --images with --prompts.", "hotart-bench score --help")
    if images is None and prompts is None:
        return
    if run_or_suite is not None:
        raise UsageError(f"--images and --prompts stand alone; leave {run_or_suite} out.", example)
    if images is None or prompts is None:
        missing = "--images" if images is None else "--prompts"
        raise UsageError(f"{missing} is missing: --images and --prompts go together.", example)
    if limit is not None:
        raise UsageError("--limit goes with a suite; shorten the table of --prompts instead.")


def _chosen_metrics(text: str | None, quiet: bool) -> Sequence[str]:
    from bench.metrics import all_metrics

    known = all_metrics()
    names = options.split_names(text, "--metrics")
    options.check_known(names, "--metrics", sorted(known), "hotart-bench list metrics")
    if names is not None:
        return names
    light = [name for name, one in known.items() if one.facts.encoder is None and one.load_head is None]
    if not quiet:
        say(f"Scored by what needs no weights: {listed(light)}. --metrics names judges; hotart-bench list metrics")
    return light


def _limits(text: str | None, metrics: Sequence[str]) -> list[records.Limit]:
    """``NAME=LIMIT,...``, each a limit that says something of its metric."""
    from bench.metrics import facts_for
    from bench.suite.limits import check_metric_limit, parse_limit

    limits: dict[str, records.Limit] = {}
    for item in options.split_names(text, "--limits") or ():
        name, found, limit = (part.strip() for part in item.partition("="))
        if not found:
            raise UsageError(f"--limits: {item!r} is no NAME=LIMIT, such as {shlex.quote(metrics[0])}=0.1sd.")
        if name not in metrics:
            raise UsageError(f"--limits: {name!r} is not scored{did_you_mean(name, metrics)}: {listed(metrics)}.")
        limits[name] = parse_limit(name, limit)
        check_metric_limit(limits[name], facts_for((name,))[0])
    return list(limits.values())


# ``run``, and its stages alone: ``render``, ``score``, ``measure``, ``report``.

app = group("The main job and its stages.")

Stage = Literal["all", "render", "score", "measure", "report"]


@verb(
    app,
    "run",
    "hotart-bench run",
    "hotart-bench run mini --limit 4 --variants base,spo",
    "hotart-bench run my-suite.toml -o runs/mine --device cuda",
    "hotart-bench run sdxl --ray auto -o s3://bucket/sdxl",
)
def run(
    suite: SuiteName = "mini",
    output: Output = None,
    variants: Variants = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    metric_dtype: TowerDtype = None,
    ray: Ray = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Render, score, measure and report: the main job.

    The same command again continues: it does only what is missing.
    """
    if names_run(suite):
        source = shlex.quote(recorded_suite(suite).source)
        raise UsageError(
            f"{suite} is a run folder; `run` takes a suite, and the folder with -o.",
            f"hotart-bench run {source} -o {shlex.quote(suite)}",
        )
    checked = read_suite(suite, limit)
    folder = as_place(output) if output else default_folder(checked)
    do_stage(
        "all",
        checked,
        folder,
        quiet,
        variants=variants,
        metrics=metrics,
        device=device,
        weights_dir=weights_dir,
        metric_dtype=metric_dtype,
        ray=ray,
        fresh=fresh,
    )


@verb(
    app,
    "render",
    "hotart-bench render mini",
    "hotart-bench render reports/runs/mini --variants spo",
    "hotart-bench render my-suite.toml -o runs/mine --fresh",
)
def render(
    run_or_suite: RunOrSuite,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Render the images that are missing, and nothing else."""
    suite, folder = find_target(run_or_suite, output, limit)
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
    )


@verb(
    app,
    "score",
    "hotart-bench score reports/runs/mini",
    "hotart-bench score reports/runs/mini --metrics mini-aesthetic,sharpness",
    "hotart-bench score --images pictures --prompts pictures.csv --metrics blur",
)
def score(
    run_or_suite: OptionalRunOrSuite = None,
    images: Images = None,
    prompts: Prompts = None,
    limits: Limits = None,
    output: Output = None,
    variants: Variants = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    metric_dtype: TowerDtype = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Score the images that are there.

    Nothing is rendered, so an old run can get a new metric, and images from anywhere can be scored: they become
    a run folder that report, compare and gate take.
    """
    refuse_mixture(run_or_suite, images, prompts, limit)
    if images is not None and prompts is not None:
        folder = as_place(output) if output else folder_for(images, RUNS)
        suite = import_given(
            images, prompts, folder, metrics=metrics, limits=limits, device=device, fresh=fresh, quiet=quiet
        )
    else:
        if limits is not None or fresh:
            raise UsageError(f"{'--fresh' if fresh else '--limits'} goes with --images here.")
        suite, folder = find_target(str(run_or_suite), output, limit)
    do_stage(
        "score",
        suite,
        folder,
        quiet,
        variants=variants,
        metrics=metrics,
        device=device,
        weights_dir=weights_dir,
        metric_dtype=metric_dtype,
    )


@verb(
    app,
    "measure",
    "hotart-bench measure reports/runs/mini",
    "hotart-bench measure mini -o gpu --variants base,spo --device cuda",
)
def measure(
    run_or_suite: RunOrSuite,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
) -> None:
    """Time the variants and their memory, each in fresh processes."""
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage("measure", suite, folder, quiet, variants=variants, device=device, weights_dir=weights_dir)


@verb(app, "report", "hotart-bench report reports/runs/mini", "hotart-bench report mini")
def report(run_or_suite: RunOrSuite, output: Output = None, limit: Limit = None, quiet: Quiet = False) -> None:
    """Write report.html, report.md and the plots of a run anew."""
    suite, folder = find_target(run_or_suite, output, limit)
    do_stage("report", suite, folder, quiet)


def do_stage(
    stage: Stage,
    suite: Suite,
    folder: str | Path,
    quiet: bool,
    *,
    variants: str | None = None,
    metrics: str | None = None,
    device: str = "auto",
    weights_dir: Path | None = None,
    metric_dtype: str | None = None,
    ray: str | None = None,
    fresh: bool = False,
) -> None:
    """Checks the flags, does the work with its progress shown, and tells how it went."""
    from bench.cli.progress import show_progress
    from bench.run import run_all, run_stage

    work: Callable[..., Outcome] = run_all if stage == "all" else functools.partial(run_stage, stage)
    chosen_variants = _choose_variants(suite, variants)
    chosen_metrics = _choose_metrics(metrics)
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    dtype = options.check_dtype(metric_dtype)
    with show_progress(quiet) as progress:
        outcome = work(
            suite,
            folder,
            RunOptions(
                variants=chosen_variants,
                metrics=chosen_metrics,
                device=device,
                fresh=fresh,
                weights_dir=weights_dir,
                metric_dtype=dtype,
                ray=ray,
            ),
            progress=progress,
        )
    _tell(stage, outcome, quiet, str(folder))


def _choose_variants(suite: Suite, text: str | None) -> Sequence[str] | None:
    names = options.split_names(text, "--variants")
    known = [variant.name for variant in suite.variants]
    options.check_known(names, "--variants", known, f"hotart-bench list variants {shlex.quote(suite.source)}")
    return names


def _choose_metrics(text: str | None) -> Sequence[str] | None:
    from bench.metrics import all_metrics

    names = options.split_names(text, "--metrics")
    if names is not None:
        options.check_known(names, "--metrics", sorted(all_metrics()), "hotart-bench list metrics")
    return names


def _tell(stage: Stage, outcome: Outcome, quiet: bool, folder: str) -> None:
    """Notes and counts on stderr, and on stdout the path of what was made; of a run on a store, its URL."""
    if not quiet or outcome.failed or outcome.missing:
        for note in outcome.notes:
            say(note)
    if not quiet:
        counts = f"{outcome.images} images, {outcome.scores} scores, {outcome.timings} timings"
        counts += f", {outcome.missing} images still to render" if outcome.missing else ""
        say(f"{'Nothing was left to do' if outcome.done_before else 'Done'}: {counts} in {folder}.")
        if stage in ("all", "report"):
            say(f"  next: hotart-bench compare {shlex.quote(folder)}")
    made = stage in ("all", "report") and (Path(outcome.path) / "report.html").is_file()
    print(f"{folder.rstrip('/')}/report.html" if made else folder)
