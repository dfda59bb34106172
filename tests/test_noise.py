"""The noise of an image depends on its seed alone: not on the order, the batch or the variant."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from fakes import make_run
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.pipeline import denoise as stages
from bench.records import Settings
from bench.suite import plan_images

SETTINGS = Settings(width=64, height=32, steps=2, guidance_scale=3.0, sampler="ddim", batch=4)
SUITE = make_run("", prompts=3, samples=3).info.suite


class Unet(torch.nn.Module):
    """Of no layers."""

    config, dtype, device = SimpleNamespace(in_channels=4), torch.float32, torch.device("cpu")


PIPE = SimpleNamespace(vae_scale_factor=8, device=torch.device("cpu"), unet=Unet())
SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6, unique=True)


@given(seeds=SEEDS, data=st.data())
@hypothesis_settings(max_examples=40, deadline=None)
def test_noise_depends_on_the_seed_alone(seeds, data):
    state = torch.get_rng_state()
    alone = {seed: stages.noise(PIPE, SETTINGS, [seed])[0] for seed in seeds}
    shuffled = data.draw(st.permutations(seeds))
    batch = stages.noise(PIPE, SETTINGS, shuffled)
    assert (batch.shape, batch.dtype) == ((len(seeds), 4, 4, 8), torch.float32)
    assert all(torch.equal(row, alone[seed]) for row, seed in zip(batch, shuffled, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


@given(seed=st.integers(0, 2**63 - 1))
@hypothesis_settings(max_examples=20, deadline=None)
def test_noise_is_what_diffusers_draws_from_such_a_generator(seed):
    from diffusers.utils.torch_utils import randn_tensor

    theirs = randn_tensor((1, 4, 4, 8), generator=[torch.Generator().manual_seed(seed)], dtype=torch.float32)
    assert torch.equal(stages.noise(PIPE, SETTINGS, [seed]), theirs)


def test_cells_of_a_suite_have_noise_of_their_own():
    noise = stages.noise(PIPE, SETTINGS, [cell.seed for cell in plan_images(SUITE)])
    assert len({row.numpy().tobytes() for row in noise}) == 9
    assert abs(float(noise.mean())) < 0.1
    assert 0.9 < float(noise.std()) < 1.1


def test_noise_of_the_steps_goes_on_where_the_first_noise_ended():
    drawn = []

    def pipe(*, generator, latents, **_):
        drawn.extend(torch.randn((1, 4, 4, 8), generator=one) for one in generator)
        return SimpleNamespace(images=latents)

    stand_in = type("Pipe", (), {**vars(PIPE), "__call__": staticmethod(pipe)})()
    seeds = [5, 2**62]
    encoded = stages.Encoded(torch.zeros(2, 1, 1), None, None, None)
    latents = stages.noise(stand_in, SETTINGS, seeds)
    assert torch.equal(stages.denoise(stand_in, SETTINGS, encoded, latents, seeds), latents)
    for seed, step in zip(seeds, drawn, strict=True):
        whole = torch.randn((2, 4, 4, 8), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(step[0], whole[1])
