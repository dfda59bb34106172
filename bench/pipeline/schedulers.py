"""Samplers by the names that the field uses, and the diffusers schedulers behind them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import msgspec

from bench.checkpoints.scheduler import FIELDS, refuse_sampler
from bench.errors import MachineError
from bench.formatting import listed
from bench.records import CheckpointFacts, Sampler, Schedule

DPM_SOLVER = {"solver_type": "midpoint", "variance_type": None}

SAMPLERS: Mapping[Sampler, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {**DPM_SOLVER, "algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {**DPM_SOLVER, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {"solver_type": "bh2"}),
}
"""Sampler -> (diffusers class, its settings beside ``bench.checkpoints.scheduler.FIELDS``)."""

WHOLE_STEPS = ("ddim", "ddpm")
"""Samplers whose step looks its timestep up in tables; the others count steps."""


def make_scheduler(what: str, facts: CheckpointFacts, sampler: Sampler, schedule: Schedule) -> Any:
    """diffusers' scheduler of a sampler: every field is set here, none is left to the class or to a saved file.

    A checkpoint gives its noise schedule, what its UNet predicts, and zero terminal SNR. With the latter, timesteps are
    spaced "trailing": those of "leading" never get to the last one, which is pure noise.

    Args:
        what: the checkpoint, for the message.
        facts: of the checkpoint.
        sampler: of the suite.
        schedule: of the suite.

    Raises:
        WeightsError: as ``refuse_sampler``.
        MachineError: the installed diffusers has a field that is not known here.
    """
    refuse_sampler(what, facts, sampler)
    name, own = SAMPLERS[sampler]
    values = {**FIELDS, **own, **msgspec.structs.asdict(facts.noise), "prediction_type": facts.prediction}
    values["use_karras_sigmas"] = schedule == "karras"
    if facts.zero_terminal_snr:
        values |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    kind = getattr(diffusers, name)
    fields = list(inspect.signature(kind.__init__).parameters)[1:]
    unknown = set(fields) - values.keys()
    if unknown:
        raise MachineError(
            f"diffusers {diffusers.__version__}: {name} has settings that are not known here: {listed(unknown)}.",
            "pip install --upgrade hotart-bench, or an earlier diffusers",
        )
    scheduler = kind(**{field: values[field] for field in fields})
    _spare_waits(scheduler, whole=sampler in WHOLE_STEPS)
    return scheduler


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
