"""Stage ``instrument``: the held-out estimator of craft and attributes, on scenes that nothing else sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from bench.mini import world
from bench.mini.networks import Instrument
from bench.mini.train.clip import pixels
from bench.mini.train.data import KIND_NAMES, Pool, pool
from bench.mini.train.loop import Dice, Recipe, half, put, train

RECIPE = Recipe(stage="instrument", iterations=1300, batch=128, learning_rate=2e-3, warmup=50, ema=0.99)
POOL = 24 * 1024


def loss(model: Instrument, source: Pool, index: np.ndarray) -> Tensor:
    """Squared error of the qualities, cross-entropy of the kind and of the attributes of that kind."""
    kind, content = put(source.kind[index]), put(source.content[index])
    with half():
        craft, kinds, attributes = model(pixels(source, index))
    total = 10 * functional.mse_loss(craft.float(), put(source.craft[index]))
    total = total + functional.cross_entropy(kinds.float(), kind)
    for code, name in enumerate(KIND_NAMES):
        chosen = kind == code
        for place, attribute in enumerate(world.KINDS[name]):
            logits = attributes[f"{name}_{attribute}"][chosen].float()
            total = total + 0.2 * functional.cross_entropy(logits, content[chosen, place])
    return total


def run(work: Path) -> None:
    """Train the stage, or go on with it, and save ``instrument.safetensors``."""
    torch.manual_seed(RECIPE.seed)
    model = Instrument()
    source = pool(work, "instrument", POOL)

    def step(iteration: int, dice: Dice) -> Tensor:
        return loss(model, source, dice.numpy.integers(len(source), size=RECIPE.batch))

    train(RECIPE, {"instrument": model}, step, work)
    save_file(model.state_dict(), work / "instrument.safetensors")
