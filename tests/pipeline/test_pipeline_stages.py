"""The stages of drawing against the same thing written by hand over the networks, and against diffusers' own call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from figures.card_edges import allocated_peak
from on_device import Card, Copy, on_device
from torch import Tensor

from bench.mini import models
from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline
from bench.records import Settings, Variant

PROMPTS = ["a red tent by the sea at dawn", "close studio portrait, long red hair"]
SEEDS = [7, 2**40 + 1]


def denoised(pipe: Any, settings: Settings, prompts: list[str], seeds: list[int]) -> Tensor:
    encoded = stages.encode(pipe, prompts, [""] * len(prompts), settings)
    return stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, seeds), seeds)


# --- encode --------------------------------------------------------------------------------


def by_hand(pipe: Any, prompt: str) -> tuple[Tensor, Tensor]:
    """SDXL's conditioning: penultimate states of both text encoders side by side, and the second's pooled text."""
    ids = torch.tensor([pipe.tokenizer(prompt, padding="max_length", max_length=24, truncation=True).input_ids])
    with torch.no_grad():
        one = pipe.text_encoder(ids, output_hidden_states=True)
        two = pipe.text_encoder_2(ids, output_hidden_states=True)
    return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds


def test_encoded_prompts_are_the_penultimate_states_of_both_encoders(mini_pipe: Any, settings: Settings) -> None:
    encoded = stages.encode(mini_pipe, PROMPTS, ["", "blurry"], settings)
    for row, prompt in enumerate(PROMPTS):
        states, pooled = by_hand(mini_pipe, prompt)
        torch.testing.assert_close(encoded.prompt[row : row + 1], states)
        torch.testing.assert_close(encoded.pooled[row : row + 1], pooled)  # type: ignore[index]
    states, pooled = by_hand(mini_pipe, "blurry")
    torch.testing.assert_close(encoded.negative[1:], states)  # type: ignore[index]
    torch.testing.assert_close(encoded.negative_pooled[1:], pooled)  # type: ignore[index]


def test_encoded_prompts_are_those_of_diffusers_to_the_last_bit(mini_pipe: Any, settings: Settings) -> None:
    encoded = stages.encode(mini_pipe, PROMPTS, ["", "blurry"], settings)
    for row, negative in enumerate([None, "blurry"]):
        with torch.inference_mode():
            expected = mini_pipe.encode_prompt(PROMPTS[row], negative_prompt=negative, do_classifier_free_guidance=True)
        found = (encoded.prompt, encoded.negative, encoded.pooled, encoded.negative_pooled)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours[row : row + 1], theirs)  # type: ignore[index]


def test_empty_negative_is_the_zero_embedding(mini_pipe: Any, settings: Settings) -> None:
    encoded = stages.encode(mini_pipe, PROMPTS, ["", ""], settings)
    assert encoded.prompt.shape == (2, 24, 192)
    assert encoded.pooled is not None
    assert encoded.pooled.shape == (2, 128)
    assert encoded.negative is not None
    assert encoded.negative_pooled is not None
    assert encoded.negative.shape == encoded.prompt.shape
    assert not encoded.negative.any()
    assert not encoded.negative_pooled.any()


def test_without_guidance_there_is_no_negative(mini_pipe: Any, settings: Settings) -> None:
    plain = msgspec.structs.replace(settings, guidance_scale=1.0)
    encoded = stages.encode(mini_pipe, PROMPTS, ["", ""], plain)
    assert encoded.negative is None
    assert encoded.negative_pooled is None


def test_an_encoding_is_the_same_alone_and_in_a_batch(mini_pipe: Any, settings: Settings) -> None:
    both = stages.encode(mini_pipe, PROMPTS, ["", ""], settings)
    alone = stages.stack([stages.encode(mini_pipe, [prompt], [""], settings) for prompt in PROMPTS])
    for name in ("prompt", "negative", "pooled", "negative_pooled"):
        assert torch.equal(getattr(both, name), getattr(alone, name))


# --- noise ---------------------------------------------------------------------------------


def test_noise_is_each_seeds_own_generator(mini_pipe: Any, settings: Settings) -> None:
    noise = stages.noise(mini_pipe, settings, SEEDS)
    assert (noise.shape, noise.dtype) == ((2, 16, 8, 8), torch.float32)
    for row, seed in enumerate(SEEDS):
        own = torch.randn(1, 16, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
        assert torch.equal(noise[row : row + 1], own)


def test_latents_follow_the_size_of_the_picture(mini_pipe: Any, settings: Settings) -> None:
    wide = msgspec.structs.replace(settings, width=128, height=96)
    assert stages.latent_shape(mini_pipe, wide) == (16, 12, 16)


# --- denoise -------------------------------------------------------------------------------


def ddim_by_hand(pipe: Any, settings: Settings, latents: Tensor, seeds: list[int], eta: float) -> Tensor:
    """DDIM (arXiv 2010.02502, eq. 12) with classifier-free guidance, over nothing but the UNet."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = torch.cumprod(1 - betas, 0)
    stride = 1000 // settings.steps
    times = [1 + stride * step for step in reversed(range(settings.steps))]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(1, 16, 8, 8, generator=generator)  # the initial noise comes first
    encoded = [by_hand(pipe, prompt) for prompt in PROMPTS]
    states, pooled = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).repeat(len(latents), 1)
    x = latents
    for t in times:
        with torch.no_grad():
            empty, conditional = (
                pipe.unet(x, t, s, added_cond_kwargs={"text_embeds": p, "time_ids": ids}).sample
                for s, p in ((torch.zeros_like(states), torch.zeros_like(pooled)), (states, pooled))
            )
        eps = empty + settings.guidance_scale * (conditional - empty)
        now, then = a[t], a[max(t - stride, 0)]
        x0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
        sigma = eta * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
        x = then.sqrt() * x0 + (1 - then - sigma**2).sqrt() * eps
        if eta:
            x = x + sigma * torch.cat([torch.randn(1, 16, 8, 8, generator=generator) for generator in generators])
        x = x.float()
    return x


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_denoising_is_ddim_with_guidance_written_by_hand(mini_pipe: Any, settings: Settings, eta: float) -> None:
    changed = msgspec.structs.replace(settings, eta=eta)
    found = denoised(mini_pipe, changed, PROMPTS, SEEDS)
    expected = ddim_by_hand(mini_pipe, changed, stages.noise(mini_pipe, changed, SEEDS), SEEDS, eta)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_step_is_told_once_in_order(mini_pipe: Any, settings: Settings) -> None:
    steps: list[int] = []
    encoded = stages.encode(mini_pipe, PROMPTS, ["", ""], settings)
    noise = stages.noise(mini_pipe, settings, SEEDS)
    told = stages.denoise(mini_pipe, settings, encoded, noise, SEEDS, on_step=steps.append)
    assert steps == [0, 1, 2]
    assert torch.equal(told, denoised(mini_pipe, settings, PROMPTS, SEEDS))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_of_a_batch_is_close_to_the_image_alone(mini_pipe: Any, settings: Settings, eta: float) -> None:
    changed = msgspec.structs.replace(settings, eta=eta)
    both = denoised(mini_pipe, changed, PROMPTS, SEEDS)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = denoised(mini_pipe, changed, [prompt], [seed])
        torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-4)


# --- decode --------------------------------------------------------------------------------


def test_decoding_gives_the_pictures_of_diffusers_own_call(mini_pipe: Any, settings: Settings) -> None:
    expected = mini_pipe(
        prompt=PROMPTS,
        latents=stages.noise(mini_pipe, settings, SEEDS),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        width=64,
        height=64,
        output_type="np",
    ).images
    found = stages.decode(mini_pipe, denoised(mini_pipe, settings, PROMPTS, SEEDS))
    assert (found.shape, found.dtype) == ((2, 64, 64, 3), np.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_latents_that_are_not_numbers_stay_so(mini_pipe: Any, settings: Settings) -> None:
    latents = stages.noise(mini_pipe, settings, SEEDS)
    latents[1] = float("nan")
    pixels = stages.decode(mini_pipe, latents)
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1]).all()


def overflowing(value: float) -> Any:
    """A pipeline whose VAE gives one value that is no number, or too large for one."""

    class Overflowing:
        dtype = torch.float32
        config = SimpleNamespace(scaling_factor=1.0, force_upcast=False)

        def decode(self, z: Tensor, return_dict: bool) -> tuple[Tensor]:
            image = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0, 0.5]).repeat(2, 3, 2, 1)
            image[1, 0, 1, 2] = value
            return (image,)

    return SimpleNamespace(vae=Overflowing())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_counted_before_they_are_cut_off(value: float) -> None:
    decoded = stages.decode_levels(overflowing(value), torch.zeros(2, 4, 1, 1))
    decoded.wait()
    assert decoded.bad_values.tolist() == [0, 1]
    assert decoded.levels[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 191]


class Stream:
    """Stands for a GPU's queue: what is put into it is done when the host waits, not before."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def event(self, blocking: bool) -> Any:
        assert blocking, "or the host would burn a core while it waits"
        return SimpleNamespace(record=self._record, synchronize=lambda: self.log.append("wait"))

    def _record(self, stream: Any) -> None:
        assert stream == "the stream of cuda:1", "another device's stream has nothing to do with the copy"
        self.log.append("record")


class OnCard(torch.Tensor):
    """A tensor that says it lies on the second of two GPUs."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:1")


def test_on_cuda_a_batch_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, real, empty = Stream(), torch.Tensor.copy_, torch.empty
    pinned: list[Tensor] = []

    def copy_(host: Tensor, other: Tensor, non_blocking: bool = False) -> Tensor:
        assert any(host is one for one in pinned)
        assert non_blocking
        stream.log.append("copy")
        return real(host, other.as_subclass(torch.Tensor))

    def pin(shape: Any, *, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        assert pin_memory
        pinned.append(empty(shape, dtype=dtype))
        return pinned[-1]

    pixels = torch.rand(2, 2, 6, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(stages, "decode_pixels", lambda *_: pixels.as_subclass(OnCard))
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch, "empty", pin)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    decoded = stages.decode_levels(SimpleNamespace(vae=None), torch.zeros(2, 4, 1, 1), torch.float16)
    assert stream.log == ["copy", "copy", "record"]
    decoded.wait()
    assert stream.log[-1] == "wait"
    assert torch.equal(torch.Tensor(decoded.levels), (pixels * 255).round().to(torch.uint8))
    assert decoded.dtype == "float16"


def test_decoding_in_another_dtype_gives_the_vae_back_as_it_was(mini_pipe: Any, settings: Settings) -> None:
    latents = stages.noise(mini_pipe, settings, SEEDS[:1])
    before = {key: value.clone() for key, value in mini_pipe.vae.state_dict().items()}
    double = stages.decode(mini_pipe, latents, torch.float64)
    assert mini_pipe.vae.dtype == torch.float32
    assert all(torch.equal(value, before[key]) for key, value in mini_pipe.vae.state_dict().items())
    np.testing.assert_allclose(double, stages.decode(mini_pipe, latents), atol=1e-4)


@pytest.mark.parametrize(
    ("own", "overflows", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float32, True, torch.float32),
    ],
)
def test_vae_that_overflows_in_half_precision_decodes_in_float32(
    own: torch.dtype, overflows: bool, expected: torch.dtype
) -> None:
    pipe = SimpleNamespace(vae=SimpleNamespace(dtype=own, config=SimpleNamespace(force_upcast=overflows)))
    assert stages.decode_dtype(pipe) is expected


def test_decoding_one_by_one_gives_each_image_alone_in_the_memory_of_one(settings: Settings) -> None:
    sliced = msgspec.structs.replace(settings, vae_slicing=True)
    alone, together = (load_pipeline(Variant(name="x", checkpoint="mini"), s, device="cpu") for s in (sliced, settings))
    latents = stages.noise(alone, settings, [1, 2, 3, 4])
    found = stages.decode(alone, latents)
    for row in range(4):
        assert (found[row] == stages.decode(alone, latents[row : row + 1])[0]).all(), "equal bits, whatever its mates"
    one = allocated_peak("cpu", lambda: stages.decode(alone, latents[:1]))
    assert allocated_peak("cpu", lambda: stages.decode(together, latents)) > 3.5 * one
    assert allocated_peak("cpu", lambda: stages.decode(alone, latents)) < 1.1 * one, "one, and the pixels of the others"


def test_means_and_deviations_of_a_vae_are_undone() -> None:
    class ObjectStoreSync:
        dtype = torch.float32
        config = SimpleNamespace(
            scaling_factor=0.5, latents_mean=[1.0, -1.0, 0.0], latents_std=[1.0, 2.0, 4.0], force_upcast=False
        )

        def decode(self, z: Tensor, return_dict: bool) -> tuple[Tensor]:
            return (z / 100,)

    latents = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = stages.decode(SimpleNamespace(vae=ObjectStoreSync()), latents)
    for channel, (mean, std) in enumerate(((1.0, 1.0), (-1.0, 2.0), (0.0, 4.0))):
        z = latents[0, channel].numpy() * std / 0.5 + mean
        np.testing.assert_allclose(found[0, ..., channel], z / 200 + 0.5, rtol=1e-6)
    with Card() as card:
        on_card = stages.decode_pixels(SimpleNamespace(vae=ObjectStoreSync()), on_device(latents))
    assert card.copies == [Copy(3, waited=False)] * 2, "the host does not wait until they are copied"
    np.testing.assert_array_equal(torch.Tensor(on_card).clamp(0, 1).numpy(), found)


def test_rounding_to_8_bits_is_that_of_diffusers() -> None:
    pixels = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    pixels.flat[:4] = 0.0, 1.0, 0.5, 127.5 / 255
    expected = np.asarray(VaeImageProcessor.numpy_to_pil(pixels)[0])
    np.testing.assert_array_equal(stages.to_uint8(pixels)[0], expected)


# --- the older family ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd15_folder(mini_pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline of the mini pipeline's VAE and first text encoder, with an untrained UNet."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=models.TEXT_WIDTHS[0],
        attention_head_dim=2,
        norm_num_groups=4,
    )
    pipe = StableDiffusionPipeline(
        vae=mini_pipe.vae,
        text_encoder=mini_pipe.text_encoder,
        tokenizer=mini_pipe.tokenizer,
        unet=unet,
        scheduler=models.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("sd15")
    pipe.save_pretrained(folder)
    return folder


def test_pipeline_with_one_text_encoder_goes_the_same_way(sd15_folder: Path, settings: Settings) -> None:
    pipe = load_pipeline(Variant(name="sd15", checkpoint=str(sd15_folder)), settings, device="cpu")
    encoded = stages.encode(pipe, PROMPTS, ["", "blurry"], settings)
    assert (encoded.prompt.shape, encoded.pooled, encoded.negative_pooled) == ((2, 24, 64), None, None)
    noise = stages.noise(pipe, settings, SEEDS)
    latents = stages.denoise(pipe, settings, encoded, noise, SEEDS)
    expected = pipe(
        prompt=PROMPTS,
        negative_prompt=["", "blurry"],
        latents=noise,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        width=64,
        height=64,
        output_type="np",
    ).images
    np.testing.assert_allclose(stages.decode(pipe, latents), expected, atol=1e-4)
