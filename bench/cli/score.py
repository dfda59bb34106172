"""``score``: the images of a run, or images from anywhere, which become a run folder that is scored."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import records
from bench.cli import options
from bench.cli.options import (
    AllowRemote,
    Device,
    Fresh,
    Images,
    Limit,
    Limits,
    MetricDtype,
    Metrics,
    OptionalRunOrSuite,
    Output,
    Prompts,
    Quiet,
    Variants,
    WeightsDir,
)
from bench.cli.printing import DONE, say
from bench.cli.progress import show_progress
from bench.cli.stages import do_stage
from bench.cli.targets import as_place, find_target
from bench.documents import resolved
from bench.errors import SuiteError, UsageError
from bench.formatting import did_you_mean, is_good_name, joined, listed, plural
from bench.machine import machine_facts, pick_device
from bench.metrics import all_metrics, facts_for
from bench.metrics.declare import Metric, Scored, SetMetric
from bench.pictures.folders import read_pictures, says_nothing
from bench.pictures.pairing import pair_pictures
from bench.records import ExternalImages, Progress, PromptSyntax
from bench.score.external_images import import_images
from bench.store.reading import RUNS
from bench.suite.images_table import Pair, read_pairs, refuse_no_folder
from bench.suite.limits import check_metric_limit, parse_limit


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
    metric_dtype: MetricDtype = None,
    allow_remote: AllowRemote = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> int:
    """Score the images that are there.

    Nothing is rendered, so an old run can get a new metric, and images from anywhere can be scored: they become
    a run folder that report, compare and gate take.

    Pictures of A1111, Forge, SD.Next, ComfyUI, InvokeAI, SwarmUI, Fooocus and NovelAI need no --prompts: they say
    what they were made of. Give a folder with a folder for each model, or one folder of all; pictures of the same
    prompt, seed and settings are paired, and what has no partner is named. --variants puts the reference first.

    Examples:
      hotart-bench score reports/runs/mini
      hotart-bench score reports/runs/mini --metrics mini-aesthetic,sharpness
      hotart-bench score --images pictures --prompts pictures.csv --metrics blur
      hotart-bench score --images pictures --metrics aesthetic-v2
      hotart-bench score --images outputs/txt2img-images
      hotart-bench score --images pictures --variants old,new -o reports/runs/new
      hotart-bench score --images pictures --metrics blur --limits blur=0.1sd
    """
    _refuse_mixture(run_or_suite, images, prompts, limit)
    if images is not None:
        options.check_device(device)
        _check_metrics(metrics)
        name = resolved(images).name
        folder = as_place(output) if output else RUNS / (name if is_good_name(name) else "images")
        with show_progress(quiet) as progress:
            table = _table(images, prompts, options.split_names(variants, "--variants"), progress)
        if not quiet:
            for note in table.notes:
                say(note)
        chosen = _chosen_metrics(metrics, quiet, without_prompts=not any(pair.prompt for pair in table.pairs))
        allowed = _limits(limits, chosen)
        machine = machine_facts(pick_device(device))
        with show_progress(quiet) as progress:
            suite = import_images(
                table.pairs,
                table.source,
                folder,
                metrics=chosen,
                limits=allowed,
                machine=machine,
                notes=table.notes,
                steps=table.steps,
                guidance_scale=table.cfg,
                prompt_syntax=table.syntax,
                fresh=fresh,
                progress=progress,
            )
        variants = None if table.source.variants else variants
    elif limits is not None or fresh:
        raise UsageError(f"{'--fresh' if fresh else '--limits'} goes with --images here.")
    else:
        suite, folder = find_target(str(run_or_suite), output, limit, begun=True)
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
        allow_remote=allow_remote,
    )
    return DONE


class _Table(NamedTuple):
    """Images with their prompts and variants, and how they came to them."""

    pairs: tuple[Pair, ...]
    source: ExternalImages
    notes: tuple[str, ...] = ()
    steps: int = 0
    cfg: float = 0.0
    syntax: PromptSyntax = "plain"


def _table(images: Path, prompts: Path | None, chosen: tuple[str, ...] | None, progress: Progress) -> _Table:
    """The images of ``--images``: by the table of ``--prompts``, else by what they say, else each alone."""
    if prompts is not None:
        return _Table(read_pairs(prompts, images), ExternalImages(images=str(images), prompts=str(prompts)))
    refuse_no_folder(images)
    pictures = read_pictures(images, progress)
    if says_nothing(pictures.found):
        inner = [one.name for one in pictures.found if "/" in one.name]
        if len(inner) == len(pictures.found):
            raise SuiteError(
                f"{images}: no picture in its folders says what it was made of, so none can be paired.",
                "hotart-bench score --images DIR --prompts FILE.csv, with a table of images and prompts",
            )
        say(f"{images}: no picture says what it was made of, so each stands alone, without a prompt.")
        if inner:
            say(f"{plural(len(inner), 'picture')} in its folders left out: {listed(inner, 3)}.")
        return _Table(read_pairs(None, images), ExternalImages(images=str(images), prompts=""))
    found = pair_pictures(pictures, images, chosen)
    source = ExternalImages(images=str(images), prompts="", variants=chosen or (), settings=found.settings)
    return _Table(found.pairs, source, tuple(found.notes), found.steps, found.cfg, found.syntax)


def _check_metrics(text: str | None) -> None:
    """Raises UsageError for a metric that is not there, before any picture is read."""
    names = options.split_names(text, "--metrics")
    options.check_known(names, "--metrics", sorted(all_metrics()), "hotart-bench list metrics")


def _refuse_mixture(run_or_suite: str | None, images: Path | None, prompts: Path | None, limit: int | None) -> None:
    """Raises UsageError unless either a run or suite is named, or images are."""
    example = "hotart-bench score --images DIR --prompts FILE.csv"
    if run_or_suite is None and images is None and prompts is None:
        raise UsageError("RUN_OR_SUITE is missing, or --images.", "hotart-bench score --help")
    if images is None and prompts is None:
        return
    if run_or_suite is not None:
        raise UsageError(f"--images and --prompts stand alone; leave {run_or_suite} out.", example)
    if images is None:
        raise UsageError("--images is missing: --prompts says which prompt each of them has.", example)
    if limit is not None:
        raise UsageError("--limit goes with a suite; shorten the table of --prompts instead.")


def _chosen_metrics(text: str | None, quiet: bool, *, without_prompts: bool) -> Sequence[str]:
    """The metrics that are named, or those without weights; where there are no prompts, those that can do without."""
    known = all_metrics()
    names = options.split_names(text, "--metrics")
    alone = [name for name, one in known.items() if not (without_prompts and _needs_prompts(one))]
    if names is not None:
        needy = [name for name in names if name not in alone]
        if needy:
            raise UsageError(
                f"--metrics: {joined(needy)} cannot do without prompts: what compares an image with its prompt, or "
                f"with other images of it. Without --prompts there are {listed(alone)}.",
                "hotart-bench score --images DIR --prompts FILE.csv",
            )
        return names
    light = [
        name
        for name in alone
        if isinstance(one := known[name], Metric) and not (one.facts.encoder or one.load_head or one.judge)
    ]
    if not quiet:
        say(f"Scored by what needs no weights: {listed(light)}. --metrics names others; hotart-bench list metrics")
    return light


def _needs_prompts(metric: Scored) -> bool:
    """Whether it reads prompts, compares images of one prompt, or asks what the prompt asks for."""
    if isinstance(metric, SetMetric):
        return True
    reads = (metric.facts.encoder is not None and metric.needs_text) or metric.judge is not None
    return reads or metric.needs_reference or metric.needs_other_samples or metric.needs_faces


def _limits(text: str | None, metrics: Sequence[str]) -> list[records.Limit]:
    """``NAME=LIMIT,...``, each a limit that says something of its metric."""
    limits: dict[str, records.Limit] = {}
    for item in options.split_names(text, "--limits") or ():
        name, equals, limit = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"--limits: {item!r} is not NAME=LIMIT, such as {shlex.quote(metrics[0])}=0.1sd.")
        if name not in metrics:
            raise UsageError(f"--limits: {name!r} is not scored{did_you_mean(name, metrics)}: {listed(metrics)}.")
        limits[name] = parse_limit(name, limit)
        check_metric_limit(limits[name], facts_for((name,))[0])
    return list(limits.values())
