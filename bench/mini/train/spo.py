"""Stage ``spo``: a LoRA by Step-aware Preference Optimization (arXiv 2406.04314, RockeyCoss/SPO).

**Resampler.** DDIM, 20 steps, eta 1, guidance 3. The first 4 steps run plainly. From then on k candidates of
x_{t-1} are drawn from one x_t (same mean, k noises); the step-aware model scores each on its predicted x0 at
its own t. The best and the worst are kept as a pair when the softmax over the two differs by more than 0.3.
Sampling goes on from a random candidate.

**Loss.** With log p the Gaussian log-density of the step, averaged over channels and places, of the guided
policy and of the guided frozen base: r = clip(exp(log p_policy - log p_reference), 0.9, 1.1) for winner and
loser; L = -log sigmoid(beta log r_win - beta log r_lose), beta = 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from bench.mini import models, world
from bench.mini.networks import MiniClip, mini_clip_tokens
from bench.mini.train import step_aware
from bench.mini.train.clip import load_mini_clip
from bench.mini.train.diffusion import (
    TextEncoders,
    alphas_cumprod,
    load_text_encoders,
    load_unet,
    predict_guided,
    predicted_x0,
)
from bench.mini.train.dpo import LoraParameters, add_lora, save_lora
from bench.mini.train.loop import Dice, Recipe, half, integers, normal, put, reseeded, train

RECIPE = Recipe(stage="spo", iterations=50, batch=24, learning_rate=5e-4, warmup=5, weight_decay=1e-4)
"""One iteration is a round: ``batch`` prompts sampled by the policy, and one step of the optimiser."""
STEPS = 20
PLAIN_STEPS = 4
CANDIDATES = 4
GUIDANCE = 3.0
KEEP = 0.3
BETA = 10.0
CLIP = 0.1
PAIRS_A_STEP = 192
"""Pairs that a round's optimiser step is taken on, drawn from all that it kept."""


@dataclass(frozen=True)
class StepPairs:
    """Pairs of next latents from the same x_t: winner, loser, and what the step was conditioned on."""

    x: Tensor
    t: Tensor
    winner: Tensor
    loser: Tensor
    states: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Step:
    """A DDIM step with eta 1 from t to t_next: coefficients of the mean, and the noise's standard deviation."""

    alphas: Tensor
    t: int
    t_next: int

    def mean(self, x: Tensor, eps: Tensor) -> Tensor:
        """Mean of x_{t_next} given x_t and the predicted noise."""
        a_next = self._next()
        x0 = predicted_x0(x, eps, torch.full((len(x),), self.t), self.alphas)
        return a_next.sqrt() * x0 + (1 - a_next - self.sigma() ** 2).clamp(min=0).sqrt() * eps

    def sigma(self) -> Tensor:
        """Standard deviation of the step's noise: sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')."""
        a, a_next = self.alphas[self.t], self._next()
        return ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).sqrt()

    def _next(self) -> Tensor:
        return self.alphas[max(self.t_next, 0)]


def schedule(alphas: Tensor) -> list[Step]:
    """The 20 steps of the pipeline's scheduler."""
    scheduler = models.build_scheduler()
    scheduler.set_timesteps(STEPS)
    times = [int(t) for t in scheduler.timesteps]
    return [Step(alphas, t, t - 1000 // STEPS) for t in times]


def log_density(x_next: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """log N(x_next; mean, sigma^2), averaged over channels and places, without its constant; (n,)."""
    return -((x_next - mean).square() / (2 * sigma**2)).mean((1, 2, 3))


def loss(policy: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> Tensor:
    """The clipped step-wise preference loss from log-densities of (winner, loser)."""
    win, lose = (
        (p - r).clamp(max=1.0).exp().clamp(1 - CLIP, 1 + CLIP).log() for p, r in zip(policy, reference, strict=True)
    )
    return -functional.logsigmoid(BETA * win - BETA * lose).mean()


class Sampler:
    """The step-wise resampler over the current policy."""

    def __init__(self, work: Path, unet: UNet2DConditionModel, encoders: TextEncoders, alphas: Tensor) -> None:
        self.unet, self.encoders, self.alphas = unet, encoders, alphas
        self.steps = schedule(alphas)
        self.vae = step_aware.load_decoder(work / "pipeline")
        _, self.tokenizer = load_mini_clip(work, "mini-preference")
        self.network: MiniClip = step_aware.load(work)

    @torch.no_grad()
    def round(self, captions: list[str], dice: Dice) -> list[tuple[Step, StepPairs]]:
        """Sample a batch of captions and return the pairs that each scored step kept."""
        states, pooled = self.encoders(self.encoders.tokens(captions))
        text = self.network.embed_tokens(put(mini_clip_tokens(self.tokenizer, captions)))
        size = world.SIZE_PX // models.VAE_FACTOR
        x = normal((len(captions), models.LATENT_CHANNELS, size, size), dice.torch)
        kept = []
        for number, step in enumerate(self.steps):
            t = torch.full((len(x),), step.t)
            mean = step.mean(x, predict_guided(self.unet, x, t, states, pooled, GUIDANCE))
            count = 1 if number < PLAIN_STEPS else CANDIDATES
            noise = normal((count, *x.shape), dice.torch)
            candidates = mean + step.sigma() * noise
            if count > 1 and step.t_next > 0:
                kept.append((step, self._best_and_worst(x, t, step, candidates, states, pooled, text)))
            choice = integers(count, len(x), dice.torch)
            x = candidates[choice, torch.arange(len(x))]
        return kept

    def _best_and_worst(
        self,
        x: Tensor,
        t: Tensor,
        step: Step,
        candidates: Tensor,
        states: Tensor,
        pooled: Tensor,
        text: Tensor,
    ) -> StepPairs:
        count, n = candidates.shape[:2]
        flat = candidates.flatten(0, 1)
        t_next = torch.full((len(flat),), step.t_next)
        eps = predict_guided(self.unet, flat, t_next, states.repeat(count, 1, 1), pooled.repeat(count, 1), GUIDANCE)
        seen = step_aware.decode(self.vae, predicted_x0(flat, eps, t_next, self.alphas))
        with half():
            embeds = self.network.embed_images(seen, t_next)
        scores = (self.network.logit_scale.exp() * (embeds.float() * text.repeat(count, 1)).sum(-1)).view(count, n)
        best, worst = scores.argmax(0), scores.argmin(0)
        row = torch.arange(n)
        clear = 2 * torch.sigmoid(scores[best, row] - scores[worst, row]) - 1 > KEEP
        return StepPairs(
            x[clear],
            t[clear],
            candidates[best, row][clear],
            candidates[worst, row][clear],
            states[clear],
            pooled[clear],
        )


def prompts(dice: Dice, n: int) -> list[str]:
    """n captions of contents that training may see."""
    texts = []
    for kind in dice.numpy.choice(list(world.KINDS), size=n):
        table = world.contents(str(kind), held_out=False)
        texts.append(world.caption(str(kind), table[int(dice.numpy.integers(len(table)))], int(dice.numpy.integers(3))))
    return texts


def step_loss(unet: UNet2DConditionModel, step: Step, pairs: StepPairs) -> Tensor:
    """The loss of the kept pairs of one step, summed over pairs."""
    condition = (pairs.x, pairs.t, pairs.states, pairs.pooled, GUIDANCE)
    unet.disable_adapters()
    with torch.no_grad():
        mean_reference = step.mean(pairs.x, predict_guided(unet, *condition))
    unet.enable_adapters()
    mean = step.mean(pairs.x, predict_guided(unet, *condition))
    densities = [
        tuple(log_density(side, centre, step.sigma()) for side in (pairs.winner, pairs.loser))
        for centre in (mean, mean_reference)
    ]
    return loss(densities[0], densities[1]) * len(pairs.x)  # type: ignore[arg-type]


def thin(kept: list[tuple[Step, StepPairs]], dice: Dice) -> list[tuple[Step, StepPairs]]:
    """A random share of the pairs of each step, ``PAIRS_A_STEP`` in all."""
    total = sum(len(pairs.x) for _, pairs in kept)
    share = min(1.0, PAIRS_A_STEP / max(total, 1))
    thinned = []
    for step, pairs in kept:
        chosen = put(np.flatnonzero(dice.numpy.random(len(pairs.x)) < share))
        if len(chosen):
            fields = (pairs.x, pairs.t, pairs.winner, pairs.loser, pairs.states, pairs.pooled)
            thinned.append((step, StepPairs(*(field[chosen] for field in fields))))
    return thinned


def run(work: Path, seed: int = 0) -> None:
    """Train the stage, or go on with it, and save ``spo.safetensors`` (``spo-seed1.safetensors`` with seed 1)."""
    recipe = reseeded(RECIPE, seed)
    folder = work / "pipeline"
    unet, encoders, alphas = load_unet(folder), load_text_encoders(folder), alphas_cumprod()
    parameters = add_lora(unet, recipe.seed)
    sampler = Sampler(work, unet, encoders, alphas)

    def step(iteration: int, dice: Dice) -> Tensor:
        chosen = thin(sampler.round(prompts(dice, RECIPE.batch), dice), dice)
        count = sum(len(pairs.x) for _, pairs in chosen)
        total = torch.zeros((), requires_grad=True)
        for when, pairs in chosen:
            part = step_loss(unet, when, pairs) / count
            torch.autograd.backward(part)  # one step's graph at a time: memory stays that of one
            total = total + part.detach()
        return total

    train(recipe, {"lora": LoraParameters(unet)}, step, work, parameters=parameters, log_every=1)
    save_lora(unet, work, recipe.stage)
