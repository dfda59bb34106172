"""Metrics and encoders: how they are found, and those of a run.

A package names its module in the entry-point group ``hotart_bench.metrics``; ours are in ``OWN_MODULES``. What a module
may declare is in ``bench.metrics.declare``. Imports no torch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TypeVar

import msgspec

from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.metrics.catalogue import find_entry
from bench.metrics.declare import Declared, Encoder, Judge, Metric, Scored, SetMetric, StepMetric
from bench.metrics.training_data import check_training_names, with_their_data
from bench.records import Dtype, MetricFacts

GROUP = "hotart_bench.metrics"
"""Entry-point group: each entry of another package names a module whose names hold metrics and encoders."""
OWN_MODULES = (
    "bench.metrics.pixels",
    "bench.metrics.openai_clip",
    "bench.metrics.aesthetic",
    "bench.metrics.safety",
    "bench.metrics.pickscore",
    "bench.metrics.hps",
    "bench.metrics.imagereward",
    "bench.metrics.sets",
    "bench.faces.metrics",
    "bench.mini.metrics",
    "bench.mini.judge",
    "bench.steps.published",
)
"""Our own modules of metrics; a new one is added here and nowhere else."""


M = TypeVar("M", Metric, StepMetric, SetMetric)


@dataclass(frozen=True)
class Registry:
    """The metrics, encoders, step metrics and set metrics there are, by name, and what could not be registered."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    step_metrics: Mapping[str, StepMetric] = field(default_factory=dict)
    judges: Mapping[str, Judge] = field(default_factory=dict)
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """One sentence for each plug-in that was left out, prints, or cannot even be listed: package, module and why."""

    @property
    def scored(self) -> Mapping[str, Scored]:
        """The metrics and set metrics by name."""
        return {**self.metrics, **self.set_metrics}


def weights_of(name: str, registry: Registry) -> tuple[str, ...]:
    """The entries of ``bench.metrics.catalogue`` that a metric or set metric and its encoder read."""
    one = registry.scored[name]
    encoder = registry.encoders[one.facts.encoder].weights if one.facts.encoder is not None else ()
    return (*encoder, *one.weights)


def registry_of(*declared: Declared) -> Registry:
    """A registry of just these metrics and encoders, each name once.

    Raises:
        UsageError: two of them share a name, a metric names an encoder that is not among them, or one names weights
            that are not in ``bench.metrics.catalogue``; or ``trained_on`` names what is neither one of these metrics
            nor a known data set.
    """
    distinct = {id(item): item for item in declared}.values()
    metrics = [item for item in distinct if isinstance(item, Metric)]
    encoders = {item.name: item for item in distinct if isinstance(item, Encoder)}
    for what, count in Counter(_what(item) for item in distinct).items():
        if count > 1:
            raise UsageError(f"The {what} is declared twice.")
    sets = [item for item in distinct if isinstance(item, SetMetric)]
    for facts in [item.facts for item in metrics] + [item.facts for item in sets]:
        if facts.encoder is not None and facts.encoder not in encoders:
            raise UsageError(f"The metric {facts.name!r} names the unknown encoder {facts.encoder!r}.")
    for item in metrics:
        if item.judge is not None and not any(isinstance(one, Judge) and one.name == item.judge for one in distinct):
            raise UsageError(f"The metric {item.facts.name!r} names the unknown judge {item.judge!r}.")
    for name in (name for item in distinct if not isinstance(item, Judge) for name in item.weights):
        find_entry(name)
    steps = [item for item in distinct if isinstance(item, StepMetric)]
    every: list[Scored | StepMetric] = [*metrics, *steps, *sets]
    trained = {item.facts.name: item.facts.trained_on for item in every}
    for name, names in trained.items():
        check_training_names(names or (), f"trained_on of the metric {name!r}", trained)
    return Registry(
        {item.facts.name: _completed(item, trained) for item in metrics},
        encoders,
        {item.facts.name: _completed(item, trained) for item in steps},
        {item.name: item for item in distinct if isinstance(item, Judge)},
        {item.facts.name: _completed(item, trained) for item in sets},
    )


def _completed(item: M, trained: Mapping[str, Sequence[str] | None]) -> M:
    """The metric, ``trained_on`` in its facts completed by the data of the metrics that are named there."""
    if item.facts.trained_on is None:
        return item
    names = with_their_data(item.facts.trained_on, trained)
    if names == item.facts.trained_on:
        return item
    return replace(item, facts=msgspec.structs.replace(item.facts, trained_on=names))


def build(own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """The registry of our own modules and of those that plug-ins name.

    An own module that fails is a bug and raises. A plug-in fails alone: when its module raises, declares
    nothing, or claims a name that is ours, its own twice, or another plug-in's (whose as well: which of
    the two is meant cannot be known), nothing of it is registered and ``problems`` says so.
    """
    core = [item for name in own for item in _declared_in(importlib.import_module(name))]
    registry_of(*core)
    found: dict[str, tuple[Declared, ...]] = {}
    problems: dict[str, str] = {}
    printed: dict[str, str] = {}
    entries = {entry.value: entry for entry in plugins if entry.value not in own}
    for module in sorted(entries):  # an order that no installer decides
        label, output = f"{module} of {_package_of(entries[module])}", io.StringIO()
        try:
            with contextlib.redirect_stdout(output):  # where results are, which another program may read
                declared = _declared_in(importlib.import_module(module))
            registry_of(*core, *declared)
            if not declared:
                raise UsageError("it declares no metric and no encoder.")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            problems[label] = f"{type(error).__name__}: {str(error)[:300]}"
        else:
            found[label] = declared
        if output.getvalue().strip():
            printed[label] = output.getvalue()
    contested = _contested(found)
    kept = [item for label, declared in found.items() if label not in contested for item in declared]
    said = [f"The metric plug-in {label} was left out: {why}" for label, why in (problems | contested).items()]
    said += [
        f"The metric plug-in {label} prints when it is imported ({text[:60]!r}), which was hidden from the results."
        for label, text in printed.items()
    ]
    return replace(registry_of(*core, *kept), problems=tuple(said))


def _declared_in(module: ModuleType) -> tuple[Declared, ...]:
    """The metrics and encoders among a module's names, in the order in which they stand there."""
    return tuple(item for item in vars(module).values() if isinstance(item, Declared))


def _contested(found: Mapping[str, Sequence[Declared]]) -> dict[str, str]:
    """Plug-ins that claim a name that another one claims for something else, with the reason."""
    claims: dict[str, dict[str, int]] = {}
    for label, declared in found.items():
        for item in declared:
            claims.setdefault(_what(item), {})[label] = id(item)
    contested: dict[str, str] = {}
    for what, claimed in claims.items():
        if len(set(claimed.values())) > 1:
            contested |= dict.fromkeys(claimed, f"the {what} is declared by {' and by '.join(claimed)}.")
    return contested


def _what(item: Declared) -> str:
    if isinstance(item, Encoder | Judge):
        return f"{'encoder' if isinstance(item, Encoder) else 'judge'} {item.name!r}"
    return f"metric {item.facts.name!r}"


@functools.cache
def installed() -> Registry:
    """The registry of this installation; the entry-point group is read once a process."""
    entries, unread = find_plugins()
    registry = build(OWN_MODULES, entries)
    return replace(registry, problems=(*unread, *registry.problems))


def find_plugins() -> tuple[Iterable[importlib.metadata.EntryPoint], tuple[str, ...]]:
    """What installed packages name in the group, and a sentence for each package whose list cannot be read."""
    try:
        return importlib.metadata.entry_points(group=GROUP), ()
    except Exception:  # one package's damaged file; the others count all the same
        found: list[importlib.metadata.EntryPoint] = []
        problems = []
        for dist in importlib.metadata.distributions():
            try:
                found += dist.entry_points.select(group=GROUP)
            except Exception as error:
                place = getattr(dist, "_path", "an installed package")
                problems.append(
                    f"{place}: its entry_points.txt cannot be read ({type(error).__name__}), so that metrics of "
                    "this package are left out, and torch may not start; install the package again."
                )
        return found, tuple(problems)


def _package_of(entry: importlib.metadata.EntryPoint) -> str:
    try:
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    except Exception:  # its metadata are damaged
        return "a package with damaged metadata"


def all_metrics() -> dict[str, Scored]:
    """Every metric and set metric of this installation by name, those of images first."""
    return dict(installed().scored)


def all_facts() -> tuple[MetricFacts, ...]:
    """What every metric and set metric of this installation says of itself, in that order; needs no torch."""
    return tuple(declared.facts for declared in installed().scored.values())


def training_of_metrics() -> dict[str, tuple[str, ...] | None]:
    """What each metric of every kind of this installation was trained on, by its name."""
    return trained_names(installed())


def trained_names(registry: Registry) -> dict[str, tuple[str, ...] | None]:
    """What each metric of every kind was trained on, by its name; None where nobody says."""
    named = {**registry.scored, **registry.step_metrics}
    return {name: one.facts.trained_on for name, one in named.items()}


def plugin_problems() -> tuple[str, ...]:
    """One sentence for each plug-in module that was left out; empty when all is well."""
    return installed().problems


# The metrics of a run, each with the dtype that its encoder computes in.


def facts_for(names: Sequence[str], registry: Registry | None = None) -> tuple[MetricFacts, ...]:
    """The facts of the metrics named, in that order; needs no torch.

    Raises:
        UsageError: a name that no metric has (with the nearest one, and with the plug-ins that were
            left out), or that is given twice.
    """
    known = registry if registry is not None else installed()
    there = known.scored
    for name, count in Counter(names).items():
        if name not in there:
            near, left_out = did_you_mean(name, there), "".join(f" {problem}" for problem in known.problems)
            names_there = ", ".join(sorted(there))
            raise UsageError(
                f"There is no metric {name!r}{near}; there are: {names_there}.{left_out}",
                hint="hotart-bench list metrics",
            )
        if count > 1:
            raise UsageError(f"The metric {name!r} is named {count} times; name each once.")
    return tuple(there[name].facts for name in names)


def metrics_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    rescored: Sequence[str],
    dtype: Dtype | None,
    registry: Registry,
) -> tuple[Scored, ...]:
    """The metrics by their names, each with the dtype that its encoder computes in (``facts.metric_dtype``).

    Args:
        names: in this order; each metric once.
        recorded: what the run's card has; a metric stays at the dtype that is recorded here, else float32.
        rescored: those of ``names`` that ``dtype`` is for; where their encoder cannot compute in it, float32.
        dtype: None keeps what is recorded of them too.
        registry: where metrics and encoders are looked up.

    Raises:
        UsageError: an unknown metric, or a dtype that no encoder of ``rescored`` computes in.
    """
    facts_for(names, registry)
    dtypes = {facts.name: facts.metric_dtype for facts in recorded}
    if dtype is not None:
        dtypes |= dict.fromkeys(rescored, dtype)
    metrics: list[Scored] = []
    for name in names:
        found = registry.scored[name]
        used: Encoder | Judge | None = (
            registry.encoders[found.facts.encoder] if found.facts.encoder is not None else None
        )
        if isinstance(found, Metric) and found.judge is not None:
            used = registry.judges[found.judge]
        own = dtypes.get(name, "float32")
        own = own if used is not None and own in used.dtypes else "float32"
        metrics.append(replace(found, facts=msgspec.structs.replace(found.facts, metric_dtype=own)))
    reached = {metric.facts.metric_dtype for metric in metrics if metric.facts.name in rescored}
    if dtype not in (None, "float32", *reached):
        raise UsageError(
            f"--metric-dtype {dtype}: none of the metrics {', '.join(rescored)} has an encoder that computes in it.",
            "hotart-bench list metrics",
        )
    return tuple(metrics)


def facts_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    rescored: Sequence[str],
    dtype: Dtype | None,
    registry: Registry | None = None,
) -> tuple[MetricFacts, ...]:
    """What a run's card says of its metrics: the facts of ``metrics_of_run``, which says what the arguments are."""
    known = registry if registry is not None else installed()
    return tuple(metric.facts for metric in metrics_of_run(names, recorded, rescored, dtype, known))
