"""Stages ``preference`` and ``preference-2``: a small PickScore, fine-tuned from mini-clip on pairs.

Two pictures for one caption; a person chooses one of them (``Raters``). In a quarter of the pairs one picture has
one attribute wrong. Loss: cross-entropy of exp(logit_scale) * cos over the two (PickScore, arXiv 2305.01569).

``preference-2`` trains mini-preference-2 in the same way from mini-clip-2, on the scenes of ``clip-2`` and the choices
of other people.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from bench.mini import world
from bench.mini.networks import MiniClip, mini_clip_tokens
from bench.mini.train.clip import POOL, SECOND_POOL, load_mini_clip, pixels
from bench.mini.train.data import KIND_NAMES, Pool, pool
from bench.mini.train.loop import Dice, Recipe, half, put, train

RECIPE = Recipe(stage="preference", iterations=1000, batch=128, learning_rate=3e-4, warmup=40, ema=0.995)
SECOND = dataclasses.replace(RECIPE, stage="preference-2", iterations=350, batch=96, learning_rate=6e-4, seed=2)
WRONG_SHARE = 0.25


@dataclass(frozen=True)
class Raters:
    """People who choose between two pictures.

    P(first) = (1 - chance) sigma(gain (liking_1 - liking_2) - mismatch_cost (wrong_1 - wrong_2)) + chance / 2, where
    ``wrong`` counts the caption's attributes that a picture has wrong, and liking is the sum of the six qualities in
    the person's own weights: those of the population, or, with ``agreement``, drawn for each choice from the
    Dirichlet distribution whose mean they are and whose parameters sum to ``agreement``.
    """

    weights: dict[str, float]
    gain: float
    mismatch_cost: float
    agreement: float | None = None
    chance: float = 0.0

    def likes(self, craft: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the population likes on average, (n,) in [0, 1], of qualities (n, 6)."""
        return craft @ np.asarray([self.weights[name] for name in world.CRAFT_WEIGHTS], np.float32)

    def taste(self, craft: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32] | float:
        """How much more than the population one person each likes pictures, or differences, of qualities (n, 6)."""
        if self.agreement is None:
            return 0.0
        mean = np.asarray([self.weights[name] for name in world.CRAFT_WEIGHTS])
        own = rng.dirichlet(self.agreement * mean, len(craft))
        return np.asarray((craft * (own - mean)).sum(1), np.float32)


RATERS = Raters(world.CRAFT_WEIGHTS, gain=12.0, mismatch_cost=2.0)
SECOND_RATERS = Raters(
    weights={
        "composition": 0.15,
        "level": 0.20,
        "contrast": 0.15,
        "harmony": 0.20,
        "sharpness": 0.15,
        "noise": 0.15,
    },
    gain=15.0,
    mismatch_cost=3.0,
    agreement=20.0,
    chance=0.05,
)
"""What RATERS weigh least they weigh most; tastes differ from person to person, and one answer in twenty is a guess."""


class Pairs:
    """Draws pairs of pictures for one caption from a pool."""

    def __init__(self, source: Pool, raters: Raters = RATERS) -> None:
        self.source = source
        self.raters = raters
        self.by_content: dict[tuple[int, world.Content], list[int]] = defaultdict(list)
        for index in range(len(source)):
            self.by_content[(int(source.kind[index]), source.key(index))].append(index)
        self.liked = raters.likes(source.craft)

    def draw(self, dice: Dice, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], list[str]]:
        """First and second picture, P(first is preferred), and the caption (that of the first or the second)."""
        rng, raters = dice.numpy, self.raters
        first = rng.integers(len(self.source), size=n)
        second = np.array([self._partner(int(index), rng) for index in first])
        owner = np.where(rng.random(n) < 0.5, first, second)
        captions = [self.source.caption(int(index), int(rng.integers(3))) for index in owner]
        wrong = self._wrong(first, owner) - self._wrong(second, owner)
        taste = raters.taste(self.source.craft[first] - self.source.craft[second], rng)
        logit = raters.gain * (self.liked[first] - self.liked[second] + taste) - raters.mismatch_cost * wrong
        probability = (1 - raters.chance) / (1 + np.exp(-logit)) + raters.chance / 2
        return first, second, probability.astype(np.float32), captions

    def _partner(self, index: int, rng: np.random.Generator) -> int:
        kind, content = int(self.source.kind[index]), self.source.key(index)
        if rng.random() < WRONG_SHARE:
            content = self._neighbour(kind, content, rng)
        return int(rng.choice(self.by_content[(kind, content)]))

    def _neighbour(self, kind: int, content: world.Content, rng: np.random.Generator) -> world.Content:
        """A content of the pool that differs in one attribute."""
        sizes = [len(values) for values in world.KINDS[KIND_NAMES[kind]].values()]
        for _ in range(20):
            place = int(rng.integers(len(sizes)))
            changed = list(content)
            changed[place] = int((content[place] + rng.integers(1, sizes[place])) % sizes[place])
            if (kind, tuple(changed)) in self.by_content:
                return tuple(changed)
        return content

    def _wrong(self, index: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int64]:
        wrong: NDArray[np.int64] = (self.source.content[index] != self.source.content[owner]).sum(1)
        return wrong


def pair_loss(score_first: Tensor, score_second: Tensor, first_wins: Tensor) -> Tensor:
    """Cross-entropy of the two-way softmax; ``first_wins`` in [0, 1], a tie is 0.5."""
    return functional.binary_cross_entropy_with_logits(score_first - score_second, first_wins)


def run(work: Path) -> None:
    """Train stage ``preference``, or go on with it, from mini-clip, and save ``mini-preference.safetensors``."""
    network, tokenizer = load_mini_clip(work, "mini-clip")
    fit(RECIPE, network, tokenizer, Pairs(pool(work, "train", POOL)), work)
    save_file(network.state_dict(), work / "mini-preference.safetensors")


def run_second(work: Path) -> None:
    """Train stage ``preference-2``, or go on with it, from mini-clip-2, and save ``mini-preference-2.safetensors``."""
    network, tokenizer = load_mini_clip(work, "mini-clip-2")
    fit(SECOND, network, tokenizer, Pairs(pool(work, "second", SECOND_POOL), SECOND_RATERS), work)
    save_file(network.state_dict(), work / "mini-preference-2.safetensors")


def fit(recipe: Recipe, network: MiniClip, tokenizer: CLIPTokenizer, pairs: Pairs, work: Path) -> None:
    """Train the network to choose as the raters of ``pairs`` do."""
    network.requires_grad_(True)

    def step(iteration: int, dice: Dice) -> Tensor:
        first, second, probability, captions = pairs.draw(dice, recipe.batch)
        labels = put((dice.numpy.random(recipe.batch) < probability).astype(np.float32))
        return score_pairs(network, pairs.source, first, second, put(mini_clip_tokens(tokenizer, captions)), labels)

    train(recipe, {"network": network}, step, work)


def score_pairs(
    network: MiniClip,
    source: Pool,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    ids: Tensor,
    labels: Tensor,
) -> Tensor:
    """The pair loss of plain pictures."""
    with half():
        images = network.embed_images(pixels(source, np.concatenate([first, second])))
        text = network.embed_tokens(ids)
    one, two = (images.float() * text.float().repeat(2, 1)).sum(-1).chunk(2)
    return pair_loss(network.logit_scale.exp() * one, network.logit_scale.exp() * two, labels)
