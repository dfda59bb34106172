"""``fetch``: every weight that a suite needs, downloaded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.cli import options
from bench.cli.options import MetricsFor, Quiet, SuiteName, Variants, WeightsDir
from bench.cli.printing import Column, print_table, printable, say
from bench.cli.targets import read_suite
from bench.cli.verbs import group, verb
from bench.errors import WeightsError
from bench.formatting import quantity
from bench.metrics.weights import Stored
from bench.records import Record, Variant

# Which weights the metrics of a suite need, and how they stand: for ``doctor`` and ``fetch``.

TRUST = {
    "pinned": "pinned",
    "locked": "recorded here",
    "unpinned": "unpinned: will be recorded",
}


class MetricFile(Record, frozen=True):
    """One weight file of a judge, and the metrics that need it."""

    metrics: tuple[str, ...]
    file: Stored


def entries_needed(metrics: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The entries of the catalogue that the metrics and their encoders ask for, each with those metrics."""
    from bench.metrics import installed

    registry = installed()
    needed: dict[str, list[str]] = {}
    for name in metrics:
        metric = registry.metrics[name]
        encoder = registry.encoders[metric.facts.encoder].weights if metric.facts.encoder is not None else ()
        for entry in (*encoder, *metric.weights):
            needed.setdefault(entry, []).append(name)
    return {entry: tuple(names) for entry, names in needed.items()}


def print_metric_files(judges: Sequence[MetricFile], lock: str) -> None:
    """The files as a table, and where their hashes are recorded."""
    rows = [
        [
            judge.file.what,
            ", ".join(judge.metrics),
            "there" if judge.file.path is not None else "missing",
            "" if judge.file.size_bytes is None else quantity(judge.file.size_bytes, "byte"),
            TRUST[judge.file.trust],
        ]
        for judge in judges
    ]
    columns = [Column("weights of judges", text=True), Column("of", text=True), Column("state")]
    print_table([*columns, Column("size", number=True), Column("sha256")], rows)
    print(f"\nHashes of unpinned weights are recorded in {lock}.")


# ``fetch``: every weight that a suite needs, downloaded and checked.

app = group("Weights.")


@verb(
    app,
    "fetch",
    "hotart-bench fetch sdxl",
    "hotart-bench fetch my-suite.toml --variants base,spo",
    "hotart-bench fetch --metrics pickscore,imagereward",
)
def fetch(
    suite: SuiteName = "mini",
    variants: Variants = None,
    metrics: MetricsFor = None,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
) -> None:
    """Download every weight that a suite needs, and check it.

    Those are checkpoints, LoRAs and the judges of its metrics. What is there is checked and left alone; what
    fails keeps nothing else from coming. The same command again continues.
    """
    from bench.measure import pick_variants

    options.check_weights_dir(weights_dir)
    asked = read_suite(suite, None)
    chosen = pick_variants(asked, options.split_names(variants, "--variants"))
    judging = _judging(metrics) or asked.metrics
    failures: list[WeightsError] = []
    if quiet:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    _print_checkpoints(_fetch_checkpoints(chosen, weights_dir, quiet, failures))
    _print_judges(_fetch_judges(judging, weights_dir, quiet, failures))
    if failures:
        first = failures[0]
        raise WeightsError(" ".join(failure.message for failure in failures), first.hint) from first
    if not quiet and metrics is None:
        say(f"Ready: hotart-bench run {suite}")


def _fetch_checkpoints(
    variants: Sequence[Variant], weights_dir: Path | None, quiet: bool, failures: list[WeightsError]
) -> list[tuple[str, str]]:
    """What each variant is made of, with where it lies now."""
    from bench.checkpoints import locate as sources
    from bench.merge.load import every_place

    found: dict[str, str] = {}
    tried: set[str] = set()
    for variant in variants:
        for place in every_place(variant, weights_dir):
            if place.what in tried:
                continue
            tried.add(place.what)
            if place.path is None and not quiet:
                say(f"fetching {printable(place.what)}")
            try:
                found[place.what] = str(sources.fetch(place).path)
            except WeightsError as error:
                failures.append(error)
    return list(found.items())


def _judging(text: str | None) -> tuple[str, ...] | None:
    """The metrics that the flag names, or None without it."""
    from bench.metrics import all_facts

    names = options.split_names(text, "--metrics")
    options.check_known(names, "--metrics", sorted(facts.name for facts in all_facts()), "hotart-bench list metrics")
    return names


def _fetch_judges(
    metrics: Sequence[str], weights_dir: Path | None, quiet: bool, failures: list[WeightsError]
) -> list[MetricFile]:
    """The weights of the metrics' judges, as they stand now."""
    from bench.metrics.catalogue import find_entry
    from bench.metrics.weights import find_weights, look_up

    found: list[MetricFile] = []
    for name, needing in entries_needed(metrics).items():
        if not quiet:
            say(f"fetching or checking {name}: {find_entry(name).what}")
        try:
            find_weights(name, weights_dir)
            files = look_up(name, weights_dir)
        except WeightsError as error:
            failures.append(error)
        else:
            found += [MetricFile(metrics=needing, file=file) for file in files]
    return found


def _print_checkpoints(found: list[tuple[str, str]]) -> None:
    print_table([Column("weights of variants", text=True), Column("at", text=True)], found)


def _print_judges(judges: list[MetricFile]) -> None:
    from bench.metrics.weights import lock_path

    if judges:
        print()
        print_metric_files(judges, str(lock_path()))
