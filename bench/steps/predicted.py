"""What a sampler's step sees and predicts: the noisy latent, and the final latent that the UNet predicts from it.

Every sampler of a suite is one of two: its latents are those of the variance-preserving process, x = alpha x0 + s eps
with alpha^2 + s^2 = 1 (DDIM, DDPM, LCM, TCD, DPM-Solver++ 2M, UniPC), or those divided by alpha, x0 + sigma eps with
sigma = s/alpha (Euler, Heun, DPM-Solver++ SDE and 3M SDE). The prediction is the guided one. Sources: T. Salimans,
J. Ho, arXiv 2202.00512 (v-prediction); T. Karras et al., arXiv 2206.00364; the schedulers of diffusers, which this
follows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

DIVIDED = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "SdeScheduler",
    "ThirdOrderSdeScheduler",
)
"""Schedulers whose latents are divided by alpha."""


class Seen(NamedTuple):
    """One step of one batch, as the scheduler was given it."""

    step: int
    """Counted from 1."""
    call: int
    """Which call of the scheduler in the batch, from 0; a step of Heun or DPM-Solver++ SDE takes two."""
    sample: Tensor
    prediction: Tensor


class StepView(NamedTuple):
    """A step of a batch."""

    step: int
    timestep: float
    sigma: float
    """Noise over signal, s / alpha; infinite at pure noise."""
    latents: Tensor
    """x_t of the variance-preserving process, float32 (n, c, h, w), on the pipeline's device."""
    predicted: Tensor | None
    """x0, likewise; None where the prediction tells none: of eps at pure noise."""


@contextmanager
def watched(scheduler: Any, steps: Collection[int]) -> Iterator[list[Seen]]:
    """Keep what the scheduler is given at these steps while the block draws a batch; nothing waits for the device.

    The scheduler's arithmetic is untouched, and so are the pixels.
    """
    seen: list[Seen] = []
    step, calls = scheduler.step, 0

    @functools.wraps(step)  # the pipeline looks at which options it takes
    def recording(prediction: Tensor, timestep: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
        nonlocal calls
        number, second = divmod(calls, scheduler.order)
        if not second and number + 1 in steps:
            seen.append(Seen(number + 1, calls, sample, prediction))
        calls += 1
        return step(prediction, timestep, sample, *rest, **options)

    scheduler.step = recording
    try:
        yield seen
    finally:
        scheduler.step = step


def view(scheduler: Any, seen: Seen) -> StepView:
    """A step that ``watched`` kept, in the terms of the variance-preserving process; the scheduler as it was then.

    eps-prediction: x0 = (x_t - s eps) / alpha. v-prediction: x0 = alpha x_t - s v.
    """
    timestep = float(scheduler.timesteps[seen.call])
    divided = type(scheduler).__name__ in DIVIDED
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[seen.call])
        alpha = 1.0 / math.sqrt(1.0 + sigma**2)
        noise = sigma * alpha
    else:
        signal = float(scheduler.alphas_cumprod[int(timestep)])
        alpha, noise = math.sqrt(signal), math.sqrt(1.0 - signal)
        sigma = noise / alpha if alpha else math.inf
    latents, prediction = seen.sample.float(), seen.prediction.float()
    if divided:
        latents = latents * alpha
    predicted = None
    if scheduler.config.prediction_type == "v_prediction":
        predicted = alpha * latents - noise * prediction
    elif alpha:
        predicted = (latents - noise * prediction) / alpha
    return StepView(seen.step, timestep, sigma, latents, predicted)
