"""Stage ``decoder``: the VAE's decoder alone, once the base is trained on the encoder's latents.

Loss: L1 + 20 MSE, from the latents to the pictures. The encoder stays as it is, so the base and the LoRAs hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from torch import Tensor

from bench.mini.train import base
from bench.mini.train import vae as vae_stage
from bench.mini.train.data import pool
from bench.mini.train.diffusion import load_vae
from bench.mini.train.loop import Dice, Recipe, half, round_to_half, train

RECIPE = Recipe(stage="decoder", iterations=2400, batch=32, learning_rate=8e-4, warmup=50, weight_decay=0.0, ema=0.995)
MSE_WEIGHT = 20.0


def loss(vae: AutoencoderKL, z: Tensor, x: Tensor) -> Tensor:
    """Error of the pictures decoded from latents (n, 16, 8, 8) against x (n, 3, 64, 64) in [-1, 1]."""
    with half():
        y = vae.decode(z).sample
    error = y.float() - x
    total: Tensor = error.abs().mean() + MSE_WEIGHT * error.square().mean()
    return total


def run(work: Path) -> None:
    """Train the stage, or go on with it, and save the VAE, rounded to float16, into ``work/pipeline``."""
    vae = load_vae(work / "pipeline")
    source = pool(work, "train", vae_stage.POOL)
    z = base.pipeline_latents(work, vae, source)
    chosen = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)

    def step(iteration: int, dice: Dice) -> Tensor:
        index = np.sort(dice.numpy.integers(len(source), size=RECIPE.batch))
        return loss(vae, z[index].float(), vae_stage.images(source, index))

    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    train(RECIPE, modules, step, work, parameters=chosen)
    round_to_half(vae)
    vae.save_pretrained(work / "pipeline" / "vae")
