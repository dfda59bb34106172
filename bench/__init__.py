"""hotart-bench: is the merge better, by how much, at what cost, and did it break anything?

The public names; each is imported when it is first asked for, so that ``import bench`` is instant.

>>> import bench
>>> run = bench.load_run("reports/runs/mini")  # doctest: +SKIP
>>> run.scores.groupby(["variant", "metric"]).value.mean()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.baseline import freeze, read_baseline
    from bench.compare import compare_run, compare_runs
    from bench.errors import HotartError
    from bench.frames import RunFrames, load_run, scores_wide
    from bench.gate import check_limits
    from bench.metrics.registry import Encoder, Inputs, Metric, encoder, metric
    from bench.records import MetricFacts
    from bench.run import Outcome, run_all
    from bench.suite import load_suite

__all__ = [
    "Encoder",
    "HotartError",
    "Inputs",
    "Metric",
    "MetricFacts",
    "Outcome",
    "RunFrames",
    "check_limits",
    "compare_run",
    "compare_runs",
    "encoder",
    "freeze",
    "load_run",
    "load_suite",
    "metric",
    "read_baseline",
    "run_all",
    "scores_wide",
]

_HOMES = {
    "bench.baseline": ("freeze", "read_baseline"),
    "bench.compare": ("compare_run", "compare_runs"),
    "bench.errors": ("HotartError",),
    "bench.frames": ("RunFrames", "load_run", "scores_wide"),
    "bench.gate": ("check_limits",),
    "bench.metrics.registry": ("Inputs", "Metric", "Encoder", "metric", "encoder"),
    "bench.records": ("MetricFacts",),
    "bench.run": ("Outcome", "run_all"),
    "bench.suite": ("load_suite",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
