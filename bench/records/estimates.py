"""Records of a plan: the prompts and samples that target margins need, what they cost, what a run would take."""

from __future__ import annotations

from bench.records.base import Record
from bench.records.suite import Limit


class PlannedSize(Record, frozen=True):
    """How many prompts one metric needs at a number of samples a prompt."""

    samples: int
    margin: float
    """The limit at this number of samples, in the metric's unit."""
    sd: float
    """Standard deviation of the prompts' paired differences, or of the means of effective groups of prompts."""
    prompts: int
    power_now: float
    """How often a gate with the suite's present number of prompts would pass at a true loss of 0."""


class MetricPlan(Record, frozen=True):
    """What a pilot says of one gated metric of one pair of variants, in the metric's unit."""

    metric: str
    unit: str
    candidate: str
    reference: str
    limit: Limit
    between_sd: float
    """Standard deviation of the paired difference between prompts; with ``within_sd`` None that of one sample."""
    within_sd: float | None
    """Standard deviation between the samples of a prompt; None where the pilot has one sample a prompt."""
    prompts: int
    """Prompts of the pilot behind it."""
    pairs: int
    """Pairs of images behind it."""
    sizes: tuple[PlannedSize, ...]


class PlannedRun(Record, frozen=True):
    """A size at which each gated metric passes with the target power, and what its images cost."""

    samples: int
    prompts: int
    """The most that a metric needs."""
    images: int
    """Of all variants of the suite."""
    seconds: float | None
    """Images times seconds an image, one at a time; None where the pilot has no timings."""


class SizePlan(Record, frozen=True):
    """What ``plan`` found: prompts and samples that the target margins need."""

    suite: str
    pilot: str
    pilot_id: str
    power: float
    metrics: tuple[MetricPlan, ...]
    runs: tuple[PlannedRun, ...]
    """One for each number of samples a prompt."""
    prompts_now: int
    samples_now: int
    notes: tuple[str, ...]


class MemoryEstimate(Record, frozen=True):
    """What the largest variant of a suite would take while it renders: an estimate, in bytes."""

    variant: str
    weights_bytes: int
    """Of all parts, in the dtype they run in."""
    denoise_bytes: int
    """Peak while a batch is denoised, weights included."""
    decode_bytes: int
    """Peak while a batch is decoded, weights included."""
    peak_bytes: int
    """The larger of the two: what ``peak_allocated`` would be; on a CPU, the resident memory."""
    needed_bytes: int
    """With the context and what an allocator holds in reserve."""
    available_bytes: int
    fits: bool
    basis: str
    """What the estimate rests on, in a sentence."""
    advice: tuple[str, ...]
    """Settings that would fit, where the suite's do not."""


class TimeEstimate(Record, frozen=True):
    """How long a suite would take from its beginning, in seconds; None where it is not known."""

    render_s: float | None
    measure_s: float | None
    basis: str
    """What it rests on, or how to find out, in a sentence."""
