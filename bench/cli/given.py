"""``score --images``: images from anywhere, brought into a run folder and scored there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.cli import options
from bench.cli.printing import say
from bench.errors import UsageError
from bench.names import did_you_mean, is_good_name, listed
from bench.records import Suite


def bring_in_images(
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
    from bench.records import Given
    from bench.score.images import bring_in
    from bench.suite.pairs import read_pairs

    options.check_device(device)
    chosen = _chosen_metrics(metrics, quiet)
    allowed = _limits(limits, chosen)
    pairs = read_pairs(prompts, images)
    machine = machine_facts(pick_device(device))
    with show_progress(quiet) as progress:
        return bring_in(
            pairs,
            Given(images=str(images), prompts=str(prompts)),
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
    light = [name for name, one in known.items() if one.facts.tower is None and one.load_head is None]
    if not quiet:
        say(f"Scored by what needs no weights: {listed(light)}. --metrics names judges; hotart-bench list metrics")
    return light


def _limits(text: str | None, metrics: Sequence[str]) -> dict[str, str]:
    """``NAME=LIMIT,...`` by name, each a limit that says something of its metric."""
    from bench.metrics import facts_for
    from bench.suite.limits import check_metric_limit, parse_limit

    limits: dict[str, str] = {}
    for item in options.split_names(text, "--limits") or ():
        name, found, limit = (part.strip() for part in item.partition("="))
        if not found:
            raise UsageError(f"--limits: {item!r} is no NAME=LIMIT, such as {shlex.quote(metrics[0])}=0.1sd.")
        if name not in metrics:
            raise UsageError(f"--limits: {name!r} is not scored{did_you_mean(name, metrics)}: {listed(metrics)}.")
        check_metric_limit(parse_limit(name, limit), facts_for((name,))[0])
        limits[name] = limit
    return limits
