"""What a metric's tower computes in, and how its version says so.

Half precision in a tower changes scores, so it is part of the metric's version: "1" is float32, "1+float16"
the same metric on a tower in half precision. Scores of two versions are never compared, and a run folder keeps
for each metric the one that its card (``run.json``) names. Heads and cosines are float32 always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import msgspec

from bench.errors import UsageError
from bench.metrics.discovery import facts_for, installed
from bench.metrics.registry import Metric, Registry
from bench.records import Dtype, MetricFacts


def version_dtype(version: str) -> Dtype:
    """What the tower computed in for scores of this version."""
    written = version.partition("+")[2]
    return next((dtype for dtype in get_args(Dtype) if dtype == written), "float32")


def at_dtype(metric: Metric, dtype: Dtype, registry: Registry) -> Metric:
    """The metric on its tower in ``dtype``; as it is without a tower, or where the tower has no such dtype."""
    tower = registry.towers[metric.facts.tower] if metric.facts.tower is not None else None
    if tower is None or dtype == "float32" or dtype not in tower.dtypes:
        return metric
    facts = msgspec.structs.replace(metric.facts, version=f"{metric.facts.version}+{dtype}")
    return replace(metric, facts=facts, dtype=dtype)


def metrics_of_run(names: Sequence[str], recorded: Sequence[MetricFacts], registry: Registry) -> tuple[Metric, ...]:
    """The metrics by their names, each in the dtype that the run's card has for it, or else in float32."""
    dtypes = {facts.name: version_dtype(facts.version) for facts in recorded}
    return tuple(at_dtype(registry.metrics[name], dtypes.get(name, "float32"), registry) for name in names)


def metrics_in(names: Sequence[str], dtype: Dtype, registry: Registry) -> tuple[Metric, ...]:
    """The metrics by their names, those on towers in ``dtype`` as far as the towers have it.

    Raises:
        UsageError: none of them has a tower that computes in it.
    """
    metrics = tuple(at_dtype(registry.metrics[name], dtype, registry) for name in names)
    if dtype != "float32" and all(metric.dtype == "float32" for metric in metrics):
        raise UsageError(
            f"--tower-dtype {dtype}: none of the metrics {', '.join(names)} has a tower that computes in it.",
            "hotart-bench list metrics",
        )
    return metrics


def facts_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    asked: Sequence[str],
    dtype: Dtype | None,
    registry: Registry | None = None,
) -> tuple[MetricFacts, ...]:
    """What a run's card says of its metrics: those asked for at ``dtype``, if one is given, the others as before.

    Raises:
        UsageError: an unknown metric, or a dtype that no tower of those asked for computes in.
    """
    known = registry if registry is not None else installed()
    facts_for(names, known)
    new = () if dtype is None else metrics_in(asked, dtype, known)
    chosen = {metric.facts.name: metric.facts for metric in (*metrics_of_run(names, recorded, known), *new)}
    return tuple(chosen[name] for name in names)
