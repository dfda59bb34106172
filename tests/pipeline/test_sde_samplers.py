"""DPM-Solver++ SDE and 3M SDE against loops of our own, after k-diffusion's formulas in log sigma."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.pipeline.schedulers import make_scheduler
from bench.records import CheckpointFacts, Sampler, Schedule
from bench.records.weights import Prediction

# diffusers 0.42 turns tensors into arrays in a way that numpy 2 deprecates: theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Denoiser = Callable[[Tensor, float], Tensor]
"""(x0 + sigma eps, sigma) -> x0."""
Noise = Callable[[float, float], Tensor]
"""Unit noise between two noise levels."""


def toy(x: Tensor, sigma: float) -> Tensor:
    """Something that a denoiser may be: bent, and less sure where there is more noise."""
    return torch.tanh(x / math.sqrt(sigma**2 + 1)) / (1 + 0.1 * sigma) + 0.2


def drawn(
    sampler: Sampler,
    steps: int,
    schedule: Schedule = "karras",
    prediction: Prediction = "epsilon",
    denoiser: Denoiser = toy,
) -> tuple[Tensor, list[float]]:
    """What the scheduler makes of a denoiser with seed 7, and the noise levels of the steps."""
    facts = CheckpointFacts(layout="single-file", family="sdxl", prediction=prediction)
    scheduler = make_scheduler("x", facts, sampler, schedule)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((2, 4, 8, 8), generator=generator) * scheduler.init_noise_sigma
    for call, step in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[call])
        seen = scheduler.scale_model_input(x, step)
        torch.testing.assert_close(seen, x / math.sqrt(sigma**2 + 1))
        x0 = denoiser(x, sigma)
        predicted = (x - x0) / sigma if prediction == "epsilon" else (seen - math.sqrt(sigma**2 + 1) * x0) / sigma
        (x, told) = scheduler.step(predicted, step, x, generator=generator, return_dict=False)
        torch.testing.assert_close(told, x0, rtol=1e-4, atol=1e-4)
    levels = scheduler.sigmas.tolist()
    return x, [*levels[:-1:2], 0.0] if scheduler.order == 2 else levels


def start(sigma: float) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((2, 4, 8, 8), generator=generator) * sigma, generator


def brownian(generator: torch.Generator, shape: torch.Size, levels: list[float]) -> dict[float, Tensor]:
    """A Brownian path at falling noise levels, from 0 at the first: one draw an interval."""
    path = {levels[0]: torch.zeros(shape)}
    for before, after in pairwise(levels):
        path[after] = path[before] + math.sqrt(before - after) * torch.randn(shape, generator=generator)
    return path


def between(path: dict[float, Tensor], before: float, after: float) -> Tensor:
    return (path[after] - path[before]) / math.sqrt(before - after)


def ancestral(before: float, after: float) -> tuple[float, float]:
    up = min(after, math.sqrt(after**2 * (before**2 - after**2) / before**2))
    return math.sqrt(after**2 - up**2), up


def k_dpmpp_sde(sigmas: list[float]) -> Tensor:
    """``sample_dpmpp_sde`` with eta 1, s_noise 1, r 1/2."""
    x, generator = start(sigmas[0])
    middles = [math.exp((math.log(a) + math.log(b)) / 2) for a, b in pairwise(sigmas[:-1])]
    levels = [one for pair in zip(sigmas, middles, strict=False) for one in pair] + [sigmas[-2]]
    path = brownian(generator, x.shape, levels)
    for sigma, after, middle in zip(sigmas, sigmas[1:], [*middles, 0.0], strict=False):
        denoised = toy(x, sigma)
        if after == 0:
            return x + (x - denoised) / sigma * (after - sigma)
        t = -math.log(sigma)
        down, up = ancestral(sigma, middle)
        s_ = -math.log(down)
        x_2 = down / sigma * x - math.expm1(t - s_) * denoised + between(path, sigma, middle) * up
        denoised_2 = toy(x_2, middle)
        down, up = ancestral(sigma, after)
        t_next_ = -math.log(down)
        x = down / sigma * x - math.expm1(t - t_next_) * denoised_2 + between(path, sigma, after) * up
    raise AssertionError


def k_dpmpp_3m_sde(sigmas: list[float]) -> Tensor:
    """``sample_dpmpp_3m_sde`` with eta 1 and s_noise 1."""
    x, generator = start(sigmas[0])
    denoised_1 = denoised_2 = torch.empty(0)
    h_1 = h_2 = 0.0
    for sigma, after in pairwise(sigmas):
        denoised = toy(x, sigma)
        if after == 0:
            return denoised
        h = -math.log(after) + math.log(sigma)
        h_eta = 2 * h
        x = math.exp(-h_eta) * x - math.expm1(-h_eta) * denoised
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        if h_2:
            r0, r1 = h_1 / h, h_2 / h
            d1_0 = (denoised - denoised_1) / r0
            d1_1 = (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            x = x + phi_2 * d1 - (phi_2 / h_eta - 0.5) * d2
        elif h_1:
            x = x + phi_2 * (denoised - denoised_1) / (h_1 / h)
        x = x + torch.randn(x.shape, generator=generator) * after * math.sqrt(-math.expm1(-2 * h))
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    raise AssertionError


CASES: list[tuple[Sampler, Callable[[list[float]], Tensor]]] = [
    ("dpmpp_sde", k_dpmpp_sde),
    ("dpmpp_3m_sde", k_dpmpp_3m_sde),
]


@pytest.mark.parametrize("schedule", ["karras", "exponential", "simple", "normal"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("sampler", "loop"), CASES)
def test_latents_are_those_of_a_loop_of_our_own(
    sampler: Sampler, loop: Callable[[list[float]], Tensor], steps: int, schedule: Schedule
) -> None:
    found, sigmas = drawn(sampler, steps, schedule)
    assert len(sigmas) == steps + 1
    torch.testing.assert_close(found, loop(sigmas), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_3m_sde"])
def test_v_and_eps_that_mean_the_same_image_draw_the_same(sampler: Sampler) -> None:
    (eps, _), (v, _) = (drawn(sampler, 5, prediction=kind) for kind in ("epsilon", "v_prediction"))
    torch.testing.assert_close(eps, v, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_3m_sde"])
def test_of_one_known_image_that_image_is_drawn(sampler: Sampler) -> None:
    image = torch.linspace(-1, 1, 512).reshape(2, 4, 8, 8)
    assert torch.allclose(drawn(sampler, 4, denoiser=lambda *_: image)[0], image, atol=1e-5)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_3m_sde"])
def test_a_gaussian_is_drawn_with_its_own_deviation(sampler: Sampler) -> None:
    """Of x0 ~ N(0, 1) the best denoiser is x / (sigma^2 + 1), and the SDE ends in N(0, 1)."""
    facts = CheckpointFacts(layout="single-file", family="sdxl")
    scheduler = make_scheduler("x", facts, sampler, "karras")
    scheduler.set_timesteps(60)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((1, 4, 64, 64), generator=generator) * scheduler.init_noise_sigma
    for call, step in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[call])
        x = scheduler.step((x - x / (sigma**2 + 1)) / sigma, step, x, generator=generator).prev_sample
    assert float(x.std()) == pytest.approx(1, abs=0.03)


def test_there_is_one_draw_an_interval_between_two_levels() -> None:
    drawn_of = _count_draws("dpmpp_sde", 4), _count_draws("dpmpp_3m_sde", 4)
    assert drawn_of == (6, 3)


def _count_draws(sampler: Sampler, steps: int) -> int:
    """How many draws of the latents' size the generator has given after a whole image."""
    facts = CheckpointFacts(layout="single-file", family="sdxl")
    scheduler = make_scheduler("x", facts, sampler, "karras")
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    x = torch.ones((1, 4, 8, 8))
    for step in scheduler.timesteps:
        x = scheduler.step(torch.zeros_like(x), step, x, generator=generator, return_dict=False)[0]
    after = torch.randn((1, 4, 8, 8), generator=generator)
    again = torch.Generator().manual_seed(3)
    return next(number for number, one in _draws(again) if torch.equal(one, after))


def _draws(generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    for number in range(100):
        yield number, torch.randn((1, 4, 8, 8), generator=generator)


def test_latents_of_half_precision_stay_so_and_are_computed_in_float32() -> None:
    facts = CheckpointFacts(layout="single-file", family="sdxl")
    samplers: tuple[Sampler, ...] = ("dpmpp_sde", "dpmpp_3m_sde")
    for sampler in samplers:
        found: Any = {}
        for dtype in (torch.float16, torch.float32):
            scheduler = make_scheduler("x", facts, sampler, "karras")
            scheduler.set_timesteps(3)
            generator = torch.Generator().manual_seed(7)
            x = (torch.randn((1, 4, 8, 8), generator=generator) * scheduler.init_noise_sigma).to(dtype)
            for call, step in enumerate(scheduler.timesteps):
                sigma = float(scheduler.sigmas[call])
                predicted = ((x.float() - toy(x.float(), sigma)) / sigma).to(dtype)
                x = scheduler.step(predicted, step, x, generator=generator).prev_sample
            found[dtype] = x
        assert found[torch.float16].dtype == torch.float16
        np.testing.assert_allclose(found[torch.float16].float(), found[torch.float32], atol=0.05)
