"""Samplers by the names that the field uses, and the diffusers schedulers behind them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.records import Sampler

PLAIN = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
"""What a checkpoint's own configuration may switch on: the suite's name says which spacing is meant."""
KARRAS = PLAIN | {"use_karras_sigmas": True}

SAMPLERS: dict[Sampler, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", PLAIN),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", PLAIN),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", PLAIN | {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_karras": (
        "DPMSolverMultistepScheduler",
        KARRAS | {"algorithm_type": "dpmsolver++"},
    ),
    "dpmpp_2m_sde_karras": (
        "DPMSolverMultistepScheduler",
        KARRAS | {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": ("UniPCMultistepScheduler", PLAIN),
}
"""Sampler -> (diffusers class, what is changed in the checkpoint's own scheduler configuration)."""


def set_sampler(pipe: Any, sampler: Sampler) -> None:
    """Put the sampler into a pipeline, with the noise schedule that its checkpoint brings."""
    import diffusers

    name, changes = SAMPLERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
