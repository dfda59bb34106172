"""LoRAs applied to weights: fused into them in float32, or computed unfused in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from bench.checkpoints import locate as sources
from bench.checkpoints.blocks import check_blocks, count_blocks
from bench.checkpoints.checkpoint import Tensor
from bench.checkpoints.finite import count_non_finite
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import Adapter, Change, can_run_unfused, changed, is_by_rows, with_start
from bench.lora.audit import BLOCK, measure_change
from bench.lora.parse import read_adapter
from bench.records import Lora, Variant

Parts = Mapping[str, torch.Tensor]
ScaledChange = tuple[Change, Parts, float]
"""A change, its tensors, and the weight that the suite gives the tensor that it is for."""


def read_loras(tensors: Mapping[str, Tensor], variant: Variant, weights_dir: Path | None) -> list[tuple[Lora, Adapter]]:
    """Every LoRA of a variant, matched to its checkpoint's tensors.

    Raises:
        WeightsError: one is missing, damaged, or has a key that fits no tensor of the checkpoint.
        SuiteError: it names blocks that the UNet does not have.
    """
    found, blocks = [], count_blocks(tensors)
    for number, lora in enumerate(variant.loras):
        check_blocks(lora.blocks, blocks, f"variants.{variant.name}.loras[{number}]")
        place = sources.fetch(sources.find_lora(lora.path, weights_dir))
        found.append((lora, read_adapter(Path(place.path or ""), tensors, lora.leave_out)))
    return found


class AdapterParts:
    """An open LoRA file, of which the tensors of one change at a time are read; it is closed with this object.

    Args:
        path: the file.
        device: where the tensors go.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = path
        self._file: Any = safe_open(path, "pt", device=device)

    def of(self, change: Change) -> dict[str, torch.Tensor]:
        """Role -> tensor of a change, float32, without its alpha.

        Raises:
            WeightsError: a value is not finite.
        """
        keys = ((role, key) for role, key in change.parts.items() if role != "alpha")
        parts = {role: self._file.get_tensor(key).to(torch.float32) for role, key in keys}
        for role, part in parts.items():
            wrong = count_non_finite(part)
            if wrong:
                raise WeightsError(
                    f"{self._path}: {wrong} of {part.numel()} values of {change.parts[role]} are not finite.",
                    "take an earlier checkpoint of the training: a LoRA with such values spoils every image",
                )
        return parts


def check_values(adapter: Adapter) -> None:
    """Reads every number of a LoRA file once, one change in memory at a time.

    Raises:
        WeightsError: a value is not finite, or all changes are zero for sure: a factor of each is all zeros, and it
            sets no norms.
    """
    file, zero = AdapterParts(adapter.path), []
    for change in adapter.changes:  # all are read, so that every value is looked at
        parts = file.of(change)
        zeros = any(not part.any() for part in parts.values())
        zero.append(zeros and not change.dora and change.start is None)
    if all(zero):
        raise WeightsError(
            f"{adapter.path}: changes nothing, since in each of its {len(zero)} modules a matrix is all zeros, such as "
            f"{listed((change.tensor for change in adapter.changes), 3)}.",
            "check that the file is the end of a training, not its beginning",
        )


@torch.no_grad()
def fuse_into(
    before: torch.Tensor, changes: Sequence[ScaledChange], dtype: torch.dtype | None, into: torch.Tensor | None
) -> torch.Tensor:
    """Apply changes to a tensor, one after the other, in float32 from end to end; the result is cast once.

    Args:
        before: the tensor as the checkpoint has it, in any precision.
        changes: at least one.
        dtype: the precision in which the changes are measured; None measures nothing.
        into: takes the result, cast to its own precision; may be ``before`` itself. None only measures.

    Returns:
        A row for each change after the one before, as ``measure_change`` gives it, and where they are several a last
        row for all of them together; zeros where nothing is measured.
    """
    rows = len(before)
    if before.device.type == "cpu" and all(is_by_rows(change) for change, _, _ in changes):
        rows = max(1, BLOCK * rows // before.numel())  # what is made of them stays in the processor's cache
    measured = []
    for start in range(0, len(before), rows):
        stack = slice(start, start + rows)
        values = [before[stack].float()]
        for change, parts, strength in changes:
            own = {**parts, "up": parts["up"][stack]} if is_by_rows(change) else with_start(change, parts, values[0])
            values.append(changed(change, values[-1], own, strength))
        last = values[-1]
        if dtype is not None:
            rounded = [before[stack] if before.dtype == dtype else values[0].to(dtype)]
            rounded += [one.to(dtype) for one in values[1:]]
            both = list(zip(values, rounded, strict=True))
            pairs = [*pairwise(both), *([(both[0], both[-1])] if len(changes) > 1 else [])]
            measured.append(torch.stack([measure_change(a, b, dtype, (x, y)) for (a, x), (b, y) in pairs]))
            last = last if into is None or into.dtype != dtype else rounded[-1]
        if into is not None:
            into[stack].copy_(last)
    return torch.stack(measured).sum(0) if measured else torch.zeros(len(changes), 5, dtype=torch.float64)


def attach(
    module: nn.Module, change: Change, parts: Parts, strength: float, factors: Sequence[float] = (1.0,), index: int = 0
) -> RemovableHandle:
    """Adds factors[index] * strength * scale * up(down(x)) to a module's output, until the handle is removed.

    Args:
        module: the one of ``change.tensor``.
        change: one that ``can_run_unfused``.
        parts: role -> tensor; they are taken to the module's device and dtype.
        strength: the weight that the suite gives this module.
        factors: read anew at each call; where the one is 0, the output is left as it is.
        index: which of them.

    Raises:
        WeightsError: the change, or the module, is of another kind.
    """
    if not can_run_unfused(change) or not isinstance(module, nn.Linear | nn.Conv2d):
        raise WeightsError(f"{change.tensor}: a change of kind {change.kind} cannot run unfused; fuse it.")
    up = parts["up"].to(module.weight).flatten(1)
    down = parts["down"].to(module.weight)
    factor = strength * change.scale

    def linear(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        now = factors[index] * factor
        return output + now * F.linear(F.linear(inputs[0], down), up) if now else output

    def convolution(own: nn.Conv2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        now = factors[index] * factor
        if not now:
            return output
        small = F.conv2d(inputs[0], down, None, own.stride, own.padding, own.dilation)
        return output + now * F.conv2d(small, up)

    if isinstance(module, nn.Linear):
        down = down.flatten(1)
        return module.register_forward_hook(linear)
    up, down = up[:, :, None, None], down.reshape(down.shape[0], *module.weight.shape[1:])
    return module.register_forward_hook(convolution)


def refuse_fused_only(loras: Sequence[tuple[Lora, Adapter]]) -> None:
    """Refuse LoRAs that cannot run unfused.

    Raises:
        WeightsError: one holds a change that is not a plain product of two matrices.
    """
    for lora, adapter in loras:
        odd = [change.tensor for change in adapter.changes if not can_run_unfused(change)]
        if odd:
            raise WeightsError(
                f"{lora.path}: {len(odd)} of its changes can only be fused, such as that of {listed(odd, 1)}.",
                "leave out fuse = false",
            )
