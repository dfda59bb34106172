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
