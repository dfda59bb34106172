"""Records of what it means: differences, means, summaries, ratios."""

from __future__ import annotations

from typing import Literal

from bench.records.base import Record, TimingName, TrainingOverlap, Unit


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
    """None with fewer than 2 prompts, or 2 groups of them."""
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
    p: float | None = None
    """Two-sided p-value of the sign-flip test on the per-prompt differences; None with fewer than 2 prompts."""
    p_holm: float | None = None
    """``p`` by Holm within its family: of a tag, all tags of the pair and metric; else all metrics of the pair."""
    p_bh: float | None = None
    """``p`` by Benjamini and Hochberg within the same family."""
    groups: int | None = None
    """Groups that the prompts fall into, which are then the unit of intervals and p-values; None where each prompt
    stands alone."""
    tags_explain: float | None = None
    """Share of the variance of the differences that goes with tags, where it is much (``bench.compare.tags``)."""
    training_overlap: TrainingOverlap = "unknown"
    """What the metric shares with what the candidate was trained on (``bench.metrics.training_data``)."""


class RateChange(Record, frozen=True):
    """How the share of images above a metric's threshold changed, in [0, 1]; prompts as the unit."""

    metric: str
    threshold: str
    """As ``Threshold.name``."""
    candidate: str
    reference: str
    prompts: int
    images: int
    """Pairs of images behind it."""
    candidate_rate: float
    reference_rate: float
    change: float
    """``candidate_rate - reference_rate``, in [-1, 1]."""
    interval: Interval
    """It has a width also where no image is flagged on either side."""
    rose: int
    """Prompts whose share rose; those that stay are in neither count."""
    fell: int
    smallest_visible: float | None
    """A rise that so many prompts would show in 8 of 10 runs if both sides were independent; None where none is."""


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


class Strength(Record, frozen=True):
    """How often one variant wins prompts, on the log scale of Davidson's model."""

    variant: str
    strength: float
    """exp of the difference of two strengths is the odds of win to loss; they sum to 0 within a ranking."""
    interval: Interval
    wins: int
    ties: int
    losses: int
    """Over all prompts and all other variants, in the metric's better direction."""


class Ranking(Record, frozen=True):
    """Three or more variants by one metric, from the prompts that each wins, ties or loses against each other.

    Only images count that every ranked variant has a score for, so that all meet on the same prompts.
    """

    metric: str
    strengths: tuple[Strength, ...]
    """The strongest first."""
    tied_sets: tuple[tuple[str, ...], ...]
    """Two variants share a set unless they are told apart at 5 %, Holm-adjusted over the pairs."""
    tie: float
    """Davidson's nu: among equals the odds of a tie to a win; 0 where no prompt was tied."""
    prompts: int
    samples: int
    """Images of each variant behind the prompts' means."""
    missing: int
    """Images of the plan, of each variant, that not every ranked variant has a score for."""
    left_out: tuple[str, ...] = ()
    """Variants without a single score, which are not ranked."""


class SweepPoint(Record, frozen=True):
    """One weight of a swept LoRA: its paired differences to the weight 0, and whether another weight beats it."""

    weight: float
    variant: str
    deltas: dict[str, Delta]
    """By metric, over all prompts; empty at the weight 0, where every difference is 0, and where nothing was scored."""
    pixel_shift: float | None
    """Root mean square, over the statistics of the pixels, of the mean difference in standard deviations of the
    reference's prompt means: how far the look has moved, whichever way. None without such statistics."""
    on_front: bool
    """Whether no other weight is at least as good in each of the front's goals and better in one."""


class SweepCurve(Record, frozen=True):
    """What a sweep found."""

    points: tuple[SweepPoint, ...]
    """By rising weight."""
    goals: tuple[str, ...]
    """What the front is about: metrics to be better in, and ``pixel shift``, where it is known, to be smaller; empty
    without scores."""


class WindowGain(Record, frozen=True):
    """What a variant gives that runs in a window of steps only."""

    kind: Literal["only", "until", "from"]
    first: int
    last: int
    delta: Delta
    share: float | None
    """Of the whole difference; None where that is not told from 0."""


class Additivity(Record, frozen=True):
    """Whether the windows' differences add up to the whole one."""

    sum_of_windows: float
    excess: float
    """Sum less whole: above 0 where windows do in part the same."""
    interval: Interval


class AttributedMetric(Record, frozen=True):
    """One metric's difference, by window."""

    metric: str
    higher_is_better: bool | None
    whole: Delta
    windows: tuple[WindowGain, ...]
    additivity: Additivity | None
    nearly_all_until: int | None
    """The last step up to which the variant has to run for nine tenths of the difference; None where none is told."""


class WindowPlace(Record, frozen=True):
    """Where a window of steps stands between gain and loss."""

    variant: str
    first: int
    last: int
    gain: float
    """Mean difference in the metric that counts, in its unit; more is better."""
    share: float | None
    """Of the whole gain; None where that is not told from 0."""
    loss: float
    """The largest mean loss in any other metric, in units of its limit, else of its standard deviation over prompts;
    0 where none got worse."""
    worst: str | None
    """The metric of that loss."""
    on_front: bool
    """No other window has as much gain with as little loss, and more of the one or less of the other."""


class WindowFront(Record, frozen=True):
    """The windows of a variant, by what they give in one metric and cost in the others."""

    metric: str
    places: tuple[WindowPlace, ...]
    """The whole variant first."""
    best: WindowPlace | None
    """Of those that keep at least nine tenths of the whole gain the one of the smallest loss; None where there is no
    gain that is told from 0."""


class StepAttribution(Record, frozen=True):
    """Which steps a variant's differences come from."""

    variant: str
    reference: str
    steps: int
    metrics: tuple[AttributedMetric, ...]
    front: WindowFront | None = None
    """None without a metric that has a better direction."""
