"""Samplers: the table against the names that suites may use, and every one at work."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from on_device import HostWaits, on_device

from bench.pipeline import denoise as stages
from bench.pipeline.schedulers import SAMPLERS, set_sampler
from bench.records import Sampler, Schedule, Settings
from bench.records.base import KARRAS_SAMPLERS

# diffusers 0.42 turns tensors into arrays in a way that numpy 2 deprecates: theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SDXL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""The scheduler configuration that SDXL's base checkpoint ships."""

KINDS = {
    "ddim": ("DDIMScheduler", None),
    "ddpm": ("DDPMScheduler", None),
    "euler": ("EulerDiscreteScheduler", None),
    "euler_a": ("EulerAncestralDiscreteScheduler", None),
    "heun": ("HeunDiscreteScheduler", None),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "dpmsolver++"),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", "sde-dpmsolver++"),
    "unipc": ("UniPCMultistepScheduler", None),
}
"""Sampler -> class and algorithm, where the class has such a thing."""

BOTH: list[tuple[Sampler, Schedule]] = [
    *((sampler, "leading") for sampler in SAMPLERS),
    *((sampler, "karras") for sampler in KARRAS_SAMPLERS),
]


def sdxl_pipe() -> Any:
    return SimpleNamespace(scheduler=EulerDiscreteScheduler(**SDXL))


def test_every_name_that_a_suite_may_use_has_a_scheduler_and_no_other() -> None:
    assert set(SAMPLERS) == set(get_args(Sampler)) - {"none"} == set(KINDS)  # given images have no sampler


@pytest.mark.parametrize(("sampler", "schedule"), BOTH)
def test_sampler_is_made_from_sdxl_configuration_and_keeps_its_betas(sampler: Sampler, schedule: Schedule) -> None:
    pipe = sdxl_pipe()
    set_sampler(pipe, sampler, schedule)
    name, algorithm = KINDS[sampler]
    assert type(pipe.scheduler).__name__ == name
    assert pipe.scheduler.config.get("algorithm_type") == algorithm
    if sampler in KARRAS_SAMPLERS:
        assert pipe.scheduler.config.use_karras_sigmas is (schedule == "karras")
    assert pipe.scheduler.config.prediction_type == "epsilon"
    assert pipe.scheduler.config.timestep_spacing == "leading"
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(pipe.scheduler.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=2e-4)


@pytest.mark.parametrize(("sampler", "schedule"), BOTH)
def test_two_steps_of_every_sampler_give_the_same_finite_latents_again(
    mini_pipe: Any, settings: Settings, sampler: Sampler, schedule: Schedule
) -> None:
    own = SimpleNamespace(scheduler=mini_pipe.scheduler)
    set_sampler(mini_pipe, sampler, schedule)
    try:
        changed = Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler=sampler, schedule=schedule)
        encoded = stages.encode(mini_pipe, ["a red tent by the sea"], [""], changed)
        noise = stages.noise(mini_pipe, changed, [5])
        first, again = (stages.denoise(mini_pipe, changed, encoded, noise, [5]) for _ in range(2))
    finally:
        mini_pipe.scheduler = own.scheduler
    assert first.shape == noise.shape
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)
    assert not torch.equal(first, noise)


def test_the_suite_not_the_checkpoint_says_how_sigmas_are_spaced() -> None:
    pipe = sdxl_pipe()
    for sampler in KARRAS_SAMPLERS:
        set_sampler(pipe, "dpmpp_2m", "karras")
        set_sampler(pipe, sampler, "leading")
        assert pipe.scheduler.config.use_karras_sigmas is False


# --- what the host waits for ---------------------------------------------------------------


def fox(pipe: Any, sampler: Sampler) -> torch.Tensor:
    """Latents after five steps, without noise of the sampler's own."""
    settings = Settings(width=64, height=64, steps=5, guidance_scale=3.0, sampler=sampler, eta=0.0)
    encoded = stages.encode(pipe, ["a fox"], [""], settings)
    return stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, [5]), [5])


def lay_timesteps_on_a_device(scheduler: Any) -> None:
    """From now on the scheduler's timesteps are as those on a GPU: nothing can be read of them."""
    spread = scheduler.set_timesteps

    def set_timesteps(*steps: Any, **options: Any) -> None:
        spread(*steps, **options)
        scheduler.timesteps = on_device(scheduler.timesteps)

    scheduler.set_timesteps = set_timesteps


@pytest.fixture
def pipe(mini_pipe: Any) -> Any:
    before = mini_pipe.scheduler
    yield mini_pipe
    mini_pipe.scheduler = before


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_ask_nothing_of_the_device_and_are_those_of_diffusers(pipe: Any, sampler: Sampler) -> None:
    name, changes = SAMPLERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    plain = fox(pipe, sampler)
    set_sampler(pipe, sampler, "leading")
    lay_timesteps_on_a_device(pipe.scheduler)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain), "a second batch starts anew"


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_diffusers_own_steps_do_ask(pipe: Any, sampler: Sampler) -> None:
    name, changes = SAMPLERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    lay_timesteps_on_a_device(pipe.scheduler)
    with pytest.raises(HostWaits):
        fox(pipe, sampler)


def test_eta_still_reaches_the_step(pipe: Any) -> None:
    set_sampler(pipe, "ddim", "leading")
    assert {"eta", "generator"} <= inspect.signature(pipe.scheduler.step).parameters.keys()
