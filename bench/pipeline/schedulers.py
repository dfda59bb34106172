"""Samplers by the names that the field uses, and the diffusers schedulers behind them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import msgspec
import numpy as np
import torch

from bench.checkpoints.scheduler import FIELDS, refuse_sampler
from bench.errors import MachineError
from bench.formatting import listed
from bench.pipeline import sde_samplers
from bench.pipeline.copying import randn_ahead, to_device
from bench.pipeline.noise_levels import DISTILLED, Levels, levels_of, timestep_of
from bench.records import CheckpointFacts, Sampler, Schedule
from bench.records.weights import Family

PURE_NOISE = 2.0**-24
"""diffusers' stand-in for the image's share of pure noise, 0, where one divides by it."""
DPM_SOLVER = {"solver_type": "midpoint", "variance_type": None}

SAMPLERS: Mapping[Sampler, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {**DPM_SOLVER, "algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {**DPM_SOLVER, "algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m_sde": ("ThirdOrderSdeScheduler", {}),
    "dpmpp_sde": ("SdeScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {"solver_type": "bh2"}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
"""Sampler -> (class of diffusers, else of ``bench.pipeline.sde_samplers``, its settings beside ``FIELDS``)."""

WHOLE_STEPS: tuple[Sampler, ...] = ("ddim", "ddpm", "lcm", "tcd")
"""Samplers whose step looks its timestep up in tables; the others count steps."""

ROUNDED: tuple[Sampler, ...] = ("dpmpp_2m", "dpmpp_2m_sde", "unipc")
"""Samplers whose class gives the UNet whole timesteps; the others give it what lies between two."""


def make_scheduler(
    what: str, facts: CheckpointFacts, sampler: Sampler, schedule: Schedule, timesteps: Sequence[int] = ()
) -> Any:
    """A scheduler as diffusers' pipelines take it: every field is set here, none is left to a class or a saved file.

    A checkpoint gives its noise schedule, what its UNet predicts, and zero terminal SNR. With the latter, the schedule
    ``leading`` is spaced "trailing": it would never get to the last timestep, which is pure noise.

    Args:
        what: the checkpoint, for the message.
        facts: of the checkpoint.
        sampler: of the suite.
        schedule: of the suite, one that the sampler can follow.
        timesteps: of the suite, where its schedule is ``timesteps``.

    Raises:
        WeightsError: as ``refuse_sampler``.
        MachineError: the installed diffusers has a field that is not known here.
    """
    refuse_sampler(what, facts, sampler)
    name, own = SAMPLERS[sampler]
    values = {**FIELDS, **own, **msgspec.structs.asdict(facts.noise), "prediction_type": facts.prediction}
    values["rescale_betas_zero_snr"] = facts.zero_terminal_snr
    values["timestep_spacing"] = _spacing(schedule, facts)
    values["original_inference_steps"] = min(DISTILLED, facts.noise.num_train_timesteps)
    kind = scheduler_class(sampler)
    fields = list(inspect.signature(kind.__init__).parameters)[1:]
    unknown = set(fields) - values.keys()
    if unknown:
        raise MachineError(
            f"diffusers {diffusers.__version__}: {name} has settings that are not known here: {listed(unknown)}.",
            "pip install --upgrade hotart-bench, or an earlier diffusers",
        )
    scheduler = kind(**{field: values[field] for field in fields})
    # A step that adds noise draws it on the host, by diffusers' own function, and would wait until it is copied.
    vars(sys.modules[kind.__module__])["randn_tensor"] = randn_ahead
    spread = functools.partial(_spread, scheduler, sampler, schedule, facts.family, timesteps, scheduler.set_timesteps)
    _spare_waits(scheduler, spread, whole=sampler in WHOLE_STEPS)
    return scheduler


def scheduler_class(sampler: Sampler) -> Any:
    """The class of a sampler; importing it takes diffusers seconds."""
    name = SAMPLERS[sampler][0]
    return getattr(sde_samplers, name, None) or getattr(diffusers, name)


def _spacing(schedule: Schedule, facts: CheckpointFacts) -> str:
    """diffusers' spacing; where the levels are placed, one after which the first latents are noise times the first."""
    if schedule == "leading":
        return "trailing" if facts.zero_terminal_snr else "leading"
    return "trailing" if schedule == "simple" else "linspace"


def _spread(
    scheduler: Any,
    sampler: Sampler,
    schedule: Schedule,
    family: Family,
    timesteps: Sequence[int],
    spread: Callable[..., None],
    steps: int,
) -> None:
    """Put a scheduler on its noise levels, on the host: those of its class, or those of ``levels_of``."""
    if sampler in ("lcm", "tcd"):
        spread(1, device="cpu")
        times = levels_of(schedule, steps, _table(scheduler), family=family, timesteps=timesteps)[1]
        scheduler.timesteps, scheduler.num_inference_steps = torch.from_numpy(times.round().astype(np.int64)), steps
        return
    spread(steps, device="cpu")
    if sampler in ("ddim", "ddpm"):
        return
    if schedule != "leading":
        sigmas, times = levels_of(schedule, steps, _table(scheduler), family=family, timesteps=timesteps)
        _place(scheduler, sigmas, times.round() if sampler in ROUNDED else times)
    elif sampler == "dpmpp_sde":
        _place(scheduler, scheduler.sigmas[:-1].double().numpy(), scheduler.timesteps.double().numpy())


def _table(scheduler: Any) -> Levels:
    """sigma of every timestep that the model was trained with; where the last is pure noise, what diffusers takes."""
    signal = scheduler.alphas_cumprod.clamp(min=PURE_NOISE)
    table: Levels = (((1 - signal) / signal) ** 0.5).double().numpy()
    return table


def _place(scheduler: Any, sigmas: Levels, times: Levels) -> None:
    """Give a scheduler its noise levels, with a 0 behind them, and timesteps; one of second order has more of both."""
    ended = np.append(sigmas, 0.0)
    if isinstance(scheduler, sde_samplers.SdeScheduler):
        table = _table(scheduler)
        middles = np.sqrt(sigmas[:-1] * sigmas[1:])
        ended = np.append(np.insert(sigmas, np.arange(1, len(sigmas)), middles), 0.0)
        times = np.insert(times, np.arange(1, len(times)), timestep_of(middles, table))
    elif scheduler.order == 2:
        ended = np.concatenate([ended[:1], ended[1:-1].repeat(2), ended[-1:]])
        times = np.concatenate([times[:1], times[1:].repeat(2)])
    scheduler.sigmas = torch.from_numpy(ended.astype(np.float32))
    scheduler.timesteps = torch.from_numpy(times).to(scheduler.timesteps.dtype)


def _spare_waits(scheduler: Any, spread: Callable[[int], None], *, whole: bool) -> None:
    """Let a scheduler's steps ask nothing of the device, for which the host would wait in each; the same numbers.

    diffusers hands ``step`` a timestep that lies on the device. DDIM, DDPM, LCM and TCD compare it and index tables on
    the host with it, so they are given the number itself (``whole``). The others search for their first step among the
    timesteps, so they are told that it is the first.
    """
    kind, step = scheduler.set_timesteps, scheduler.step
    host: Any = None
    left: list[int] = []

    @functools.wraps(kind)
    def set_timesteps(steps: int, device: Any = None) -> None:
        nonlocal host, left
        spread(steps)
        host = scheduler.timesteps
        left = [int(one) for one in reversed(host.tolist())]
        scheduler.timesteps = to_device(host, device or "cpu")
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    @functools.wraps(step)
    def whole_step(predicted: Any, timestep: Any, *arguments: Any, **options: Any) -> Any:
        scheduler.timesteps = host  # the pipeline has taken those on the device
        return step(predicted, left.pop(), *arguments, **options)

    scheduler.set_timesteps = set_timesteps
    if whole:
        scheduler.step = whole_step
