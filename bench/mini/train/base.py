"""Stages ``base`` and ``base-refine``: the UNet and both text encoders, on the whole range of craft.

``base-refine`` is a warm restart of the same training, from the weights that ``base`` left in ``work/pipeline``.

Loss: eps, MSE, weighted by min(SNR, 5) / SNR (arXiv 2303.09556); one caption in ten is replaced by the
zero embedding, which is what SDXL uses for an empty prompt.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from bench.mini import models
from bench.mini.train.data import Pool, pool
from bench.mini.train.diffusion import (
    TextEncoders,
    add_noise,
    alphas_cumprod,
    load_text_encoders,
    load_unet,
    load_vae,
    predict,
)
from bench.mini.train.loop import Dice, Recipe, device, half, integers, normal, put, round_to_half, train
from bench.mini.train.vae import POOL, latents, pipeline_latents

RECIPE = Recipe(stage="base", iterations=3200, batch=64, learning_rate=1e-3, warmup=100, ema=0.998)
REFINE = Recipe(stage="base-refine", iterations=2400, batch=64, learning_rate=6e-4, warmup=100, ema=0.998)
SNR_CAP = 5.0
EMPTY_SHARE = 0.1


def all_tokens(encoders: TextEncoders, source: Pool) -> Tensor:
    """Token ids of each scene's three captions, int64 (3, n, 24)."""
    return torch.stack(
        [encoders.tokens([source.caption(index, template) for index in range(len(source))]) for template in range(3)]
    )


def run(work: Path) -> None:
    """Train stage ``base``, or go on with it, and save the pipeline, rounded to float16, to ``work/pipeline``."""
    torch.manual_seed(RECIPE.seed)
    vae = AutoencoderKL.from_pretrained(work / "vae").eval().to(device())
    source = pool(work, "train", POOL)
    z = latents(work / "latents.npy", vae, source)
    tokenizer = models.write_tokenizer(work / "tokenizer")
    unet = models.build_unet()
    encoders = TextEncoders(*models.build_text_encoders(tokenizer), tokenizer)
    optimise(RECIPE, unet, encoders, source, z, work)
    save(vae, unet, encoders, work)


def refine(work: Path) -> None:
    """Train stage ``base-refine``, or go on with it, and save the pipeline, rounded to float16, over the old one."""
    folder = work / "pipeline"
    vae = load_vae(folder)
    source = pool(work, "train", POOL)
    z = pipeline_latents(work, vae, source)
    unet, encoders = load_unet(folder), load_text_encoders(folder)
    for module in (unet, encoders.first, encoders.second):
        module.requires_grad_(True)
    optimise(REFINE, unet, encoders, source, z, work)
    save(vae, unet, encoders, work)


def optimise(
    recipe: Recipe, unet: UNet2DConditionModel, encoders: TextEncoders, source: Pool, z: Tensor, work: Path
) -> None:
    """Train UNet and text encoders on the latents ``z`` (n, 16, 8, 8) of the pool ``source``."""
    tokens, alphas = all_tokens(encoders, source), alphas_cumprod()
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=SNR_CAP) / snr

    def step(iteration: int, dice: Dice) -> Tensor:
        index = put(dice.numpy.integers(len(z), size=recipe.batch))
        template = put(dice.numpy.integers(3, size=recipe.batch))
        t = integers(1000, recipe.batch, dice.torch)
        noise = normal(z[index].shape, dice.torch)
        keep = put(dice.numpy.random(recipe.batch) >= EMPTY_SHARE).float()
        with half():
            states, pooled = encoders(tokens[template, index])
        states, pooled = states.float() * keep.view(-1, 1, 1), pooled.float() * keep.view(-1, 1)
        eps = predict(unet, add_noise(z[index].float(), noise, t, alphas), t, states, pooled)
        return (weight[t] * (eps - noise).square().mean((1, 2, 3))).mean()

    modules = {"unet": unet, "text_encoder": encoders.first, "text_encoder_2": encoders.second}
    train(recipe, modules, step, work)


def save(vae: AutoencoderKL, unet: UNet2DConditionModel, encoders: TextEncoders, work: Path) -> None:
    """Round the parts to float16 and save them as ``work/pipeline``."""
    round_to_half(vae, unet, encoders.first, encoders.second)
    pipeline = models.build_pipeline(vae, unet, (encoders.first, encoders.second), encoders.tokenizer)
    pipeline.save_pretrained(work / "pipeline")
