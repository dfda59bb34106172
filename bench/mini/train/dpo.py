"""Stage ``dpo``: a LoRA by the Diffusion-DPO loss (arXiv 2311.12908) on preference pairs.

L = -log sigmoid(-beta/2 [(|e - e_p(x_t^w)|^2 - |e - e_r(x_t^w)|^2) - (|e - e_p(x_t^l)|^2 - |e - e_r(x_t^l)|^2)]),
squared norms averaged over channels and places, the same noise and t for both, the mean over the batch after
the log-sigmoid. Pairs are two pictures of one content; noisy people chose, near ties are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional

from bench.mini.train.data import pool
from bench.mini.train.diffusion import add_noise, alphas_cumprod, load_text_encoders, load_unet, load_vae, predict
from bench.mini.train.loop import Dice, Recipe, integers, normal, reseeded, train
from bench.mini.train.preference import Pairs
from bench.mini.train.vae import POOL, pipeline_latents

RECIPE = Recipe(stage="dpo", iterations=640, batch=64, learning_rate=1e-3, warmup=20, weight_decay=0.0)
BETA = 2000.0
TIE = 0.08
"""Pairs whose beauty differs by less are left out, as Pick-a-Pic's ties are."""
RANK = 8
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


# --- a LoRA on the UNet's attention, in the layout of diffusers and PEFT -------------------


def add_lora(unet: UNet2DConditionModel, seed: int) -> list[nn.Parameter]:
    """Add an untrained LoRA (alpha = rank) and return its parameters; it changes nothing yet."""
    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=list(TARGETS)))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


class LoraParameters(nn.Module):
    """The LoRA's parameters alone, for a checkpoint."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        named = {name.replace(".", "/"): p for name, p in unet.named_parameters() if p.requires_grad}
        self.parts = nn.ParameterDict(named)


def save_lora(unet: UNet2DConditionModel, folder: Path, name: str) -> None:
    """Write ``<name>.safetensors`` in the diffusers/PEFT layout (``unet.<module>.lora_A.weight``), float16."""
    half = {key: value.half().contiguous() for key, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=half, weight_name=f"{name}.safetensors")


# --- the stage -----------------------------------------------------------------------------


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
    clear = np.flatnonzero(np.abs(pairs.liked[first] - pairs.liked[second]) >= TIE)[:n]
    return winner[clear], loser[clear], [captions[index] for index in clear]


def run(work: Path, seed: int = 0) -> None:
    """Train the stage, or go on with it, and save ``dpo.safetensors`` (``dpo-seed1.safetensors`` with seed 1)."""
    recipe = reseeded(RECIPE, seed)
    folder = work / "pipeline"
    vae = load_vae(folder)
    unet, encoders, alphas = load_unet(folder), load_text_encoders(folder), alphas_cumprod()
    pairs = Pairs(pool(work, "train", POOL))
    z = pipeline_latents(work, vae, pairs.source)
    parameters = add_lora(unet, recipe.seed)

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

    train(recipe, {"lora": LoraParameters(unet)}, step, work, parameters=parameters, log_every=10)
    save_lora(unet, work, recipe.stage)
