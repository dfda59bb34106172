"""``render_over_floor``: what rendering costs beyond the arithmetic of the model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline
from bench.records import PlannedImage, Suite, Variant
from bench.render import render
from bench.store import RunFolder
from bench.suite import load_suite, plan_images, protocol_digest

from .figure import Figure, ratio_figure

REPEATS = 3


def figure_render() -> tuple[Figure, ...]:
    """Wall of ``render`` for the base variant over the bare loop on the same batches, 3 times in turns.

    ``render``'s side holds everything from an empty folder to the last PNG and journal line on the disk, the
    loading of the pipeline too. The floor holds the UNet's steps with guidance, the scheduler and the VAE's
    decoding, at the same dtype and batches; its text embeddings and noise lie ready. The first turn of each
    is not counted.
    """
    suite = load_suite("mini")
    variant = suite.variants[0]
    pipe = load_pipeline(variant, suite.settings, device="cpu", weights_dir=None)
    ready = [prepare(pipe, suite, images) for images in batches(suite)]
    pairs = [(render_s(suite, variant), floor_s(pipe, suite, ready)) for _ in range(REPEATS + 1)][1:]
    rendered, floor = zip(*pairs, strict=True)
    return (ratio_figure("render_over_floor", rendered, floor, "<=", 1.2),)


def render_s(suite: Suite, variant: Variant) -> float:
    """Wall seconds of rendering one variant into an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        with RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
            start = time.perf_counter()
            render(suite, folder, variants=[variant], device="cpu")
            return time.perf_counter() - start


def floor_s(pipe: Any, suite: Suite, ready: list[dict[str, torch.Tensor]]) -> float:
    """Wall seconds of the bare loop over all batches."""
    start = time.perf_counter()
    for inputs in ready:
        denoise_and_decode(pipe, suite, **inputs)
    return time.perf_counter() - start


def batches(suite: Suite) -> Iterator[tuple[PlannedImage, ...]]:
    """The planned batches of a variant."""
    images = plan_images(suite)
    for number in range(images[-1].batch + 1):
        yield tuple(planned for planned in images if planned.batch == number)


def prepare(pipe: Any, suite: Suite, images: tuple[PlannedImage, ...], device: str = "cpu") -> dict[str, torch.Tensor]:
    """What the loop starts from, on the device: noise, and the embeddings of negative and then positive prompts."""
    prompts = {prompt.id: prompt for prompt in suite.prompts}
    with torch.inference_mode():
        text, negative, pooled, negative_pooled = pipe.encode_prompt(
            prompt=[prompts[planned.prompt_id].text for planned in images],
            negative_prompt=[prompts[planned.prompt_id].negative for planned in images],
            do_classifier_free_guidance=True,
        )
        size = (suite.settings.height, suite.settings.width)
        noise = stages.noise(pipe, suite.settings, [planned.seed for planned in images])
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=text.dtype, device=device).repeat(2 * len(images), 1)
        return {
            "latents": noise.to(device, pipe.unet.dtype),
            "text": torch.cat([negative, text]),
            "pooled": torch.cat([negative_pooled, pooled]),
            "time_ids": time_ids,
        }


@torch.inference_mode()
def denoise_and_decode(
    pipe: Any,
    suite: Suite,
    *,
    latents: torch.Tensor,
    text: torch.Tensor,
    pooled: torch.Tensor,
    time_ids: torch.Tensor,
) -> torch.Tensor:
    """The loop that the model itself asks for, as its users write it; returns pixels (n, 3, H, W)."""
    settings = suite.settings
    pipe.scheduler.set_timesteps(settings.steps, device=latents.device)
    latents = latents * pipe.scheduler.init_noise_sigma
    conditions = {"text_embeds": pooled, "time_ids": time_ids}
    for step in pipe.scheduler.timesteps:
        doubled = pipe.scheduler.scale_model_input(torch.cat([latents, latents]), step)
        predicted = pipe.unet(doubled, step, encoder_hidden_states=text, added_cond_kwargs=conditions).sample
        without, given = predicted.chunk(2)
        guided = without + settings.guidance_scale * (given - without)
        latents = pipe.scheduler.step(guided, step, latents).prev_sample
    return decode(pipe, latents)


def decode(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents to pixels (n, 3, H, W), in the precision that ``bench.pipeline.denoise`` decodes in."""
    vae, own, wanted = pipe.vae, pipe.vae.dtype, stages.decode_dtype(pipe)
    if wanted != own:
        vae.to(wanted)
    pixels: torch.Tensor = vae.decode(latents.to(wanted) / vae.config.scaling_factor).sample
    if wanted != own:
        vae.to(own)
    return pixels
