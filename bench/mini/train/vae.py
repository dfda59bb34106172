"""Stages ``vae`` and ``decoder``: the autoencoder, and later its decoder alone.

``vae``: L1 + 2 MSE (8 in the second half) + 0.5 L1 of the horizontal and vertical differences + 1e-6 KL.
Afterwards the latents are standardised per channel, which is folded into the two 1x1 convolutions, so
``scaling_factor`` is 1.

``decoder``, once the base is trained on the encoder's latents: L1 + 20 MSE, from the latents to the pictures. The
encoder stays as it is, so the base and the LoRAs stay valid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from bench.mini import models
from bench.mini.train.data import Pool, pool
from bench.mini.train.diffusion import load_vae
from bench.mini.train.loop import Dice, Recipe, half, normal, put, round_to_half, train

RECIPE = Recipe(stage="vae", iterations=2200, batch=32, learning_rate=2e-3, warmup=100, ema=0.995)
REFINE = Recipe(stage="vae-refine", iterations=1300, batch=32, learning_rate=6e-4, warmup=20, ema=0.995)
"""A warm restart: the same loss with more weight on the squared error."""
MSE_WEIGHT = {"vae": 2.0, "vae-refine": 8.0}
DECODER = Recipe(stage="decoder", iterations=2400, batch=32, learning_rate=8e-4, warmup=50, weight_decay=0.0, ema=0.995)
DECODER_MSE_WEIGHT = 20.0
POOL = 32 * 1024


def images(source: Pool, index: np.ndarray) -> Tensor:
    """Pictures of a pool as float32 (n, 3, 64, 64) in [-1, 1], the range of diffusers."""
    return put(source.images[np.sort(index)]).float() / 127.5 - 1


def loss(vae: AutoencoderKL, x: Tensor, dice: Dice, mse_weight: float) -> Tensor:
    """Reconstruction and KL loss of a batch (n, 3, 64, 64) in [-1, 1]."""
    with half():
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * normal(posterior.mean.shape, dice.torch)
        y = vae.decode(z).sample
    y, error = y.float(), y.float() - x
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().sum((1, 2, 3)).mean()
    total: Tensor = error.abs().mean() + mse_weight * error.square().mean() + 0.5 * edges + 1e-6 * kl
    return total


@torch.no_grad()
def encode(vae: AutoencoderKL, source: Pool, chunk: int = 256) -> Tensor:
    """Posterior means of a whole pool, float16 (n, 16, 8, 8)."""
    parts = []
    for start in range(0, len(source), chunk):
        x = images(source, np.arange(start, min(start + chunk, len(source))))
        with half():
            parts.append(vae.encode(x).latent_dist.mean.half())
    return torch.cat(parts)


@torch.no_grad()
def standardise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Fold (z - mean) / std per channel into ``quant_conv`` and its inverse into ``post_quant_conv``."""
    latents = latents.float()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std.view(1, -1, 1, 1)


def run(work: Path) -> AutoencoderKL:
    """Train the stage, or go on with it, and return the standardised VAE."""
    torch.manual_seed(RECIPE.seed)
    vae = models.build_vae()
    source = pool(work, "train", POOL)

    for recipe in (RECIPE, REFINE):

        def step(iteration: int, dice: Dice, recipe: Recipe = recipe) -> Tensor:
            x = images(source, dice.numpy.integers(len(source), size=recipe.batch))
            return loss(vae, x, dice, MSE_WEIGHT[recipe.stage])

        train(recipe, {"vae": vae}, step, work)
    vae.eval()
    standardise(vae, encode(vae, pool(work, "train", 4096)))
    vae.save_pretrained(work / "vae")
    return vae


def latents(path: Path, vae: AutoencoderKL, source: Pool) -> Tensor:
    """Latents of a pool, float16 (n, 16, 8, 8), encoded once and kept in the file ``path``."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        np.save(partial, encode(vae, source).numpy())
        partial.replace(path)
    return put(np.load(path))


def pipeline_latents(work: Path, vae: AutoencoderKL, source: Pool) -> Tensor:
    """Latents of the training pool by the pipeline's rounded encoder, float16 (n, 16, 8, 8)."""
    return latents(work / "pipeline-latents.npy", vae, source)


# --- the decoder alone ---------------------------------------------------------------------


def decoder_loss(vae: AutoencoderKL, z: Tensor, x: Tensor) -> Tensor:
    """Error of the pictures decoded from latents (n, 16, 8, 8) against x (n, 3, 64, 64) in [-1, 1]."""
    with half():
        y = vae.decode(z).sample
    error = y.float() - x
    total: Tensor = error.abs().mean() + DECODER_MSE_WEIGHT * error.square().mean()
    return total


def run_decoder(work: Path) -> None:
    """Train the stage, or go on with it, and save the VAE, rounded to float16, into ``work/pipeline``."""
    vae = load_vae(work / "pipeline")
    source = pool(work, "train", POOL)
    z = pipeline_latents(work, vae, source)
    chosen = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)

    def step(iteration: int, dice: Dice) -> Tensor:
        index = np.sort(dice.numpy.integers(len(source), size=DECODER.batch))
        return decoder_loss(vae, z[index].float(), images(source, index))

    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    train(DECODER, modules, step, work, parameters=chosen)
    round_to_half(vae)
    vae.save_pretrained(work / "pipeline" / "vae")
