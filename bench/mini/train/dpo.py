"""Stage ``dpo``: a LoRA by the Diffusion-DPO loss (arXiv 2311.12908) on preference pairs.

L = -log sigmoid(-beta/2 [(|e - e_p(x_t^w)|^2 - |e - e_r(x_t^w)|^2) - (|e - e_p(x_t^l)|^2 - |e - e_r(x_t^l)|^2)]),
squared norms averaged over channels and places, the same noise and t for both, the mean over the batch after
the log-sigmoid. Pairs are two pictures of one content; noisy people chose, near ties are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.mini.train import base, lora
from bench.mini.train import vae as vae_stage
from bench.mini.train.data import pool
from bench.mini.train.diffusion import add_noise, alphas_cumprod, load_text_encoders, load_unet, load_vae, predict
from bench.mini.train.loop import Dice, Recipe, reseeded, train
from bench.mini.train.place import integers, normal
from bench.mini.train.preference import Pairs

RECIPE = Recipe(stage="dpo", iterations=640, batch=64, learning_rate=1e-3, warmup=20, weight_decay=0.0)
BETA = 2000.0
TIE = 0.08
"""Pairs whose beauty differs by less are left out, as Pick-a-Pic's ties are."""


def loss(errors_policy: Tensor, errors_reference: Tensor) -> Tensor:
    """The DPO loss from mean squared errors (2 n,): winners first, then losers."""
    gained = errors_policy - errors_reference
    win, lose = gained.chunk(2)
    return -functional.logsigmoid(-0.5 * BETA * (win - lose)).mean()


def draw_pairs(pairs: Pairs, dice: Dice, n: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Winner, loser and caption of n pairs."""
    first, second, probability, captions = pairs.draw(dice, 3 * n)
    chosen = dice.numpy.random(3 * n) < probability
    winner, loser = np.where(chosen, first, second), np.where(chosen, second, first)
    clear = np.flatnonzero(np.abs(pairs.beauty[first] - pairs.beauty[second]) >= TIE)[:n]
    return winner[clear], loser[clear], [captions[index] for index in clear]


def run(work: Path, seed: int = 0) -> None:
    """Train the stage, or go on with it, and save ``dpo.safetensors`` (``dpo-seed1.safetensors`` with seed 1)."""
    recipe = reseeded(RECIPE, seed)
    folder = work / "pipeline"
    vae = load_vae(folder)
    unet, encoders, alphas = load_unet(folder), load_text_encoders(folder), alphas_cumprod()
    pairs = Pairs(pool(work, "train", vae_stage.POOL))
    z = base.pipeline_latents(work, vae, pairs.source)
    parameters = lora.add(unet, recipe.seed)

    def step(iteration: int, dice: Dice) -> Tensor:
        winner, loser, captions = draw_pairs(pairs, dice, RECIPE.batch)
        n = len(winner)
        t = integers(1000, n, dice.torch).repeat(2)
        noise = normal((n, *z.shape[1:]), dice.torch).repeat(2, 1, 1, 1)
        with torch.no_grad():
            states, pooled = encoders(encoders.tokens(captions))
            states, pooled = states.repeat(2, 1, 1), pooled.repeat(2, 1)
        x = add_noise(torch.cat([z[winner], z[loser]]).float(), noise, t, alphas)
        unet.disable_adapters()
        with torch.no_grad():
            reference = (predict(unet, x, t, states, pooled) - noise).square().mean((1, 2, 3))
        unet.enable_adapters()
        policy = (predict(unet, x, t, states, pooled) - noise).square().mean((1, 2, 3))
        return loss(policy, reference)

    train(recipe, {"lora": lora.Trained(unet)}, step, work, parameters=parameters, log_every=10)
    lora.save(unet, work, recipe.stage)
