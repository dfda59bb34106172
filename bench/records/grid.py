"""Records of a grid: one suite under several settings, and what that says of the order of its variants."""

from __future__ import annotations

from typing import Literal

from bench.records.base import Record
from bench.records.statistics import Interval
from bench.records.suite import GridValue, Suite

GRID_KIND = "hotart-bench grid"
AxisName = Literal["guidance_scale", "sampler", "schedule", "steps", "eta", "size", "seed"]
"""Fields of a suite; ``size`` is width and height."""


class GridAxis(Record, frozen=True):
    """A field of the suite, and the values that it takes."""

    name: AxisName
    values: tuple[GridValue, ...]
    """Numbers and sizes rising, names in the order of the samplers' table."""


class GridMember(Record, frozen=True):
    """One setting, and the run folder that holds it."""

    folder: str
    """Its name below the grid's folder."""
    setting: dict[str, GridValue]
    """The value of each axis."""


class Grid(Record, frozen=True):
    """``grid.json``: what a folder of runs is that differ in their settings only."""

    kind: Literal["hotart-bench grid"]
    schema: int
    suite: Suite
    """As its file says, with the settings of its own."""
    axes: tuple[GridAxis, ...]
    members: tuple[GridMember, ...]
    """The product of the axes, the last of them running fastest."""


Order = Literal["holds", "flips", "not shown"]


class GridCell(Record, frozen=True):
    """A paired difference, candidate minus reference, under one setting; seeds are averaged."""

    setting: dict[str, GridValue]
    """Of all axes but the seed."""
    candidate_mean: float
    reference_mean: float
    mean: float
    interval: Interval | None
    """Of a band that holds the differences of all settings at once; None with fewer than 2 prompts, or groups."""
    order: Order | None
    """Whether the difference has the sign of ``GridDifference.winner`` and its interval lies beyond 0; None without a
    winner."""


class GridLevel(Record, frozen=True):
    """What one value of an axis does to a difference."""

    value: GridValue
    mean: float
    """The difference at this value, the mean over the settings of the other axes."""
    change: float | None
    """Less that at the axis' value that the others are compared with; None at that value."""
    interval: Interval | None
    """Of the change, of a band that holds all changes along the axis at once."""


class AxisEffect(Record, frozen=True):
    """Whether a difference depends on one axis: the interaction of the pair of variants with it."""

    axis: str
    base: GridValue
    """What the other values are compared with: the suite's own, else the first."""
    levels: tuple[GridLevel, ...]
    sd: float
    """Standard deviation of the levels' means (n - 1): of seeds, the spread over them."""
    p: float | None
    """Of the sign-flip test that the difference is the same at every value; None with fewer than 2 prompts."""
    p_holm: float | None = None
    """By Holm over the axes of all metrics of the pair that know what is better, or of all that only describe."""


class GridDifference(Record, frozen=True):
    """One metric's paired difference of two variants, by setting, prompts as the unit."""

    metric: str
    candidate: str
    reference: str
    higher_is_better: bool | None
    prompts: int
    """Those that have scores under every setting; the others are left out of all."""
    groups: int | None
    """Groups that the prompts fall into, which are then the unit; None where each prompt stands alone."""
    samples: int
    """Pairs of images behind the differences, of all settings."""
    missing: int
    """Pairs of images that are left out, of the settings that have scores."""
    cells: tuple[GridCell, ...]
    winner: str | None
    """The variant whose lead ``GridCell.order`` speaks of: by the suite's own setting, where that is among them and
    tells the variants apart, else by most settings that do. None where no setting does, as many say the one as the
    other, or no direction is better."""
    axes: tuple[AxisEffect, ...]
    """Empty until every setting has scores."""
