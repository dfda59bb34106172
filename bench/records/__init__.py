"""Every record that passes between rooms. Imports nothing from the rest of ``bench``.

All are frozen msgspec structs: they are checked when they are read from disk and cannot change
after. Quantities carry their unit in the name or in a ``unit`` field. What is asked for stands in ``asked``,
what was done in ``done``, what it means in ``found``, and what the gate says of it in ``judged``.
"""

from __future__ import annotations

from bench.records.asked import Case, Cell, Lora, Plan, Settings, Suite, Variant
from bench.records.done import Fingerprint, Git, Machine, MetricFacts, Render, Run, RunInfo, Score, Timing, WeightFile
from bench.records.found import Delta, Interval, MetricMean, Ratio, TimingSummary
from bench.records.judged import (
    Acceptance,
    Baseline,
    FrozenCase,
    FrozenVariant,
    Gate,
    Limit,
    Outcome,
    SessionNoise,
    Verdict,
    WorstPrompt,
)
from bench.records.kinds import SCHEMA, Axis, Dtype, Progress, Record, Sampler, Standing, Status, TimingName, Unit

__all__ = [
    "SCHEMA",
    "Acceptance",
    "Axis",
    "Baseline",
    "Case",
    "Cell",
    "Delta",
    "Dtype",
    "Fingerprint",
    "FrozenCase",
    "FrozenVariant",
    "Gate",
    "Git",
    "Interval",
    "Limit",
    "Lora",
    "Machine",
    "MetricFacts",
    "MetricMean",
    "Outcome",
    "Plan",
    "Progress",
    "Ratio",
    "Record",
    "Render",
    "Run",
    "RunInfo",
    "Sampler",
    "Score",
    "SessionNoise",
    "Settings",
    "Standing",
    "Status",
    "Suite",
    "Timing",
    "TimingName",
    "TimingSummary",
    "Unit",
    "Variant",
    "Verdict",
    "WeightFile",
    "WorstPrompt",
]
