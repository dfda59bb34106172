"""Metrics: one file a family, each metric a decorated function; see ``registry`` for a whole example."""

from bench.metrics.discovery import all_facts, all_metrics, facts_for, installed, plugin_problems, registry_of
from bench.metrics.registry import Inputs, LoadedTower, Metric, NoScoreError, Registry, Tower, metric, tower

__all__ = [
    "Inputs",
    "LoadedTower",
    "Metric",
    "NoScoreError",
    "Registry",
    "Tower",
    "all_facts",
    "all_metrics",
    "facts_for",
    "installed",
    "metric",
    "plugin_problems",
    "registry_of",
    "tower",
]
