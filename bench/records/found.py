"""Records of what it means: differences, means, summaries, ratios."""

from __future__ import annotations

from bench.records.kinds import Record, TimingName, Unit


class Interval(Record, frozen=True):
    """A two-sided interval and the method that made it."""

    low: float
    high: float
    method: str
    level: float = 0.95


class Delta(Record, frozen=True):
    """Paired difference ``candidate - reference`` of one metric, prompts as the unit."""

    metric: str
    candidate: str
    reference: str
    tag: str | None
    """None: all prompts; else only the prompts with this tag."""
    prompts: int
    samples: int
    """Pairs of images behind the prompts' means."""
    missing: int
    """Pairs left out because one side has no score."""
    candidate_mean: float
    reference_mean: float
    mean: float
    interval: Interval | None
    """None with fewer than 2 prompts."""
    small_sample: Interval | None
    """t interval beside the bootstrap, under 30 prompts."""
    d_z: float | None
    """Mean over standard deviation of the per-prompt differences; None when that is zero."""
    wins: int
    ties: int
    losses: int
    win_rate: float | None
    """(wins + ties / 2) / pairs of prompts, in the metric's better direction."""
    win_interval: Interval | None
    correlation: float | None
    """Pearson's r of the prompts' means; None when one side is constant."""


class MetricMean(Record, frozen=True):
    """Mean of one metric of one variant, prompts as the unit."""

    variant: str
    metric: str
    mean: float | None
    """Mean of the prompts' means; None where no image has a score."""
    interval: Interval | None
    """None with fewer than 2 prompts."""
    prompts: int
    missing: int
    """Images of the suite without a score."""


class TimingSummary(Record, frozen=True):
    """Statistics of one timed quantity of one variant over all rounds."""

    variant: str
    name: TimingName
    unit: Unit
    n: int
    rounds: int
    median: float
    p90: float
    iqr: float
    minimum: float
    weak: str | None
    """Why the figure is weak and what would make it strong; None when it is not."""


class Ratio(Record, frozen=True):
    """Ratio of medians of a timed quantity, candidate over reference."""

    name: TimingName
    candidate: str
    reference: str
    ratio: float
    interval: Interval | None
