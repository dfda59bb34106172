"""The one training loop: seeded, resumable, with a log and checkpoints.

Every random draw of iteration i comes from generators seeded by (seed, stage, i), so a run that
was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHECKPOINT_EVERY_S = 120.0


# --- where training computes: torch's default device, which --device sets -----------------


def device() -> torch.device:
    """The device of this process."""
    return torch.get_default_device()


def put(values: Any) -> Tensor:
    """A tensor or array on the device."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.to(device())


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Unit Gaussian numbers, drawn on the CPU so that they are the same everywhere."""
    return put(torch.randn(*shape, generator=generator, device="cpu"))


def integers(high: int, n: int, generator: torch.Generator) -> Tensor:
    """n integers, uniform in 0..high-1, int64."""
    return put(torch.randint(0, high, (n,), generator=generator, device="cpu"))


def half() -> torch.autocast:
    """The context in which networks compute in bfloat16, or in float32 on a CPU that would have to emulate it.

    Emulated, a convolution takes some forty times as long.
    """
    where = device().type
    return torch.autocast(where, torch.bfloat16, enabled=where != "cpu" or has_bfloat16())


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; also False where torch does not know."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported())


# --- the loop ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one stage."""

    stage: str
    iterations: int
    batch: int
    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.01
    ema: float | None = None
    seed: int = 0


def reseeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed, under a stage name of its own (``spo-seed1``); seed 0 is the recipe itself."""
    return recipe if seed == 0 else dataclasses.replace(recipe, seed=seed, stage=f"{recipe.stage}-seed{seed}")


@dataclass(frozen=True)
class Dice:
    """The random generators of one iteration."""

    numpy: np.random.Generator
    torch: torch.Generator


def dice(recipe: Recipe, iteration: int) -> Dice:
    """Generators that depend on the recipe's seed, its stage and the iteration alone."""
    numpy = np.random.default_rng([recipe.seed, zlib.crc32(recipe.stage.encode()), iteration])
    return Dice(numpy, torch.Generator("cpu").manual_seed(int(numpy.integers(2**62))))


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if iteration < recipe.warmup:
        return recipe.learning_rate * (iteration + 1) / recipe.warmup
    share = (iteration - recipe.warmup) / max(1, recipe.iterations - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def train(
    recipe: Recipe,
    modules: dict[str, nn.Module],
    step: Callable[[int, Dice], Tensor],
    work: Path,
    *,
    parameters: Iterable[nn.Parameter] | None = None,
    log_every: int = 20,
) -> None:
    """Minimise what ``step`` returns; leaves the trained (or averaged) weights in ``modules``.

    Args:
        recipe: hyper-parameters.
        modules: what is saved in checkpoints; with ``recipe.ema`` also averaged.
        step: iteration and dice -> scalar loss.
        work: folder for ``<stage>.ckpt`` and ``<stage>.log.jsonl``.
        parameters: what is optimised; default every parameter of ``modules``.
        log_every: iterations between two log lines.
    """
    chosen = list(parameters) if parameters is not None else [p for m in modules.values() for p in m.parameters()]
    optimizer = torch.optim.AdamW(
        chosen, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
    )
    average = {name: _copy(module) for name, module in modules.items()} if recipe.ema else {}
    checkpoint = work / f"{recipe.stage}.ckpt"
    start = _restore(checkpoint, modules, optimizer, average)
    saved, began, losses = time.monotonic(), time.monotonic(), []
    for iteration in range(start, recipe.iterations):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, iteration)
        loss = step(iteration, dice(recipe, iteration))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _update_average(average, modules, recipe.ema, iteration)
        losses.append(loss.detach())
        if (iteration + 1) % log_every == 0 or iteration + 1 == recipe.iterations:
            _log(work, recipe, iteration + 1, losses, began, iteration + 1 - start)
            losses = []
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            _save(checkpoint, iteration + 1, modules, optimizer, average)
            saved = time.monotonic()
    _save(checkpoint, recipe.iterations, modules, optimizer, average)
    for name, state in average.items():
        modules[name].load_state_dict(state)


@torch.no_grad()
def round_to_half(*modules: nn.Module) -> None:
    """Round every weight to the float16 that ships, so that later stages train against what users load."""
    for module in modules:
        for parameter in module.parameters():
            parameter.copy_(parameter.half())


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


@torch.no_grad()
def _update_average(
    average: dict[str, dict[str, Tensor]], modules: dict[str, nn.Module], decay: float | None, iteration: int
) -> None:
    if decay is None:
        return
    rate = min(decay, (1 + iteration) / (10 + iteration))
    for name, state in average.items():
        for key, value in modules[name].state_dict().items():
            if value.is_floating_point():
                state[key].lerp_(value, 1 - rate)


def _log(work: Path, recipe: Recipe, iteration: int, losses: list[Tensor], began: float, done: int) -> None:
    elapsed = time.monotonic() - began
    loss = float(torch.stack(losses).mean())
    left = elapsed / done * (recipe.iterations - iteration)
    line = {"stage": recipe.stage, "iteration": iteration, "loss": round(loss, 6), "elapsed_s": round(elapsed, 1)}
    with (work / f"{recipe.stage}.log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    rate = done * recipe.batch / elapsed
    print(
        f"{recipe.stage} {iteration}/{recipe.iterations} loss {loss:.5f} {rate:.0f}/s, {left / 60:.1f} min left",
        flush=True,
    )


def _save(
    path: Path,
    iteration: int,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: dict[str, dict[str, Tensor]],
) -> None:
    state = {
        "iteration": iteration,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _restore(
    path: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: dict[str, dict[str, Tensor]],
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=torch.get_default_device())
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
        if name in average:
            average[name] = state["average"][name]
    optimizer.load_state_dict(state["optimizer"])
    return int(state["iteration"])
