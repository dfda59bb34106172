"""Few steps, no guidance, and SDXL's conditioning, against diffusers' own pipeline with its own schedulers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from bench.pipeline import denoise as stages
from bench.pipeline.schedulers import make_scheduler
from bench.records import CheckpointFacts, Sampler, Schedule, Settings

# diffusers 0.42 turns tensors into arrays in a way that numpy 2 deprecates: theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FACTS = CheckpointFacts(layout="directory", family="sdxl")
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture
def pipe(mini_pipe: Any) -> Iterator[Any]:
    before = mini_pipe.scheduler
    yield mini_pipe
    mini_pipe.scheduler = before


def made(sampler: Sampler, schedule: Schedule, steps: int, **more: Any) -> Settings:
    fields = {"guidance_scale": 0.0, "eta": 0.3 if sampler == "tcd" else 0.0} | more
    return Settings(width=64, height=64, steps=steps, sampler=sampler, schedule=schedule, **fields)


def ours(pipe: Any, settings: Settings, facts: CheckpointFacts = FACTS) -> Tensor:
    pipe.scheduler = make_scheduler("x", facts, settings.sampler, settings.schedule, settings.timesteps)
    encoded = stages.encode(pipe, ["a fox"], ["grey"], settings)
    return stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, [5]), [5])


@torch.inference_mode()
def theirs(pipe: Any, scheduler: Any, **options: Any) -> Tensor:
    """As a user of diffusers would call it."""
    pipe.scheduler = scheduler
    generator = torch.Generator("cpu").manual_seed(5)
    drawn: Tensor = pipe(
        "a fox", negative_prompt="grey", generator=generator, width=64, height=64, output_type="latent", **options
    ).images
    return drawn


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo_and_lightning_are_drawn_as_their_cards_say(pipe: Any, steps: int) -> None:
    own = diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="trailing", steps_offset=1)
    wanted = theirs(pipe, own, num_inference_steps=steps, guidance_scale=0.0)
    torch.testing.assert_close(ours(pipe, made("euler", "simple", steps)), wanted, rtol=1e-4, atol=1e-4)
    ancestral = diffusers.EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing", steps_offset=1)
    wanted = theirs(pipe, ancestral, num_inference_steps=steps, guidance_scale=0.0)
    torch.testing.assert_close(ours(pipe, made("euler_a", "simple", steps)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("steps", "guidance_scale"), [(1, 1.0), (2, 1.5), (4, 0.0), (8, 1.0)])
def test_lcm_and_tcd_are_drawn_as_by_diffusers(pipe: Any, steps: int, guidance_scale: float) -> None:
    for sampler, kind in (("lcm", diffusers.LCMScheduler), ("tcd", diffusers.TCDScheduler)):
        options = {"eta": 0.3} if sampler == "tcd" else {}
        wanted = theirs(pipe, kind(**NOISE), num_inference_steps=steps, guidance_scale=guidance_scale, **options)
        settings = made(sampler, "lcm", steps, guidance_scale=guidance_scale)
        torch.testing.assert_close(ours(pipe, settings), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("times", [(999, 749, 499, 249), (800,), (399,), (999, 1)])
def test_timesteps_by_hand_are_drawn_as_by_diffusers(pipe: Any, times: tuple[int, ...]) -> None:
    wanted = theirs(pipe, diffusers.LCMScheduler(**NOISE), timesteps=list(times), guidance_scale=0.0)
    settings = made("lcm", "timesteps", len(times), timesteps=times)
    torch.testing.assert_close(ours(pipe, settings), wanted, rtol=1e-3, atol=1e-3)


def test_ddim_trailing_is_that_of_hyper_sd_and_pcm(pipe: Any) -> None:
    own = diffusers.DDIMScheduler(
        **NOISE, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    for steps in (1, 4):
        wanted = theirs(pipe, own, num_inference_steps=steps, guidance_scale=0.0)
        torch.testing.assert_close(ours(pipe, made("ddim", "simple", steps)), wanted, rtol=1e-4, atol=1e-4)


def test_euler_on_sigmas_is_diffusers_with_the_same_sigmas(pipe: Any) -> None:
    for schedule in ("normal", "sgm_uniform", "ays"):
        settings = made("euler", schedule, 5, guidance_scale=3.0)
        drawn = ours(pipe, settings)
        levels = pipe.scheduler.sigmas.tolist()
        own = diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="linspace")
        wanted = theirs(pipe, own, sigmas=levels, guidance_scale=3.0)
        torch.testing.assert_close(drawn, wanted, rtol=1e-3, atol=1e-3)


def test_v_prediction_with_zero_terminal_snr_is_drawn_as_by_diffusers(pipe: Any) -> None:
    facts = CheckpointFacts(layout="directory", family="sdxl", prediction="v_prediction", zero_terminal_snr=True)
    own = diffusers.EulerDiscreteScheduler(
        **NOISE, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    wanted = theirs(pipe, own, num_inference_steps=6, guidance_scale=4.5, guidance_rescale=0.7)
    schedules: tuple[Schedule, ...] = ("leading", "simple")
    for schedule in schedules:
        settings = made("euler", schedule, 6, guidance_scale=4.5, guidance_rescale=0.7)
        torch.testing.assert_close(ours(pipe, settings, facts), wanted, rtol=1e-4, atol=1e-4)


def test_rescaled_guidance_is_diffusers(pipe: Any) -> None:
    own = diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1)
    found = [ours(pipe, made("euler", "leading", 4, guidance_scale=6.0, guidance_rescale=phi)) for phi in (0.0, 0.5)]
    wanted = [theirs(pipe, own, num_inference_steps=4, guidance_scale=6.0, guidance_rescale=phi) for phi in (0.0, 0.5)]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(*found)


def test_without_guidance_nothing_passes_for_the_negative_prompt(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = pipe.unet.forward

    def counting(sample: Tensor, *rest: Any, **options: Any) -> Any:
        seen.append(len(sample))
        return forward(sample, *rest, **options)

    monkeypatch.setattr(pipe.unet, "forward", counting)
    for scale, rows in ((0.0, 1), (1.0, 1), (1.5, 2)):
        seen.clear()
        ours(pipe, made("lcm", "lcm", 2, guidance_scale=scale))
        assert seen == [rows, rows]


def test_sdxl_is_told_the_sizes_and_the_crop_of_the_suite(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[float]] = []
    forward = pipe.unet.forward

    def watching(*inputs: Any, **options: Any) -> Any:
        told.extend(options["added_cond_kwargs"]["time_ids"].tolist())
        return forward(*inputs, **options)

    monkeypatch.setattr(pipe.unet, "forward", watching)
    ours(pipe, made("euler", "leading", 1, guidance_scale=3.0))
    assert told == [[64, 64, 0, 0, 64, 64]] * 2
    told.clear()
    sizes: Any = {"original_size": (1024, 768), "target_size": (512, 256), "crop": (3, 7)}
    ours(pipe, made("euler", "leading", 1, guidance_scale=3.0, **sizes))
    # Height before width and top before left, for the negative pass too.
    assert told == [[768, 1024, 7, 3, 256, 512]] * 2


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "heun"])
def test_weights_by_step_follow_the_steps_and_not_the_calls(
    pipe: Any, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    by_step = SimpleNamespace(enter=entered.append)
    monkeypatch.setattr(pipe, "weights_by_step", by_step, raising=False)
    ours(pipe, made(sampler, "karras", 3))
    # Before the first call, and after each of the five: two of step 1, two of step 2, one of step 3.
    assert entered == [1, 1, 2, 2, 3, 3]
