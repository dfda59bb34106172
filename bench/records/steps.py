"""Records of single denoising steps: which are looked at, and what was scored there."""

from __future__ import annotations

from bench.records.base import Dtype, Record


class StepPlan(Record, frozen=True):
    """What of a suite's steps is scored; nothing of it changes pixels or the protocol."""

    metrics: tuple[str, ...]
    """Names of metrics and step metrics."""
    at: tuple[int, ...]
    """Steps, counted from 1, rising."""


class StepScore(Record, frozen=True):
    """One line of ``steps.jsonl``: a metric at one step of one image's path, or None with the reason."""

    variant: str
    prompt_id: str
    sample: int
    step: int
    """Counted from 1."""
    timestep: float
    """Of the noise schedule, 0 to 999, at which the UNet was asked."""
    sigma: float | None
    """Noise over signal before the step; None at pure noise."""
    metric: str
    version: str
    image_sha256: str | None
    """The final image of the path; None where there is none."""
    value: float | None
    reason: str | None = None
    prompt_cut: bool = False
    metric_dtype: Dtype = "float32"


class StepCurve(Record, frozen=True):
    """A metric's paired difference, candidate minus reference, at each step: one band for the whole curve."""

    metric: str
    candidate: str
    reference: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: float
    """Of the whole band: all steps together."""
    final: float | None
    """The mean difference of the final images, of the same prompts; None where these have no scores."""
    prompts: int
    """Those that have scores at every step; the others are left out of all."""
    missing: int
    """Pairs of images that are left out."""


class StepOrder(Record, frozen=True):
    """How far the order of two images at a step is that of the final images."""

    metric: str
    """What tells the order at the step."""
    final_metric: str
    """What tells the order of the final images."""
    final_is_last_step: bool
    """Whether the metric's own last step stands for the final images, which have no scores."""
    candidate: str
    reference: str
    """Equal to the candidate where the pairs are two samples of a prompt; else pairs are of one prompt and sample."""
    steps: tuple[int, ...]
    agreement: tuple[float, ...]
    """Share of pairs in the final order, in [0, 1], a tie half; the mean over prompts."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    rank_correlation: tuple[float | None, ...]
    """Spearman's rho between the pairs' differences at the step and in the end; None where one is constant."""
    level: float
    prompts: int
    pairs: int
    reversed_steps: tuple[int, ...]
    """Steps at which fewer than half of the pairs are in the final order, with the whole band below one half."""
    decided_step: int | None
    """The first step from which on at least nine tenths of the pairs are in the final order; None where none is."""
