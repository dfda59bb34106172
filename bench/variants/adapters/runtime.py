"""LoRAs computed beside the weights in every step, as at run time, instead of being part of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from bench.errors import WeightsError
from bench.variants.adapters.arithmetic import Parts
from bench.variants.adapters.change import Change


def is_runtime(change: Change) -> bool:
    """Whether a change can be computed beside its module: a plain LoRA on a linear layer or a convolution.

    The other kinds are no two small layers, a DoRA scales the module's own output too, and an embedding is looked up,
    not multiplied with.
    """
    return change.kind == "lora" and not change.dora and not change.tensor.endswith("_embedding.weight")


def attach(module: nn.Module, change: Change, parts: Parts, strength: float) -> RemovableHandle:
    """Adds strength * scale * up(down(x)) to a module's output, until the handle is removed.

    Args:
        module: the one of ``change.tensor``.
        change: one that ``is_runtime``.
        parts: role -> tensor; they are taken to the module's device and dtype.
        strength: the weight that the suite gives this module.

    Raises:
        WeightsError: the change, or the module, is of another kind.
    """
    if not is_runtime(change) or not isinstance(module, nn.Linear | nn.Conv2d):
        raise WeightsError(f"{change.tensor}: a change of kind {change.kind} cannot be applied at run time; fuse it.")
    up = parts["up"].to(module.weight).flatten(1)
    down = parts["down"].to(module.weight)
    factor = strength * change.scale
    if isinstance(module, nn.Linear):
        return module.register_forward_hook(_linear_hook(up, down.flatten(1), factor))
    kernel = (down.shape[0], *module.weight.shape[1:])
    return module.register_forward_hook(_conv_hook(up[:, :, None, None], down.reshape(kernel), factor))


def _linear_hook(up: torch.Tensor, down: torch.Tensor, factor: float) -> Any:
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + factor * F.linear(F.linear(inputs[0], down), up)

    return hook


def _conv_hook(up: torch.Tensor, down: torch.Tensor, factor: float) -> Any:
    def hook(module: nn.Conv2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        small = F.conv2d(inputs[0], down, None, module.stride, module.padding, module.dilation)
        return output + factor * F.conv2d(small, up)

    return hook
