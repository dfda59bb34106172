"""Every record that passes between rooms. Imports nothing from the rest of ``bench``.

All are frozen msgspec structs: they are checked when they are read from disk and cannot change
after. Quantities carry their unit in the name or in a ``unit`` field. What is asked for stands in ``asked``,
what was done in ``done``, what weights were and became in ``weights``, what it means in ``found``, what the gate
says of it in ``judged``, and what the next run should be like in ``planned``.
"""

from __future__ import annotations

from bench.records.asked import Case, Cell, Given, Lora, Plan, Settings, Suite, Variant
from bench.records.done import Fingerprint, Git, Machine, MetricFacts, Render, Run, RunInfo, Score, Timing, WeightFile
from bench.records.found import Delta, Interval, MetricMean, Ranking, Ratio, Strength, TimingSummary
from bench.records.judged import (
    Acceptance,
    Baseline,
    Calibration,
    FrozenCase,
    FrozenVariant,
    Gate,
    Limit,
    MetricNoise,
    NoiseSource,
    Outcome,
    SessionNoise,
    SourceNoise,
    Verdict,
    WorstPrompt,
)
from bench.records.kinds import SCHEMA, Axis, Dtype, Progress, Record, Sampler, Standing, Status, TimingName, Unit
from bench.records.planned import MetricPlan, PlannedRun, PlannedSize, SizePlan
from bench.records.weights import (
    Audit,
    ChangedModule,
    ChangeKind,
    CheckpointFacts,
    Component,
    Family,
    Layout,
    LoraAudit,
    PixelDifference,
    Prediction,
)

__all__ = [
    "SCHEMA",
    "Acceptance",
    "Audit",
    "Axis",
    "Baseline",
    "Calibration",
    "Case",
    "Cell",
    "ChangeKind",
    "ChangedModule",
    "CheckpointFacts",
    "Component",
    "Delta",
    "Dtype",
    "Family",
    "Fingerprint",
    "FrozenCase",
    "FrozenVariant",
    "Gate",
    "Git",
    "Given",
    "Interval",
    "Layout",
    "Limit",
    "Lora",
    "LoraAudit",
    "Machine",
    "MetricFacts",
    "MetricMean",
    "MetricNoise",
    "MetricPlan",
    "NoiseSource",
    "Outcome",
    "PixelDifference",
    "Plan",
    "PlannedRun",
    "PlannedSize",
    "Prediction",
    "Progress",
    "Ranking",
    "Ratio",
    "Record",
    "Render",
    "Run",
    "RunInfo",
    "Sampler",
    "Score",
    "SessionNoise",
    "Settings",
    "SizePlan",
    "SourceNoise",
    "Standing",
    "Status",
    "Strength",
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
