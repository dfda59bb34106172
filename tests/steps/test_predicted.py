"""The predicted image at each step, against loops of our own over the same UNet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffusers
import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.pipeline import denoise as stages
from bench.pipeline.schedulers import make_scheduler
from bench.pipeline.switch import load_pipeline
from bench.records import CheckpointFacts, Settings
from bench.steps.predicted import view, watched
from bench.suite import load_suite, plan_images

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
STEPS = 8
Eps = Callable[[Tensor, float], Tensor]
"""(x_t of the variance-preserving process, timestep) -> guided prediction."""


@pytest.fixture(scope="module")
def suite():
    whole = load_suite("mini", limit=1)
    return msgspec.structs.replace(whole, settings=msgspec.structs.replace(whole.settings, steps=STEPS, batch=2))


@pytest.fixture(scope="module")
def pipe(suite) -> Any:
    return load_pipeline(suite.variants[0], suite.settings, device="cpu")


class Drawn:
    """One batch drawn by the product, with what it says of every step."""

    def __init__(self, pipe: Any, suite: Any, settings: Settings) -> None:
        facts = CheckpointFacts(layout="directory", family="mini")
        pipe.scheduler = make_scheduler("mini", facts, settings.sampler, settings.schedule, settings.timesteps)
        images = plan_images(suite)[:2]
        prompt = suite.prompts[0]
        self.encoded = stages.encode(pipe, [prompt.text] * 2, [prompt.negative] * 2, settings)
        self.seeds = [image.seed for image in images]
        self.noise = stages.noise(pipe, settings, self.seeds)
        with watched(pipe.scheduler, range(1, settings.steps + 1)) as seen:
            self.latents = stages.denoise(pipe, settings, self.encoded, self.noise, self.seeds)
        self.steps = [view(pipe.scheduler, one) for one in seen]
        self.pipe, self.settings = pipe, settings

    @torch.inference_mode()
    def eps(self, x: Tensor, timestep: float) -> Tensor:
        """The UNet asked by hand, with guidance."""
        side = float(self.settings.width)
        sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]])
        found = []
        for states, pooled in (
            (self.encoded.negative, self.encoded.negative_pooled),
            (self.encoded.prompt, self.encoded.pooled),
        ):
            added = {"text_embeds": pooled, "time_ids": sizes.repeat(len(x), 1)}
            asked = self.pipe.unet(x, timestep, encoder_hidden_states=states, added_cond_kwargs=added)
            found.append(asked.sample)
        return found[0] + self.settings.guidance_scale * (found[1] - found[0])


def alphas_bar() -> np.ndarray:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


def leading(steps: int) -> list[int]:
    return [number * (1000 // steps) + 1 for number in reversed(range(steps))]


def leading_without_end(steps: int) -> list[int]:
    """As diffusers spaces DPM-Solver's: one step more, of which the last is left out."""
    return [number * (1000 // (steps + 1)) + 1 for number in range(steps, 0, -1)]


def ddim(x: Tensor, eps: Eps) -> list[Tensor]:
    bar, times, found = alphas_bar(), leading(STEPS), []
    for place, t in enumerate(times):
        noise = eps(x, t)
        found.append((x - math.sqrt(1 - bar[t]) * noise) / math.sqrt(bar[t]))
        before = bar[times[place + 1]] if place + 1 < STEPS else bar[0]
        x = math.sqrt(before) * found[-1] + math.sqrt(1 - before) * noise
    return [*found, x]


def sigmas_of(times: list[int]) -> list[float]:
    bar = alphas_bar()
    return [math.sqrt((1 - bar[t]) / bar[t]) for t in times]


def euler(x: Tensor, eps: Eps) -> list[Tensor]:
    times = leading(STEPS)
    sigmas, found = [*sigmas_of(times), 0.0], []
    x = x * math.sqrt(sigmas[0] ** 2 + 1)
    for place, t in enumerate(times):
        sigma = sigmas[place]
        noise = eps(x / math.sqrt(sigma**2 + 1), t)
        found.append(x - sigma * noise)
        x = x + (sigmas[place + 1] - sigma) * noise
    return [*found, x]


def dpmpp_2m(x: Tensor, eps: Eps) -> list[Tensor]:
    """DPM-Solver++ (2M) in x0 and log signal-to-noise (C. Lu et al., arXiv 2211.01095, algorithm 2)."""
    times = leading_without_end(STEPS)
    sigmas, found = sigmas_of(times), []
    alpha = [1 / math.sqrt(sigma**2 + 1) for sigma in sigmas]
    rho = [sigma * a for sigma, a in zip(sigmas, alpha, strict=True)]
    for place, t in enumerate(times):
        found.append((x - rho[place] * eps(x, t)) / alpha[place])
        if place + 1 == STEPS:
            return [*found, found[-1]]
        step = math.log(sigmas[place]) - math.log(sigmas[place + 1])
        mixed = found[-1]
        if place:
            ratio = (math.log(sigmas[place - 1]) - math.log(sigmas[place])) / step
            mixed = found[-1] + (found[-1] - found[-2]) / (2 * ratio)
        x = rho[place + 1] / rho[place] * x - alpha[place + 1] * math.expm1(-step) * mixed
    raise AssertionError


@pytest.mark.parametrize(
    ("sampler", "loop", "times"),
    [
        ("ddim", ddim, leading(STEPS)),
        ("euler", euler, leading(STEPS)),
        ("dpmpp_2m", dpmpp_2m, leading_without_end(STEPS)),
    ],
)
def test_the_predicted_latents_are_those_of_a_loop_of_our_own(pipe, suite, sampler, loop, times):
    drawn = Drawn(pipe, suite, msgspec.structs.replace(suite.settings, sampler=sampler))
    *wanted, last = loop(drawn.noise, drawn.eps)
    assert [one.step for one in drawn.steps] == list(range(1, STEPS + 1))
    assert [one.timestep for one in drawn.steps] == times
    assert [one.sigma for one in drawn.steps] == pytest.approx(sigmas_of(times), rel=1e-4)
    for one, predicted in zip(drawn.steps, wanted, strict=True):
        assert float((one.predicted - predicted).abs().max()) <= 1e-5 * float(predicted.abs().max())
    assert float((drawn.latents - last).abs().max()) <= 1e-5 * float(last.abs().max())


AGAIN = [
    ("ddpm", "leading"),
    ("euler_a", "normal"),
    ("heun", "leading"),
    ("heun", "karras"),
    ("dpmpp_2m_sde", "exponential"),
    ("dpmpp_sde", "leading"),
    ("dpmpp_sde", "karras"),
    ("dpmpp_3m_sde", "exponential"),
    ("unipc", "simple"),
    ("lcm", "lcm"),
    ("tcd", "simple"),
]


@pytest.mark.parametrize(("sampler", "schedule"), AGAIN)
def test_each_sampler_s_steps_agree_with_the_unet_asked_again(pipe, suite, sampler, schedule):
    eta = 0.3 if sampler == "tcd" else 0.0
    settings = msgspec.structs.replace(suite.settings, sampler=sampler, schedule=schedule, eta=eta)
    drawn = Drawn(pipe, suite, settings)
    assert [one.step for one in drawn.steps] == list(range(1, STEPS + 1))
    for one in drawn.steps:
        alpha = 1 / math.sqrt(one.sigma**2 + 1)
        noise = drawn.eps(one.latents, one.timestep)
        wanted = (one.latents - one.sigma * alpha * noise) / alpha
        assert float((one.predicted - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("sampler", ["ddim", "lcm", "tcd", "dpmpp_sde", "dpmpp_3m_sde"])
def test_watching_changes_no_pixels(pipe, suite, sampler):
    schedule = "simple" if sampler in ("lcm", "tcd") else "leading"
    settings = msgspec.structs.replace(suite.settings, sampler=sampler, schedule=schedule)
    drawn = Drawn(pipe, suite, settings)
    plain = stages.denoise(pipe, settings, drawn.encoded, drawn.noise, drawn.seeds)
    assert torch.equal(plain, drawn.latents)


@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m_sde", "dpmpp_sde", "dpmpp_3m_sde", "lcm"])
def test_the_last_prediction_is_the_image_where_the_last_noise_level_is_none(pipe, suite, sampler):
    schedule = "simple" if sampler == "lcm" else "karras"
    drawn = Drawn(pipe, suite, msgspec.structs.replace(suite.settings, sampler=sampler, schedule=schedule))
    assert torch.allclose(drawn.steps[-1].predicted, drawn.latents, atol=1e-3, rtol=1e-3)


def test_the_last_prediction_is_the_image_where_the_last_alpha_is_one(pipe, suite):
    drawn = Drawn(pipe, suite, suite.settings)
    own = diffusers.DDIMScheduler.from_config({**pipe.scheduler.config, "set_alpha_to_one": True})
    pipe.scheduler = own
    with watched(own, [STEPS]) as seen:
        latents = stages.denoise(pipe, suite.settings, drawn.encoded, drawn.noise, drawn.seeds)
    (last,) = [view(own, one) for one in seen]
    assert torch.allclose(last.predicted, latents, atol=1e-5)


class FakeScheduler:
    """Just what ``view`` reads of one."""

    def __init__(self, prediction_type: str, alphas: list[float]) -> None:
        self.config = type("Config", (), {"prediction_type": prediction_type})
        self.timesteps, self.alphas_cumprod, self.order = torch.tensor([1, 0]), torch.tensor(alphas), 1

    def step(self, prediction: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
        return sample


@pytest.mark.parametrize("alpha", [0.9, 0.3, 1e-4])
def test_v_prediction_gives_the_image_that_was_noised(alpha):
    x0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    a, s = math.sqrt(alpha), math.sqrt(1 - alpha)
    scheduler = FakeScheduler("v_prediction", [0.5, alpha])
    with watched(scheduler, [1]) as seen:
        scheduler.step(a * noise - s * x0, torch.tensor(1), a * x0 + s * noise)
    assert torch.allclose(view(scheduler, seen[0]).predicted, x0, atol=1e-5)


def test_pure_noise_has_an_image_with_v_and_none_with_eps():
    x0, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for kind, prediction in (("v_prediction", -x0), ("epsilon", noise)):
        scheduler = FakeScheduler(kind, [0.5, 0.0])
        with watched(scheduler, [1]) as seen:
            scheduler.step(prediction, torch.tensor(1), noise)
        found = view(scheduler, seen[0])
        assert found.sigma == math.inf
        assert found.predicted is None if kind == "epsilon" else torch.equal(found.predicted, x0)
