"""Stages ``clip``, ``clip-2`` and ``aesthetic``: mini-clip, and a regressor of beauty on its image embedding.

The contrastive loss knows that several pictures of a batch may fit one caption: the target of a caption is
spread evenly over the pictures that it is true of (same content, and its craft words hold). Three captions in
four carry up to three craft words; without them the embedding would throw craft away.

``clip-2`` trains mini-clip-2 in the same way: a smaller network, from a seed of its own, on scenes that no other
stage sees but ``preference-2``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from bench.mini import models, world
from bench.mini.networks import SHAPES, MiniClip, mini_clip_tokens
from bench.mini.train.data import Pool, pool
from bench.mini.train.loop import Dice, Recipe, device, half, put, train

RECIPE = Recipe(stage="clip", iterations=1500, batch=256, learning_rate=1e-3, warmup=60, weight_decay=0.05, ema=0.995)
SECOND = dataclasses.replace(RECIPE, stage="clip-2", iterations=1600, batch=160, learning_rate=1.5e-3, seed=2)
POOL = 96 * 1024
SECOND_POOL = 32 * 1024
SPOKEN_SHARE = 0.75
AESTHETIC_RATINGS = 12 * 1024
RATING_NOISE = 0.1
"""Standard deviation of a rater's error on the beauty scale of [0, 1]."""
RIDGE = 1e-3


def pixels(source: Pool, index: np.ndarray) -> Tensor:
    """Pictures as float32 (n, 3, 64, 64) in [0, 1], in the order of ``index``."""
    return put(source.images[index]).float() / 255


def words(source: Pool, dice: Dice, index: np.ndarray) -> list[tuple[int, ...]]:
    """For each picture which qualities its caption speaks of: none in a quarter, else one to three."""
    counts = dice.numpy.integers(1, 4, len(index)) * (dice.numpy.random(len(index)) < SPOKEN_SHARE)
    return [tuple(dice.numpy.choice(6, size=int(count), replace=False)) for count in counts]


def matches(source: Pool, index: np.ndarray, spoken: list[tuple[int, ...]]) -> Tensor:
    """float32 (n, n): row i, column j is 1 where caption i is true of picture j."""
    content = np.concatenate([source.kind[index, None], source.content[index]], 1)
    same = (content[:, None] == content[None]).all(-1)
    high = source.craft[index] > 0.5
    for row, which in enumerate(spoken):
        if which:
            same[row] &= (high[:, which] == high[row, which]).all(-1)
    return put(same).float()


def captions(source: Pool, dice: Dice, index: np.ndarray, spoken: list[tuple[int, ...]]) -> list[str]:
    """The captions, with their craft words after a comma."""
    texts = []
    for scene, which in zip(index, spoken, strict=True):
        text = source.caption(int(scene), int(dice.numpy.integers(3)))
        texts.append(f"{text}, {world.craft_words(source.craft[scene], which)}" if which else text)
    return texts


def contrastive(network: MiniClip, x: Tensor, ids: Tensor, fits: Tensor) -> Tensor:
    """Symmetric cross-entropy against the spread targets."""
    with half():
        image, text = network.embed_images(x), network.embed_tokens(ids)
    logits = network.logit_scale.clamp(max=4.6).exp() * text.float() @ image.float().T
    rows = functional.cross_entropy(logits, fits / fits.sum(1, keepdim=True))
    columns = functional.cross_entropy(logits.T, fits.T / fits.T.sum(1, keepdim=True))
    return (rows + columns) / 2


def run_clip(work: Path) -> None:
    """Train stage ``clip``, or go on with it, and save ``mini-clip.safetensors``."""
    fit(RECIPE, "mini-clip", pool(work, "train", POOL), work)


def run_second(work: Path) -> None:
    """Train stage ``clip-2``, or go on with it, and save ``mini-clip-2.safetensors``."""
    fit(SECOND, "mini-clip-2", pool(work, "second", SECOND_POOL), work)


def fit(recipe: Recipe, name: str, source: Pool, work: Path) -> None:
    """Train the network ``name`` on the pool ``source`` and save it."""
    torch.manual_seed(recipe.seed)
    tokenizer = models.write_tokenizer(work / "tokenizer")
    network = MiniClip(tokenizer, shape=SHAPES.get(name))

    def step(iteration: int, dice: Dice) -> Tensor:
        index = dice.numpy.integers(len(source), size=recipe.batch)
        spoken = words(source, dice, index)
        ids = put(mini_clip_tokens(tokenizer, captions(source, dice, index, spoken)))
        return contrastive(network, pixels(source, index), ids, matches(source, index, spoken))

    train(recipe, {"network": network}, step, work)
    save_file(network.state_dict(), work / f"{name}.safetensors")


def load_mini_clip(work: Path, name: str, *, timestep: bool = False) -> tuple[MiniClip, CLIPTokenizer]:
    """A trained MiniClip, frozen, with its tokenizer; its batch norms stay as they are in later training too."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    network = MiniClip(tokenizer, timestep, SHAPES.get(name))
    network.load_state_dict(load_file(work / f"{name}.safetensors"))
    return network.requires_grad_(False).eval().to(device()), tokenizer


@torch.no_grad()
def run_aesthetic(work: Path) -> None:
    """Ridge regression of rated beauty on the unit image embedding; saves ``mini-aesthetic.safetensors``."""
    network, _ = load_mini_clip(work, "mini-clip")
    source = pool(work, "train", POOL)
    index = np.arange(AESTHETIC_RATINGS)
    embeds = torch.cat([network.embed_images(pixels(source, part)) for part in np.array_split(index, 48)]).double()
    noise = np.random.default_rng(7).normal(0, RATING_NOISE, AESTHETIC_RATINGS)
    rated = put(source.beauty()[index] + noise)
    mean_x, mean_y = embeds.mean(0), rated.mean()
    x = embeds - mean_x
    gram = x.T @ x / len(x) + RIDGE * x.var(0).mean() * torch.eye(x.shape[1])
    weight = torch.linalg.solve(gram, x.T @ (rated - mean_y) / len(x))
    bias = mean_y - mean_x @ weight
    save_file({"weight": weight.float(), "bias": bias.float().view(1)}, work / "mini-aesthetic.safetensors")
