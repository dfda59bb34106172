"""hotart-bench: is the merge better, by how much, at what cost, and did it break anything?

The public names, which ``docs/python.md`` shows at work. Each is imported when it is first used, so that
``import bench`` is instant.

>>> import bench
>>> run = bench.load_run("reports/runs/mini")  # doctest: +SKIP
>>> run.scores.groupby(["variant", "metric"]).value.mean()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.baseline import read_baseline
    from bench.errors import HotartError
    from bench.frames import (
        Grid,
        Run,
        check_limits,
        compare_grid,
        compare_run,
        compare_runs,
        compare_sets,
        findings,
        freeze,
        load_grid,
        load_run,
        metric_means,
        rank_variants,
        rate_changes,
        vote_results,
    )
    from bench.metrics.declare import Encoder, Inputs, Metric, SetInputs, SetMetric, encoder, metric, set_metric
    from bench.records import MetricFacts
    from bench.run import Outcome, run_all
    from bench.suite import load_suite

__all__ = [
    "Encoder",
    "Grid",
    "HotartError",
    "Inputs",
    "Metric",
    "MetricFacts",
    "Outcome",
    "Run",
    "SetInputs",
    "SetMetric",
    "check_limits",
    "compare_grid",
    "compare_run",
    "compare_runs",
    "compare_sets",
    "encoder",
    "findings",
    "freeze",
    "load_grid",
    "load_run",
    "load_suite",
    "metric",
    "metric_means",
    "rank_variants",
    "rate_changes",
    "read_baseline",
    "run_all",
    "set_metric",
    "vote_results",
]

_HOMES = {
    "bench.baseline": ("read_baseline",),
    "bench.errors": ("HotartError",),
    "bench.frames": (
        "Grid",
        "Run",
        "check_limits",
        "compare_grid",
        "compare_run",
        "compare_runs",
        "compare_sets",
        "findings",
        "freeze",
        "load_grid",
        "load_run",
        "metric_means",
        "rank_variants",
        "rate_changes",
        "vote_results",
    ),
    "bench.metrics.declare": (
        "Encoder",
        "Inputs",
        "Metric",
        "SetInputs",
        "SetMetric",
        "encoder",
        "metric",
        "set_metric",
    ),
    "bench.records": ("MetricFacts",),
    "bench.run": ("Outcome", "run_all"),
    "bench.suite": ("load_suite",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
