"""Samplers by the names that the field uses, and the diffusers schedulers behind them."""

from __future__ import annotations

import functools
from typing import Any

import diffusers

from bench.records import Sampler, Schedule
from bench.records.base import KARRAS_SAMPLERS

SAMPLERS: dict[Sampler, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Sampler -> (diffusers class, what is changed in the checkpoint's own scheduler configuration)."""

WHOLE_STEPS = ("ddim", "ddpm")
"""Samplers whose step looks its timestep up in tables; the others count steps."""


def set_sampler(pipe: Any, sampler: Sampler, schedule: Schedule) -> None:
    """Put the sampler and its schedule into a pipeline, with the betas and the prediction type of its checkpoint."""
    name, changes = SAMPLERS[sampler]
    changes = {"timestep_spacing": "leading", **changes}
    if sampler in KARRAS_SAMPLERS:  # a checkpoint may name another schedule than the suite
        changes |= {
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_karras_sigmas": schedule == "karras",
        }
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    _spare_waits(pipe.scheduler, whole=sampler in WHOLE_STEPS)


def _spare_waits(scheduler: Any, *, whole: bool) -> None:
    """Let a scheduler's steps ask nothing of the device, for which the host would wait in each; the same numbers.

    diffusers hands ``step`` a timestep that lies on the device. DDIM and DDPM compare it and index tables on the host
    with it, so they are given the number itself (``whole``). The others search for their first step among the
    timesteps, so they are told that it is the first.
    """
    spread, step = scheduler.set_timesteps, scheduler.step
    host: Any = None
    left: list[int] = []

    @functools.wraps(spread)
    def set_timesteps(*steps: Any, device: Any = None, **options: Any) -> None:
        nonlocal host, left
        spread(*steps, device="cpu", **options)
        host = scheduler.timesteps
        left = [int(one) for one in reversed(host.tolist())]
        scheduler.timesteps = host.to(device)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    @functools.wraps(step)
    def whole_step(predicted: Any, timestep: Any, *arguments: Any, **options: Any) -> Any:
        scheduler.timesteps = host  # the pipeline has taken those on the device
        return step(predicted, left.pop(), *arguments, **options)

    scheduler.set_timesteps = set_timesteps
    if whole:
        scheduler.step = whole_step
