"""Metrics: one file a family, each metric a decorated function; see ``registry`` for a whole example."""

from bench.metrics.discovery import all_facts, all_metrics, facts_for, installed, plugin_problems, registry_of
from bench.metrics.precision import facts_of_run
from bench.metrics.registry import (
    Inputs,
    LoadedJointTower,
    LoadedTower,
    Metric,
    NoScoreError,
    Place,
    Registry,
    Tower,
    metric,
    tower,
)

__all__ = [
    "Inputs",
    "LoadedJointTower",
    "LoadedTower",
    "Metric",
    "NoScoreError",
    "Place",
    "Registry",
    "Tower",
    "all_facts",
    "all_metrics",
    "facts_for",
    "facts_of_run",
    "installed",
    "metric",
    "plugin_problems",
    "registry_of",
    "tower",
]
