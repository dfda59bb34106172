"""Samplers: the table against the names that suites may use, and every one at work."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import diffusers
import msgspec
import numpy as np
import pytest
import torch
from on_device import HostWaits, on_device

from bench.checkpoints.scheduler import FIELDS, OWN_FIELDS
from bench.errors import MachineError, WeightsError
from bench.pipeline import denoise as stages
from bench.pipeline.schedulers import SAMPLERS, make_scheduler
from bench.records import CheckpointFacts, Sampler, Schedule, Settings
from bench.records.base import KARRAS_SAMPLERS
from bench.records.weights import NoiseSchedule, Prediction

# diffusers 0.42 turns tensors into arrays in a way that numpy 2 deprecates: theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SDXL = CheckpointFacts(layout="single-file", family="sdxl")
"""A checkpoint with the noise schedule that SD 1.5 and SDXL were trained with."""

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


def sdxl_scheduler(sampler: Sampler, schedule: Schedule = "leading") -> Any:
    return make_scheduler("x", SDXL, sampler, schedule)


def test_every_name_that_a_suite_may_use_has_a_scheduler_and_no_other() -> None:
    assert set(SAMPLERS) == set(get_args(Sampler)) - {"none"} == set(KINDS)  # given images have no sampler


@pytest.mark.parametrize(("sampler", "schedule"), BOTH)
def test_a_sampler_has_sdxls_betas_and_the_schedule_of_the_suite(sampler: Sampler, schedule: Schedule) -> None:
    scheduler = sdxl_scheduler(sampler, schedule)
    name, algorithm = KINDS[sampler]
    assert type(scheduler).__name__ == name
    assert scheduler.config.get("algorithm_type") == algorithm
    if sampler in KARRAS_SAMPLERS:
        assert scheduler.config.use_karras_sigmas is (schedule == "karras")
    assert scheduler.config.prediction_type == "epsilon"
    assert scheduler.config.timestep_spacing == "leading"
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=2e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_field_is_left_to_the_class(sampler: Sampler) -> None:
    scheduler = sdxl_scheduler(sampler)
    assert not scheduler.config.get("_use_default_values")
    fields = set(inspect.signature(type(scheduler).__init__).parameters) - {"self"}
    assert fields <= {"prediction_type", *NoiseSchedule.__struct_fields__, *FIELDS, *OWN_FIELDS}
    assert fields & set(OWN_FIELDS) == set(SAMPLERS[sampler][1])


def test_a_field_that_is_new_in_diffusers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(diffusers.DDIMScheduler):
        def __init__(self, beta_start: float = 0.1, sharpen: bool = True) -> None:
            pytest.fail("is not made")

    monkeypatch.setattr(diffusers, "DDIMScheduler", Newer)
    with pytest.raises(MachineError, match=r"DDIMScheduler has settings that are not known here: sharpen"):
        sdxl_scheduler("ddim")


@pytest.mark.parametrize(("sampler", "schedule"), BOTH)
def test_two_steps_of_every_sampler_give_the_same_finite_latents_again(
    mini_pipe: Any, settings: Settings, sampler: Sampler, schedule: Schedule
) -> None:
    own = mini_pipe.scheduler
    mini_pipe.scheduler = sdxl_scheduler(sampler, schedule)
    try:
        changed = Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler=sampler, schedule=schedule)
        encoded = stages.encode(mini_pipe, ["a red tent by the sea"], [""], changed)
        noise = stages.noise(mini_pipe, changed, [5])
        first, again = (stages.denoise(mini_pipe, changed, encoded, noise, [5]) for _ in range(2))
    finally:
        mini_pipe.scheduler = own
    assert first.shape == noise.shape
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)
    assert not torch.equal(first, noise)


# --- zero terminal SNR ---------------------------------------------------------------------


def able(prediction: str) -> list[tuple[Sampler, Schedule]]:
    unable = {"heun"} if prediction == "v_prediction" else {"heun", "ddim", "ddpm"}
    return [one for one in BOTH if one[0] not in unable]


@pytest.mark.parametrize(
    ("prediction", "sampler", "schedule"),
    [(prediction, *one) for prediction in get_args(Prediction) for one in able(prediction)],
)
def test_zero_terminal_snr_begins_at_pure_noise(prediction: Prediction, sampler: Sampler, schedule: Schedule) -> None:
    facts = msgspec.structs.replace(SDXL, prediction=prediction, zero_terminal_snr=True)
    scheduler = make_scheduler("x", facts, sampler, schedule)
    for steps in (1, 7, 20):
        scheduler.set_timesteps(steps)
        assert float(scheduler.timesteps[0]) == pytest.approx(999, abs=1e-3)
        # The image's share of the first latents is 0, or the 2^-12 that diffusers takes for it.
        assert float(scheduler.alphas_cumprod[-1]) <= 2**-24
        unit = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
        latents = unit * scheduler.init_noise_sigma
        torch.testing.assert_close(scheduler.scale_model_input(latents, scheduler.timesteps[0]), unit)
        for step in scheduler.timesteps:
            # A UNet that sees nothing but noise, of which v is no part.
            seen = scheduler.scale_model_input(latents, step)
            predicted = seen if prediction == "epsilon" else torch.zeros_like(seen)
            latents = scheduler.step(predicted, step, latents).prev_sample
        assert bool(latents.isfinite().all())


@pytest.mark.parametrize(
    ("prediction", "sampler"),
    [("v_prediction", "heun"), ("epsilon", "heun"), ("epsilon", "ddim"), ("epsilon", "ddpm")],
)
def test_a_sampler_that_cannot_is_refused_with_those_that_can(prediction: Prediction, sampler: Sampler) -> None:
    facts = msgspec.structs.replace(SDXL, prediction=prediction, zero_terminal_snr=True)
    with pytest.raises(WeightsError, match=rf"x: was trained to zero terminal SNR .* which {sampler} cannot") as caught:
        make_scheduler("x", facts, sampler, "leading")
    assert "euler, euler_a, dpmpp_2m, dpmpp_2m_sde and unipc" in caught.value.hint


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


def of_diffusers(shipped: Any, sampler: Sampler, **changes: object) -> Any:
    """The scheduler as diffusers makes it of the shipped family's configuration."""
    name, algorithm = KINDS[sampler]
    more = changes if algorithm is None else {"algorithm_type": algorithm, **changes}
    return getattr(diffusers, name).from_config(shipped.config, **more)


@pytest.fixture
def pipe(mini_pipe: Any) -> Any:
    before = mini_pipe.scheduler
    yield mini_pipe
    mini_pipe.scheduler = before


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_ask_nothing_of_the_device_and_are_those_of_diffusers(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain), "a second batch starts anew"


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_diffusers_own_steps_do_ask(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    with pytest.raises(HostWaits):
        fox(pipe, sampler)


def test_eta_still_reaches_the_step(pipe: Any) -> None:
    pipe.scheduler = sdxl_scheduler("ddim")
    assert {"eta", "generator"} <= inspect.signature(pipe.scheduler.step).parameters.keys()


@pytest.mark.parametrize("sampler", KARRAS_SAMPLERS)
def test_the_shipped_family_is_drawn_on_karras_sigmas_as_diffusers_draws_it(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler, use_karras_sigmas=True)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler, "karras")
    assert torch.equal(fox(pipe, sampler), plain)
