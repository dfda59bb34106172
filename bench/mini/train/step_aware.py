"""Stage ``step_aware``: the preference model that scores any denoising step (SPO, arXiv 2406.04314).

It starts as the plain preference model, exactly. A pair of pictures gets the same t ~ U{0..999} and the same
noise; each is noised, the base network predicts eps with guidance, one step gives the predicted x0, the VAE
decodes it, and the model scores that at its t. Pairs are labelled by the plain preference model: a tie within
a gap of 0.1 in probability. Loss: two-way cross-entropy.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from bench.mini.networks import MiniClip, mini_clip_tokens
from bench.mini.train.clip import load_mini_clip, pixels
from bench.mini.train.data import pool
from bench.mini.train.diffusion import (
    add_noise,
    alphas_cumprod,
    load_text_encoders,
    load_unet,
    load_vae,
    predict_guided,
    predicted_x0,
)
from bench.mini.train.loop import Dice, Recipe, device, half, integers, normal, put, train
from bench.mini.train.preference import Pairs, pair_loss
from bench.mini.train.vae import POOL, pipeline_latents

RECIPE = Recipe(stage="step_aware", iterations=480, batch=48, learning_rate=2e-4, warmup=20, ema=0.98)
GUIDANCE = 3.0
TIE_GAP = 0.1
DECODED_AT_ONCE = 16
"""Pictures whose activations fit a CPU's cache."""


def start_from(plain: MiniClip, tokenizer: CLIPTokenizer) -> MiniClip:
    """A step-aware network that computes exactly what the plain one does."""
    aware = MiniClip(tokenizer, timestep=True)
    aware.load_state_dict(plain.state_dict(), strict=False)
    return aware


def load_decoder(folder: Path) -> AutoencoderKL:
    """The VAE of a saved pipeline, frozen; its channels last, since a CPU decodes faster so."""
    return load_vae(folder).to(memory_format=torch.channels_last)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures (n, 3, 64, 64) in [0, 1]."""
    with half():
        parts = [
            vae.decode(latents[start : start + DECODED_AT_ONCE]).sample.float()
            for start in range(0, len(latents), DECODED_AT_ONCE)
        ]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def labels(first: Tensor, second: Tensor) -> Tensor:
    """P(first is preferred) as the plain model sees it: 1, 0, or 0.5 for a tie."""
    gap = torch.sigmoid(first - second) * 2 - 1
    return torch.where(gap.abs() < TIE_GAP, 0.5, (gap > 0).float())


def run(work: Path) -> None:
    """Train the stage, or go on with it, and save ``step-aware.safetensors``."""
    torch.manual_seed(RECIPE.seed)
    plain, tokenizer = load_mini_clip(work, "mini-preference")
    aware = start_from(plain, tokenizer).eval()  # its batch norms stay as they are
    aware.text.requires_grad_(False)
    aware.logit_scale.requires_grad_(False)
    folder = work / "pipeline"
    vae = load_decoder(folder)
    unet, encoders, alphas = load_unet(folder), load_text_encoders(folder), alphas_cumprod()
    pairs = Pairs(pool(work, "train", POOL))
    z = pipeline_latents(work, vae, pairs.source)

    @torch.no_grad()
    def look(latents: Tensor, noise: Tensor, t: Tensor, captions: list[str]) -> Tensor:
        states, pooled = encoders(encoders.tokens(captions))
        x = add_noise(latents, noise, t, alphas)
        return decode(vae, predicted_x0(x, predict_guided(unet, x, t, states, pooled, GUIDANCE), t, alphas))

    def step(iteration: int, dice: Dice) -> Tensor:
        first, second, _, captions = pairs.draw(dice, RECIPE.batch)
        t = integers(1000, RECIPE.batch, dice.torch)
        noise = normal((RECIPE.batch, *z.shape[1:]), dice.torch)
        text = plain.embed_tokens(put(mini_clip_tokens(tokenizer, captions)))
        wins = labels(*(plain.score(pixels(pairs.source, index), text) for index in (first, second)))
        both = torch.cat([z[first], z[second]]).float()
        seen = look(both, noise.repeat(2, 1, 1, 1), t.repeat(2), captions * 2)
        with half():
            embeds = aware.embed_images(seen, t.repeat(2))
        one, two = (aware.logit_scale.exp() * (embeds.float() * text.repeat(2, 1)).sum(-1)).chunk(2)
        return pair_loss(one, two, wins)

    chosen = [parameter for parameter in aware.parameters() if parameter.requires_grad]
    train(RECIPE, {"network": aware}, step, work, parameters=chosen, log_every=10)
    save_file(aware.state_dict(), work / "step-aware.safetensors")


def load(work: Path) -> MiniClip:
    """The trained step-aware model, frozen."""
    _, tokenizer = load_mini_clip(work, "mini-preference")
    network = MiniClip(tokenizer, timestep=True)
    network.load_state_dict(load_file(work / "step-aware.safetensors"))
    return network.requires_grad_(False).eval().to(device())
