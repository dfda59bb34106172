"""``fetch``: every weight that a suite needs, downloaded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars

from bench.checkpoints import locate
from bench.checkpoints.pins import pin
from bench.cli import options
from bench.cli.options import MetricsFor, Quiet, SuiteName, Variants, WeightsDir
from bench.cli.printing import DONE, Columns, print_table, say, show
from bench.cli.targets import read_suite
from bench.errors import HotartError, WeightsError
from bench.formatting import argument, listed, quantity
from bench.measure import pick_variants
from bench.merge.load import every_place
from bench.metrics.catalogue import find_entry
from bench.metrics.registry import weights_of
from bench.metrics.weights import find_weights
from bench.published_files import TRUST, Stored, look_up
from bench.questions.registry import registry_of_suite
from bench.questions.states import judges_asked
from bench.questions.weights import fetch_vlm, identify_vlm
from bench.records import Suite, Variant
from bench.suite import public_sets_of
from bench.suite.public_sets import PUBLIC_SETS, fetch_public_set
from bench.weights_lock import hash_once, lock_path


def fetch(
    suite: SuiteName = "mini",
    variants: Variants = None,
    metrics: MetricsFor = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", metavar="A,B", help="These public prompt sets.  [default: those that the suite names]"
        ),
    ] = None,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
) -> int:
    """Download everything that a suite needs, and check it.

    These are checkpoints, LoRAs, the weights of its metrics and the public prompt sets that it names. What is there
    is checked and left alone; what fails keeps nothing else from coming. The same command again continues. The
    hashes of what is of the Hub are recorded, and a later run with other bytes is refused.

    Examples:
      hotart-bench fetch sdxl
      hotart-bench fetch my-suite.toml --variants base,spo
      hotart-bench fetch --metrics pickscore,imagereward
      hotart-bench fetch --prompts parti,geneval
    """
    options.check_weights_dir(weights_dir)
    _fetch_prompts(suite, options.split_names(prompts, "--prompts"), quiet)
    checked = read_suite(suite, None)
    chosen = pick_variants(checked, options.split_names(variants, "--variants"))
    names = options.split_names(metrics, "--metrics")
    registry = registry_of_suite(checked)
    options.check_known(names, "--metrics", sorted(registry.metrics), "hotart-bench list metrics")
    failures: list[WeightsError] = []
    if quiet:
        disable_progress_bars()
    checkpoints = _fetch_checkpoints(chosen, weights_dir, quiet, failures)
    print_table({"weights of variants": "text", "at": "text", "sha256": "name"}, checkpoints)
    if any(trust for _, _, trust in checkpoints):
        show(f"\nHashes of what is of the Hub are recorded in {lock_path()}; a run with other bytes is refused.")
    _fetch_judges(checked, names or checked.metrics, weights_dir, quiet, failures)
    files = _fetch_metric_weights(checked, names or checked.metrics, weights_dir, quiet, failures)
    if files:
        show()
        print_metric_files(files, str(lock_path()))
    if failures:
        raise WeightsError(told_once([failure.message for failure in failures]), failures[0].hint) from failures[0]
    if not quiet and metrics is None:
        say(f"Ready: hotart-bench run {argument(suite)}")
    return DONE


def _fetch_prompts(suite: str, names: Sequence[str] | None, quiet: bool) -> None:
    """The public prompt sets named, else those that the suite names and that are missing.

    Raises:
        WeightsError: some cannot be had, all of them named; the others have come.
    """
    options.check_known(names, "--prompts", sorted(PUBLIC_SETS), "hotart-bench list prompts")
    rows, failed = [], dict[str, HotartError]()
    for name in public_sets_of(suite) if names is None else names:
        if not quiet:
            say(f"fetching or checking {name}: {PUBLIC_SETS[name].entry.what}")
        try:
            path = fetch_public_set(name)
        except HotartError as error:
            failed[name] = error
        else:
            rows.append((name, str(path), PUBLIC_SETS[name].licence, hash_once(path)[:16]))
    if rows:
        print_table({"prompts": "name", "at": "text", "licence": "text", "sha256": "name"}, rows)
        show(f"\nTheir hashes are recorded in {lock_path()}; another file by these names is refused.\n")
    if failed:
        files = listed(PUBLIC_SETS[name].file_name for name in failed)
        hint = f"put {files} beside the suite file, or repeat the command where there is a network"
        raise WeightsError(told_once([error.message for error in failed.values()]), hint)


def told_once(messages: Sequence[str]) -> str:
    """Messages of the form ``WHAT: reason`` as one text, each reason once, after all that it holds for."""
    names: dict[str, list[str]] = {}
    for message in messages:
        what, _, reason = message.partition(": ")
        names.setdefault(reason, []).append(what)
    return " ".join(f"{', '.join(named)}: {reason}" if reason else " ".join(named) for reason, named in names.items())


def _fetch_checkpoints(
    variants: Sequence[Variant], weights_dir: Path | None, quiet: bool, failures: list[WeightsError]
) -> list[tuple[str, str, str]]:
    """What each variant is made of, with where it lies now, and whether its hashes are recorded."""
    found: list[tuple[str, str, str]] = []
    tried: set[str] = set()
    for variant in variants:
        for place in every_place(variant, weights_dir):
            if place.what in tried:
                continue
            tried.add(place.what)
            if place.path is None and not quiet:
                say(f"fetching {place.what}")
            try:
                there = locate.fetch(place)
                found.append((place.what, str(there.path), TRUST["locked"] if pin(there) else ""))
            except WeightsError as error:
                failures.append(error)
    return found


def _fetch_judges(
    suite: Suite, metrics: Sequence[str], weights_dir: Path | None, quiet: bool, failures: list[WeightsError]
) -> None:
    """The vision-language models that answer questions for these metrics, downloaded where they are not there."""
    rows = []
    for judge in judges_asked(suite, metrics, registry_of_suite(suite)):
        if not judge.vlm:
            continue
        if not quiet:
            say(f"fetching or checking {judge.vlm}: the judge {judge.name}")
        try:
            folder = fetch_vlm(judge.vlm, weights_dir)
            rows.append((judge.name, judge.vlm, str(folder), identify_vlm(judge.vlm, weights_dir).split()[-1]))
        except WeightsError as error:
            failures.append(error)
    if rows:
        show()
        print_table({"judge": "name", "model": "text", "at": "text", "sha256": "name"}, rows)


def _fetch_metric_weights(
    suite: Suite, metrics: Sequence[str], weights_dir: Path | None, quiet: bool, failures: list[WeightsError]
) -> list[tuple[Stored, Sequence[str]]]:
    """The weight files of the metrics as they stand now, each with the metrics that need it."""
    found: list[tuple[Stored, Sequence[str]]] = []
    for name, needing in entries_needed(suite, metrics).items():
        if not quiet:
            say(f"fetching or checking {name}: {find_entry(name).what}")
        try:
            find_weights(name, weights_dir)
            files = look_up(find_entry(name), weights_dir)
        except WeightsError as error:
            failures.append(error)
        else:
            found += [(file, needing) for file in files]
    return found


def entries_needed(suite: Suite, metrics: Sequence[str]) -> dict[str, list[str]]:
    """The entries of the catalogue that the metrics and their encoders ask for, each with those metrics."""
    registry = registry_of_suite(suite)
    needed: dict[str, list[str]] = {}
    for name in metrics:
        for entry in weights_of(name, registry):
            needed.setdefault(entry, []).append(name)
    return needed


def print_metric_files(files: Sequence[tuple[Stored, Sequence[str]]], lock: str) -> None:
    """The files as a table, each with the metrics that need it, and where their hashes are recorded."""
    rows = [
        [
            file.what,
            ", ".join(metrics),
            "there" if file.path is not None else "missing",
            "" if file.size_bytes is None else quantity(file.size_bytes, "byte"),
            TRUST[file.trust],
        ]
        for file, metrics in files
    ]
    columns: Columns = {
        "weights of metrics": "text",
        "of": "text",
        "state": "name",
        "size": "number",
        "sha256": "name",
    }
    print_table(columns, rows)
    show(
        "\nA file whose sha256 is not known is trusted when it is first seen. From then on its hash is in "
        f"the lock file, and another file is refused: {lock}"
    )
