"""Writes ``configs/schedulers.json`` anew: ``python tests/checkpoints/write_schedulers.py``."""

from __future__ import annotations

import inspect
import json
import sys
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import diffusers.schedulers  # noqa: F401 -- before "torchsde" seems to be installed

from bench.checkpoints.families import CONFIGS

SCHEDULERS = {
    "DDIMScheduler": "ddim",
    "DDIMParallelScheduler": "ddim_parallel",
    "DDPMScheduler": "ddpm",
    "DDPMParallelScheduler": "ddpm_parallel",
    "DEISMultistepScheduler": "deis_multistep",
    "DPMSolverMultistepScheduler": "dpmsolver_multistep",
    "DPMSolverSDEScheduler": "dpmsolver_sde",
    "DPMSolverSinglestepScheduler": "dpmsolver_singlestep",
    "EulerAncestralDiscreteScheduler": "euler_ancestral_discrete",
    "EulerDiscreteScheduler": "euler_discrete",
    "HeunDiscreteScheduler": "heun_discrete",
    "KDPM2AncestralDiscreteScheduler": "k_dpm_2_ancestral_discrete",
    "KDPM2DiscreteScheduler": "k_dpm_2_discrete",
    "LCMScheduler": "lcm",
    "LMSDiscreteScheduler": "lms_discrete",
    "PNDMScheduler": "pndm",
    "SASolverScheduler": "sasolver",
    "TCDScheduler": "tcd",
    "UniPCMultistepScheduler": "unipc_multistep",
}
"""diffusers' schedulers for a UNet that predicts noise or v at timesteps of a schedule of betas -> their modules."""


def scheduler_class(name: str) -> Any:
    """The class; one needs ``torchsde`` to run, but not to be looked at."""
    with patch.dict(sys.modules, {"torchsde": ModuleType("torchsde")}):
        return getattr(import_module(f"diffusers.schedulers.scheduling_{SCHEDULERS[name]}"), name)


def schedulers_text() -> str:
    """The default of every field of every class; one class a line."""
    lines = []
    for name in SCHEDULERS:
        fields = list(inspect.signature(scheduler_class(name).__init__).parameters.values())[1:]
        lines.append(f'"{name}": {json.dumps({field.name: field.default for field in fields})}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    (CONFIGS / "schedulers.json").write_text(schedulers_text(), encoding="utf-8")
