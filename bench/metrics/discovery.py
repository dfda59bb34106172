"""Metrics and towers: how they are found.

A package names its modules of metrics in the entry-point group ``hotart_bench.metrics``:

    [project.entry-points."hotart_bench.metrics"]
    mine = "my_package.my_metrics"

Every ``Metric`` and ``Tower`` among such a module's names is registered: all of them or, when one of
them cannot be, none. A metric on another package's tower imports that ``Tower`` into its module.

This module imports no torch.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from bench.errors import UsageError
from bench.metrics.registry import Metric, Registry, Tower
from bench.records import MetricFacts
from bench.weights import find_entry

GROUP = "hotart_bench.metrics"
"""Entry-point group: each entry names a module whose names hold metrics and towers."""

OWN_MODULES = (
    "bench.metrics.pixels",
    "bench.metrics.distance",
    "bench.metrics.technical",
    "bench.metrics.openai_clip",
    "bench.metrics.aesthetic",
    "bench.metrics.clip_score",
    "bench.metrics.pickscore",
    "bench.metrics.hps",
    "bench.metrics.imagereward",
    "bench.mini.judges",
)
"""Our own entries of the group, loaded by name as well, so that a checkout needs no installation."""


def registry_of(*declared: Metric | Tower) -> Registry:
    """A registry of just these metrics and towers, each name once.

    Raises:
        UsageError: two of them share a name, a metric names a tower that is not among them, or one names weights
            that the catalogue of ``bench.weights`` has not.
    """
    distinct = {id(item): item for item in declared}.values()
    metrics = [item for item in distinct if isinstance(item, Metric)]
    towers = [item for item in distinct if isinstance(item, Tower)]
    metric_names, tower_names = [m.facts.name for m in metrics], [t.name for t in towers]
    for kind, names in (("metric", metric_names), ("tower", tower_names)):
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"The {kind} {doubled[0]!r} is declared twice.")
    for item in metrics:
        if item.facts.tower is not None and item.facts.tower not in tower_names:
            raise UsageError(f"The metric {item.facts.name!r} names the unknown tower {item.facts.tower!r}.")
    for name in (name for item in distinct for name in item.weights):
        find_entry(name)
    return Registry({item.facts.name: item for item in metrics}, {item.name: item for item in towers})


def declared_in(module: ModuleType) -> tuple[Metric | Tower, ...]:
    """The metrics and towers among a module's names, in the order in which they stand there."""
    return tuple(item for item in vars(module).values() if isinstance(item, Metric | Tower))


def build(own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """The registry of our own modules and of those that plug-ins name.

    An own module that fails is a bug and raises. A plug-in fails alone: when its module raises, declares
    nothing, or claims a name that is ours, its own twice, or another plug-in's (whose as well: which of
    the two is meant cannot be known), nothing of it is registered and ``problems`` says so.
    """
    core = [item for name in own for item in declared_in(importlib.import_module(name))]
    registry_of(*core)
    found: dict[str, tuple[Metric | Tower, ...]] = {}
    problems: list[str] = []
    for entry in _foreign(own, plugins):
        try:
            declared = declared_in(importlib.import_module(entry.value))
            registry_of(*core, *declared)
            if not declared:
                raise UsageError("it declares no metric and no tower.")
        except (Exception, SystemExit) as error:
            problems.append(_problem(entry, f"{type(error).__name__}: {error}"))
        else:
            found[_label(entry)] = declared
    contested = _contested(found)
    problems += [f"The metric plug-in {label} was left out: {why}" for label, why in contested.items()]
    kept = [item for label, declared in found.items() if label not in contested for item in declared]
    registry = registry_of(*core, *kept)
    return Registry(registry.metrics, registry.towers, tuple(problems))


def _foreign(
    own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]
) -> list[importlib.metadata.EntryPoint]:
    """The entries that name no module of ours, each module once, in an order that no installer decides."""
    by_module = {entry.value: entry for entry in plugins if entry.value not in own}
    return [by_module[module] for module in sorted(by_module)]


def _label(entry: importlib.metadata.EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"{entry.value} of {package}"


def _problem(entry: importlib.metadata.EntryPoint, why: str) -> str:
    return f"The metric plug-in {_label(entry)} was left out: {why}"


def _contested(found: Mapping[str, tuple[Metric | Tower, ...]]) -> dict[str, str]:
    """Plug-ins that claim a name that another one claims for something else, with the reason."""
    claims: dict[str, list[tuple[str, Metric | Tower]]] = {}
    for label, declared in found.items():
        for item in declared:
            what = f"metric {item.facts.name!r}" if isinstance(item, Metric) else f"tower {item.name!r}"
            claims.setdefault(what, []).append((label, item))
    contested: dict[str, str] = {}
    for what, claimed in claims.items():
        if len({id(item) for _, item in claimed}) > 1:
            labels = [label for label, _ in claimed]
            contested |= dict.fromkeys(labels, f"the {what} is declared by {' and by '.join(labels)}.")
    return contested


@functools.cache
def installed() -> Registry:
    """The registry of this installation; the entry-point group is read once a process."""
    return build(OWN_MODULES, importlib.metadata.entry_points(group=GROUP))


def all_metrics() -> dict[str, Metric]:
    """Every metric of this installation by name, our own first."""
    return dict(installed().metrics)


def all_facts() -> tuple[MetricFacts, ...]:
    """What every metric of this installation says of itself, our own first; needs no torch."""
    return tuple(declared.facts for declared in installed().metrics.values())


def plugin_problems() -> tuple[str, ...]:
    """One sentence for each plug-in module that was left out; empty when all is well."""
    return installed().problems


def facts_for(names: Sequence[str], registry: Registry | None = None) -> tuple[MetricFacts, ...]:
    """The facts of the metrics named, in that order; needs no torch.

    Raises:
        UsageError: a name that no metric has (with the nearest one, and with the plug-ins that were
            left out), or that is given twice.
    """
    known = registry if registry is not None else installed()
    for name, count in Counter(names).items():
        if name not in known.metrics:
            raise _unknown_metric(name, known)
        if count > 1:
            raise UsageError(f"The metric {name!r} is asked for {count} times; name each once.")
    return tuple(known.metrics[name].facts for name in names)


def _unknown_metric(name: str, known: Registry) -> UsageError:
    near = difflib.get_close_matches(name, known.metrics, n=1)
    closest = f" Did you mean {near[0]!r}?" if near else ""
    left_out = "".join(f" {problem}" for problem in known.problems)
    return UsageError(
        f"There is no metric {name!r}; there are: {', '.join(sorted(known.metrics))}.{closest}{left_out}",
        hint="hotart-bench list metrics",
    )
