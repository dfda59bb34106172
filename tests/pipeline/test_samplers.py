"""Samplers: the table against the names that suites may use, and every one at work."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import diffusers
import msgspec
import numpy as np
import pytest
import torch
from on_device import Card, HostWaits, on_device

from bench.checkpoints.scheduler import FIELDS, OWN_FIELDS
from bench.errors import MachineError, WeightsError
from bench.pipeline import denoise as stages
from bench.pipeline.schedulers import SAMPLERS, make_scheduler
from bench.records import CheckpointFacts, Sampler, Schedule, Settings
from bench.records.base import SCHEDULES_OF
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
    "dpmpp_3m_sde": ("ThirdOrderSdeScheduler", None),
    "dpmpp_sde": ("SdeScheduler", None),
    "unipc": ("UniPCMultistepScheduler", None),
    "lcm": ("LCMScheduler", None),
    "tcd": ("TCDScheduler", None),
}
"""Sampler -> class and algorithm, where the class has such a thing."""

BOTH: list[tuple[Sampler, Schedule]] = [
    (sampler, schedule) for sampler in SAMPLERS for schedule in SCHEDULES_OF[sampler]
]
"""Every sampler on every schedule that it can follow."""
BY_HAND = (999, 499)


def usual(sampler: Sampler) -> Schedule:
    return SCHEDULES_OF[sampler][0]


def sdxl_scheduler(sampler: Sampler, schedule: Schedule | None = None) -> Any:
    return make_scheduler("x", SDXL, sampler, schedule or usual(sampler), BY_HAND)


def test_every_name_that_a_suite_may_use_has_a_scheduler_and_no_other() -> None:
    assert set(SAMPLERS) == set(get_args(Sampler)) - {"none"} == set(KINDS)  # given images have no sampler


@pytest.mark.parametrize(("sampler", "schedule"), BOTH)
def test_a_sampler_has_sdxls_betas_and_the_schedule_of_the_suite(sampler: Sampler, schedule: Schedule) -> None:
    scheduler = sdxl_scheduler(sampler, schedule)
    name, algorithm = KINDS[sampler]
    assert type(scheduler).__name__ == name
    assert scheduler.config.get("algorithm_type") == algorithm
    assert scheduler.config.prediction_type == "epsilon"
    spacings = {"leading": "leading", "simple": "trailing"}
    assert scheduler.config.timestep_spacing == spacings.get(schedule, "linspace")
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


@pytest.mark.parametrize(
    ("sampler", "schedule"), [(sampler, schedule) for sampler in SAMPLERS for schedule in (usual(sampler), "simple")]
)
def test_two_steps_of_every_sampler_give_the_same_finite_latents_again(
    mini_pipe: Any, settings: Settings, sampler: Sampler, schedule: Schedule
) -> None:
    own = mini_pipe.scheduler
    mini_pipe.scheduler = sdxl_scheduler(sampler, schedule)
    try:
        changed = Settings(width=64, height=64, steps=2, guidance_scale=0.0, sampler=sampler, schedule=schedule)
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
    unable = {"heun"} if prediction == "v_prediction" else {"heun", "ddim", "ddpm", "lcm", "tcd"}
    return [one for one in BOTH if one[0] not in unable and one[1] != "timesteps"]


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
    [
        ("v_prediction", "heun"),
        *(("epsilon", sampler) for sampler in ("heun", "ddim", "ddpm", "lcm", "tcd")),
    ],
)
def test_a_sampler_that_cannot_is_refused_with_those_that_can(prediction: Prediction, sampler: Sampler) -> None:
    facts = msgspec.structs.replace(SDXL, prediction=prediction, zero_terminal_snr=True)
    with pytest.raises(WeightsError, match=rf"x: was trained to zero terminal SNR .* which {sampler} cannot") as caught:
        make_scheduler("x", facts, sampler, "leading")
    assert "euler, euler_a, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde" in caught.value.hint


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


OWN: tuple[Sampler, ...] = ("dpmpp_3m_sde", "dpmpp_sde")
DISTILLED: tuple[Sampler, ...] = ("lcm", "tcd")


@pytest.mark.parametrize("sampler", [one for one in SAMPLERS if one not in (*OWN, *DISTILLED)])
def test_steps_ask_nothing_of_the_device_and_are_those_of_diffusers(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain), "a second batch starts anew"


@pytest.mark.parametrize("sampler", DISTILLED)
def test_steps_of_distilled_samplers_ask_nothing_and_differ_from_diffusers_by_rounding(
    pipe: Any, sampler: Sampler
) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    torch.testing.assert_close(torch.Tensor(fox(pipe, sampler)), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", OWN)
def test_own_steps_ask_nothing_of_the_device_either(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = sdxl_scheduler(sampler)
    plain = fox(pipe, sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    assert torch.equal(torch.Tensor(fox(pipe, sampler)), plain)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm", "tcd"])
def test_diffusers_own_steps_do_ask(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler)
    lay_timesteps_on_a_device(pipe.scheduler)
    with pytest.raises(HostWaits):
        fox(pipe, sampler)


def test_eta_still_reaches_the_step(pipe: Any) -> None:
    pipe.scheduler = sdxl_scheduler("ddim")
    assert {"eta", "generator"} <= inspect.signature(pipe.scheduler.step).parameters.keys()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_is_sent_ahead_and_the_host_does_not_wait(pipe: Any, sampler: Sampler) -> None:
    """Conditions, latents, time ids, timesteps and each step's noise; the numbers are those of one device."""
    eta = 0.5 if sampler in ("ddim", "tcd") else 0.0
    settings = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler=sampler, eta=eta)
    pipe.scheduler = sdxl_scheduler(sampler)
    encoded = stages.encode(pipe, ["a fox", "a pier"], ["", ""], settings)
    noise = stages.noise(pipe, settings, [5, 6])
    plain = stages.denoise(pipe, settings, encoded, noise, [5, 6])
    with Card() as card:
        found = stages.denoise(pipe, settings, encoded, noise, [5, 6])
    waits = [copy for copy in card.copies if copy.waited]
    if sampler == "unipc":  # diffusers copies its noise levels one by one
        assert {copy.numel for copy in waits} == {1}
    else:
        assert not waits
    drawn_in_steps = sum(copy.numel == noise.numel() for copy in card.copies) - 1
    assert drawn_in_steps == NOISE_OF_THREE_STEPS.get(sampler, 0)
    assert len(card.copies) - len(waits) == 4 + 1 + 1 + 1 + drawn_in_steps, "conditions, latents, time ids, timesteps"
    assert torch.equal(torch.Tensor(found), plain)


NOISE_OF_THREE_STEPS = {"ddim": 3, "ddpm": 3, "euler_a": 3, "dpmpp_2m_sde": 3, "dpmpp_3m_sde": 2, "dpmpp_sde": 4} | {
    "lcm": 2,
    "tcd": 2,
}
"""How often a batch's noise is drawn after the first latents."""


SOLVERS: tuple[Sampler, ...] = ("dpmpp_2m", "dpmpp_2m_sde", "unipc")


@pytest.mark.parametrize("sampler", SOLVERS)
def test_the_shipped_family_is_drawn_on_karras_sigmas_as_diffusers_draws_it(pipe: Any, sampler: Sampler) -> None:
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler, use_karras_sigmas=True)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler, "karras")
    assert torch.equal(fox(pipe, sampler), plain)


@pytest.mark.parametrize("curve", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_euler_and_heun_follow_curves_from_end_to_end_as_diffusers_draws_them(
    pipe: Any, sampler: Sampler, curve: Schedule
) -> None:
    # On "leading", diffusers would draw the curves between the noise levels 5.13 and 0.04.
    ends = {"timestep_spacing": "linspace", f"use_{curve}_sigmas": True}
    pipe.scheduler = of_diffusers(pipe.scheduler, sampler, **ends)
    plain = fox(pipe, sampler)
    pipe.scheduler = sdxl_scheduler(sampler, curve)
    torch.testing.assert_close(fox(pipe, sampler), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("curve", ["exponential", "beta"])
@pytest.mark.parametrize("sampler", SOLVERS)
def test_solvers_have_the_noise_levels_of_diffusers(mini_pipe: Any, sampler: Sampler, curve: Schedule) -> None:
    theirs = of_diffusers(mini_pipe.scheduler, sampler, **{f"use_{curve}_sigmas": True})
    ours = sdxl_scheduler(sampler, curve)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(9)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=1e-6)
    # diffusers cuts off what it rounds with karras.
    assert int((ours.timesteps - theirs.timesteps).abs().max()) <= 1


# --- noise levels of the schedules -----------------------------------------------------------

LEVELS: dict[str, list[float]] = {
    "normal": [14.6146, 4.0861, 1.6156, 0.6951, 0.0292],
    "karras": [14.6146, 4.7965, 1.2741, 0.2479, 0.0292],
    "exponential": [14.6146, 3.0890, 0.6529, 0.1380, 0.0292],
    "sgm_uniform": [14.6146, 5.0924, 2.2797, 1.1629, 0.5712],
    "simple": [14.6146, 5.0878, 2.2765, 1.1606, 0.5693],
    "leading": [5.1344, 2.2929, 1.1682, 0.5741, 0.0413],
    "beta": [14.61, 12.82, 9.32, 5.32, 1.82, 0.029],
    "ays": [14.6146, 6.3184, 3.7682, 2.1811, 1.3405, 0.8621, 0.5551, 0.3799, 0.2332, 0.1114],
    "linspace": [14.6146, 4.0861, 1.6156, 0.6951, 0.0292],
}
"""SDXL's noise levels, measured in k-diffusion's, A1111's, ComfyUI's and diffusers' own code; AYS as published."""


@pytest.mark.parametrize("schedule", LEVELS)
def test_schedules_have_the_noise_levels_that_their_programs_have(schedule: Schedule) -> None:
    for sampler in ("euler", "euler_a", "heun", "dpmpp_3m_sde", "dpmpp_2m", "unipc"):
        if schedule == "leading" and sampler in SOLVERS:
            continue  # diffusers spaces theirs otherwise
        scheduler = sdxl_scheduler(sampler, schedule)
        wanted = LEVELS[schedule]
        scheduler.set_timesteps(len(wanted))
        found = scheduler.sigmas.tolist()
        levels = [*found[:-1:2]] if sampler == "heun" else found[:-1]
        digits = 0.005 if schedule == "beta" else 6e-5 if schedule != "linspace" else 2e-4
        assert levels == pytest.approx(wanted, abs=digits)
        assert found[-1] == 0


@pytest.mark.parametrize("schedule", SCHEDULES_OF["euler"])
def test_one_step_is_the_first_level_and_then_none(schedule: Schedule) -> None:
    scheduler = make_scheduler("x", SDXL, "euler", schedule, (999,))
    scheduler.set_timesteps(1)
    first = 0.0413 if schedule == "leading" else 14.6146  # "leading" is of no use there
    assert scheduler.sigmas.tolist() == pytest.approx([first, 0], abs=6e-5)


def test_timesteps_by_hand_are_those_that_are_visited() -> None:
    times = (999, 749, 499, 249)
    for sampler in get_args(Sampler):
        if "timesteps" not in SCHEDULES_OF.get(sampler, ()):
            continue
        scheduler = make_scheduler("x", SDXL, sampler, "timesteps", times)
        scheduler.set_timesteps(4)
        visited = scheduler.timesteps.tolist()
        assert set(times) <= {round(time) for time in visited}
    (hyper,) = (make_scheduler("x", SDXL, "lcm", "timesteps", (800,)),)
    hyper.set_timesteps(1)
    assert hyper.timesteps.tolist() == [800]


def test_the_schedule_lcm_is_that_of_diffusers() -> None:
    for sampler in DISTILLED:
        theirs = getattr(diffusers, KINDS[sampler][0])()
        for steps in (1, 2, 3, 4, 7, 8, 25, 50):
            ours = sdxl_scheduler(sampler, "lcm")
            for scheduler in (theirs, ours):
                scheduler.set_timesteps(steps)
            assert ours.timesteps.tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("sampler", [one for one in SAMPLERS if "simple" in SCHEDULES_OF[one]])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 8, 30])
def test_simple_is_diffusers_trailing(sampler: Sampler, steps: int) -> None:
    scheduler = sdxl_scheduler(sampler, "simple")
    scheduler.set_timesteps(steps)
    theirs = diffusers.EulerDiscreteScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    visited = scheduler.timesteps.tolist()
    if scheduler.order == 2:
        visited = [visited[0], *visited[2::2]] if sampler == "dpmpp_sde" else [visited[0], *visited[1::2]]
    assert visited == theirs.timesteps.tolist()


@pytest.mark.parametrize("schedule", [one for one in SCHEDULES_OF["euler"] if one != "timesteps"])
def test_a_model_that_begins_at_pure_noise_is_begun_there(schedule: Schedule) -> None:
    facts = msgspec.structs.replace(SDXL, prediction="v_prediction", zero_terminal_snr=True)
    for steps in (1, 5):
        scheduler = make_scheduler("x", facts, "euler", schedule)
        scheduler.set_timesteps(steps)
        assert float(scheduler.sigmas[0]) == pytest.approx(4096, abs=0.1)
        assert scheduler.sigmas.diff().max() < 0


# --- noise ---------------------------------------------------------------------------------


NOISY: list[tuple[Sampler, float]] = [
    ("ddim", 0.7),
    *((name, 0.0) for name in ("ddpm", "euler_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "lcm")),
    ("tcd", 0.3),
]


def toy_latents(sampler: Sampler, eta: float, seeds: list[int]) -> torch.Tensor:
    """Six steps with a UNet that knows of nothing but the value of each latent."""
    scheduler = sdxl_scheduler(sampler)
    scheduler.set_timesteps(6)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = torch.cat([torch.randn((1, 4, 8, 8), generator=one) for one in generators])
    latents = latents * scheduler.init_noise_sigma
    options = {"eta": eta} if sampler in ("ddim", "tcd") else {}
    for step in scheduler.timesteps:
        seen = torch.sin(2 * scheduler.scale_model_input(latents, step))
        latents = scheduler.step(seen, step, latents, generator=generators, **options).prev_sample
    return latents


@pytest.mark.parametrize(("sampler", "eta"), NOISY)
def test_an_image_in_a_batch_has_the_noise_that_it_has_alone(sampler: Sampler, eta: float) -> None:
    batch = toy_latents(sampler, eta, [3, 5, 8, 13])
    for row, seed in enumerate((3, 5, 8, 13)):
        assert torch.equal(batch[row], toy_latents(sampler, eta, [seed])[0])


def test_which_samplers_draw_noise_in_their_steps() -> None:
    noisy = {name for name, eta in NOISY}
    for sampler in SAMPLERS:
        found = []
        for later in (1, 2):
            scheduler = sdxl_scheduler(sampler)
            scheduler.set_timesteps(4)
            latents = torch.ones(1, 4, 8, 8) * scheduler.init_noise_sigma
            generator = torch.Generator().manual_seed(later)
            options = {"eta": 0.5} if sampler in ("ddim", "tcd") else {}
            if "generator" in inspect.signature(scheduler.step).parameters:
                options["generator"] = generator
            for step in scheduler.timesteps:
                seen = scheduler.scale_model_input(latents, step)
                latents = scheduler.step(seen, step, latents, **options).prev_sample
            found.append(latents)
        assert torch.equal(*found) is (sampler not in noisy), sampler


TABLE_OF_LEVELS: dict[str, tuple[Sampler, Schedule]] = {
    "`leading` (Euler": ("euler", "leading"),
    "`leading` (DPM++ 2M": ("dpmpp_2m", "leading"),
    "`linspace`, `normal`": ("euler", "normal"),
    "`simple` (timesteps": ("euler", "simple"),
    "`sgm_uniform`": ("euler", "sgm_uniform"),
    "`karras`": ("euler", "karras"),
    "`exponential`": ("euler", "exponential"),
    "`beta`": ("euler", "beta"),
    "`ays` of SDXL": ("euler", "ays"),
}
"""How a row of docs/samplers.md begins -> what was measured."""


@pytest.mark.parametrize("row", TABLE_OF_LEVELS)
def test_the_noise_levels_in_the_documents_are_those_of_five_steps(row: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text("utf-8").partition("Measured here")[2]
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row}"))
    written = [float(number) for number in line.split("|")[2].split(",")]
    scheduler = sdxl_scheduler(*TABLE_OF_LEVELS[row])
    scheduler.set_timesteps(5)
    np.testing.assert_allclose(scheduler.sigmas[:5].numpy(), written, atol=6e-5)
