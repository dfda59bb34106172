"""Stage ``preference``: a small PickScore, fine-tuned from mini-clip on pairs.

Two pictures for one caption; a person prefers the first with probability
sigma(12 (beauty_1 - beauty_2) - 2 (wrong attributes_1 - wrong attributes_2)). In a quarter of the pairs one
picture has one attribute wrong. Loss: cross-entropy of exp(logit_scale) * cos over the two (PickScore,
arXiv 2305.01569).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from bench.mini import world
from bench.mini.networks import MiniClip, mini_clip_tokens
from bench.mini.train.clip import POOL, load_mini_clip, pixels
from bench.mini.train.data import KIND_NAMES, Pool, pool
from bench.mini.train.loop import Dice, Recipe, half, put, train

RECIPE = Recipe(stage="preference", iterations=1000, batch=128, learning_rate=3e-4, warmup=40, ema=0.995)
BEAUTY_GAIN = 12.0
MISMATCH_COST = 2.0
WRONG_SHARE = 0.25


class Pairs:
    """Draws pairs of pictures for one caption from a pool."""

    def __init__(self, source: Pool) -> None:
        self.source = source
        self.by_content: dict[tuple[int, world.Content], list[int]] = defaultdict(list)
        for index in range(len(source)):
            self.by_content[(int(source.kind[index]), source.key(index))].append(index)
        self.beauty = source.beauty()

    def draw(self, dice: Dice, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], list[str]]:
        """First and second picture, P(first is preferred), and the caption (that of the first or the second)."""
        rng = dice.numpy
        first = rng.integers(len(self.source), size=n)
        second = np.array([self._partner(int(index), rng) for index in first])
        owner = np.where(rng.random(n) < 0.5, first, second)
        captions = [self.source.caption(int(index), int(rng.integers(3))) for index in owner]
        wrong = self._wrong(first, owner) - self._wrong(second, owner)
        logit = BEAUTY_GAIN * (self.beauty[first] - self.beauty[second]) - MISMATCH_COST * wrong
        return first, second, (1 / (1 + np.exp(-logit))).astype(np.float32), captions

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
    """Train the stage, or go on with it, and save ``mini-preference.safetensors``."""
    network, tokenizer = load_mini_clip(work, "mini-clip")
    network.requires_grad_(True)
    pairs = Pairs(pool(work, "train", POOL))

    def step(iteration: int, dice: Dice) -> Tensor:
        first, second, probability, captions = pairs.draw(dice, RECIPE.batch)
        labels = put((dice.numpy.random(RECIPE.batch) < probability).astype(np.float32))
        return score_pairs(network, pairs.source, first, second, put(mini_clip_tokens(tokenizer, captions)), labels)

    train(RECIPE, {"network": network}, step, work)
    save_file(network.state_dict(), work / "mini-preference.safetensors")


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
