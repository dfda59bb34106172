"""DPM-Solver++ SDE and 3M SDE, after k-diffusion, as schedulers of diffusers.

diffusers has no such methods: its ``DPMSolverSDEScheduler`` seeds the noise of a whole batch at once, and the third
order of its multistep solver is another method. Both go from x0 + sigma eps, as Euler's latents are, and add as much
noise as the reverse SDE does (k-diffusion's eta 1, s_noise 1).

The noise comes from each image's own generator, whatever the batch: one draw for each interval between two noise
levels. k-diffusion takes it of a Brownian tree: the law is the same, the pixels are not.

Source: C. Lu et al. 2022, arXiv 2211.01095; K. Crowson, k-diffusion, ``sample_dpmpp_sde`` and ``sample_dpmpp_3m_sde``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

Generators = Sequence[torch.Generator] | torch.Generator | None


class SdeScheduler(EulerDiscreteScheduler):  # type: ignore[misc]
    """DPM-Solver++ (SDE), two evaluations a step but for the last.

    ``sigmas`` holds both noise levels of each step: its own, and the geometric mean of it and the next.
    """

    order = 2

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> Any:
        """The latents after one evaluation: at the middle of the step, then at its end.

        With r = 1/2, sigma the step's noise level, sigma_m the middle's, D and D_m the predicted x0 at both, and
        "to s" = (s^2 / sigma^2) x + (1 - s^2 / sigma^2) D + s sqrt(1 - s^2 / sigma^2) noise: to sigma_m with D, then
        from the same x to the next level with D_m. The noise of the whole step is that of its halves, each weighted by
        the root of its part of sigma - sigma'.

        Args:
            model_output: of the UNet, guided; (n, c, h, w).
            timestep: not read: calls are counted, so that nothing is asked of the device.
            sample: x0 + sigma eps, likewise.
            generator: one for each image.
            return_dict: False gives ``(latents,)``.
        """
        index, first = _begun(self, timestep), self.step_index % 2 == 0
        sigma, after = (float(one) for one in self.sigmas[index : index + 2])
        denoised = _denoised(self, model_output, sample, sigma)
        if not after:
            latents = denoised
        elif first:
            self._start, self._noise = sample.float(), _drawn(sample, generator)
            latents = _reversed(self._start, denoised, sigma, after, self._noise)
        else:
            start, middle = float(self.sigmas[index - 1]), sigma
            whole, second = start - after, _drawn(sample, generator)
            noise = math.sqrt((start - middle) / whole) * self._noise + math.sqrt((middle - after) / whole) * second
            latents = _reversed(self._start, denoised, start, after, noise)
        return _stepped(self, latents.to(sample.dtype), denoised, return_dict)


class ThirdOrderSdeScheduler(EulerDiscreteScheduler):  # type: ignore[misc]
    """DPM-Solver++ (3M) SDE: the first step of order 1, the second of order 2, the others of order 3."""

    def set_timesteps(self, *steps: Any, **options: Any) -> None:
        """As Euler's; what earlier steps predicted is forgotten."""
        super().set_timesteps(*steps, **options)
        self._past: list[tuple[Tensor, float]] = []

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> Any:
        """The next latents; arguments as of ``SdeScheduler.step``.

        With h = log(sigma / sigma'), k = 2h and D the predicted x0:
        x' = e^-k x + (1 - e^-k) D + phi2 D' - phi3 D'' + sigma' sqrt(1 - e^-k) noise, where phi2 = (e^-k - 1) / k + 1,
        phi3 = phi2 / k - 1/2, and D' and D'' are the divided differences of D over the steps before.
        """
        index = _begun(self, timestep)
        sigma, after = (float(one) for one in self.sigmas[index : index + 2])
        denoised = _denoised(self, model_output, sample, sigma)
        latents = denoised
        if after:
            h = math.log(sigma / after)
            latents = _reversed(sample.float(), denoised, sigma, after, _drawn(sample, generator))
            latents = latents + _correction(denoised, h, self._past)
            self._past = [(denoised, h), *self._past[:1]]
        return _stepped(self, latents.to(sample.dtype), denoised, return_dict)


def _begun(scheduler: Any, timestep: Any) -> int:
    """Which call this is, from 0."""
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    return int(scheduler.step_index)


def _stepped(scheduler: Any, latents: Tensor, denoised: Tensor, return_dict: bool) -> Any:
    scheduler._step_index += 1
    if not return_dict:
        return latents, denoised
    return EulerDiscreteSchedulerOutput(prev_sample=latents, pred_original_sample=denoised)


def _denoised(scheduler: Any, predicted: Tensor, sample: Tensor, sigma: float) -> Tensor:
    """x0 in float32: x - sigma eps, or x / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) v."""
    x, predicted = sample.float(), predicted.float()
    if scheduler.config.prediction_type == "v_prediction":
        return x / (sigma**2 + 1) - sigma / math.sqrt(sigma**2 + 1) * predicted
    return x - sigma * predicted


def _drawn(sample: Tensor, generator: Generators) -> Tensor:
    drawn: Tensor = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=torch.float32)
    return drawn


def _reversed(x: Tensor, denoised: Tensor, sigma: float, after: float, noise: Tensor) -> Tensor:
    """One step of the reverse SDE for an x0 that stays: what is kept of x is sigma'^2 / sigma^2."""
    kept = (after / sigma) ** 2
    return kept * x + (1 - kept) * denoised + after * math.sqrt(1 - kept) * noise


def _correction(denoised: Tensor, h: float, past: Sequence[tuple[Tensor, float]]) -> Tensor | float:
    """phi2 D' - phi3 D'', of the predictions and step lengths before, the latest first."""
    if not past:
        return 0.0
    phi2 = math.expm1(-2 * h) / (2 * h) + 1
    before, h1 = past[0]
    first = (denoised - before) * (h / h1)
    if len(past) == 1:
        return phi2 * first
    r0, r1 = h1 / h, past[1][1] / h
    bent = (first - (before - past[1][0]) / r1) / (r0 + r1)
    return phi2 * (first + r0 * bent) - (phi2 / (2 * h) - 0.5) * bent
