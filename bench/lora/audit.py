"""What was changed in a checkpoint, measured while it is changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from bench.checkpoints.finite import count_non_finite, count_on_device, extremes
from bench.lora.algorithms import Adapter, Change
from bench.records import ChangedModule, Lora, LoraAudit

BLOCK = 1 << 19
"""How many numbers a processor changes and measures at a time: what is made of them stays in its cache."""

Step = tuple[Change, float, torch.Tensor | None]
"""A change, the weight that the suite gives its tensor, and its sizes as ``measure_change`` returns them; None where
there is no weight to change."""


def measure_change(before: torch.Tensor, after: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sizes of a change of one tensor, left on its device so that nothing waits.

    Args:
        before, after: float32, of equal shape.
        dtype: the precision that is run.

    Returns:
        float64 (5,): squared Frobenius norms of the change and of ``before``; how many entries were meant to
        change; how many of those are another number in ``dtype`` too; how many are not finite there.
    """
    count = BLOCK if before.device.type == "cpu" else max(1, before.numel())
    pairs = zip(torch.split(before.flatten(), count), torch.split(after.flatten(), count), strict=True)
    return torch.stack([_measure_block(old, new, dtype) for old, new in pairs]).sum(0)


def _measure_block(before: torch.Tensor, after: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded, moved = after.to(dtype), _differing(before, after)
    # Rounding makes no two numbers of one.
    kept = moved if dtype == torch.float32 else _differing(before.to(dtype).float(), rounded.float())
    on_host = rounded.device.type == "cpu"
    bad = torch.tensor(count_non_finite(rounded)) if on_host else count_on_device(rounded)  # a device is not waited for
    return torch.stack([_square(after - before), _square(before), moved, kept, bad])


def _differing(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """How many of float32 numbers are others, left on their device."""
    if before.device.type == "cpu":  # numpy compares and counts in a third of torch's time
        return torch.tensor(np.count_nonzero(before.numpy() != after.numpy()))
    return (before != after).sum()


def _square(values: torch.Tensor) -> torch.Tensor:
    """Squared norm, float64: on a processor from float32 products, where none of them can be lost or overflow."""
    if values.device.type == "cpu":
        quick = values.dot(values)
        if 1e-20 < float(quick) < 1e30:
            return quick.double()
    exact = values.double()
    return exact.dot(exact)


def find_non_finite(parameters: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many values are NaN or infinite, by tensor; tensors without any are left out. Waits for the device once."""
    floating = {name: value for name, value in parameters.items() if value.is_floating_point()}
    if not floating:
        return {}
    finite = torch.stack([extremes(value) for value in floating.values()]).isfinite().all(dim=1).tolist()
    return {name: count_non_finite(floating[name]) for name, good in zip(floating, finite, strict=True) if not good}


def audit_lora(lora: Lora, adapter: Adapter, steps: Sequence[Step]) -> LoraAudit:
    """The record of one LoRA: ``steps`` are those that were made with it."""
    known = [sizes for _, _, sizes in steps if sizes is not None]
    rows = iter(torch.stack(known).tolist() if known else [])  # all at once: one wait for the device
    return LoraAudit(
        path=lora.path,
        layout=adapter.layout,
        keys=adapter.keys,
        applied=adapter.applied,
        modules=tuple(
            _changed_module(change, strength, None if sizes is None else next(rows))
            for change, strength, sizes in steps
        ),
        notes=adapter.notes,
    )


def _changed_module(made: Change, strength: float, sizes: list[float] | None) -> ChangedModule:
    change, weight, moved, kept, _ = sizes or [0.0] * 5
    return ChangedModule(
        module=made.tensor.removesuffix(".weight"),
        kind=made.kind,
        dora=made.dora,
        rank=made.rank,
        alpha=made.alpha,
        scale=made.scale * strength,
        weight=strength,
        relative_change=_relative(change, weight) if sizes else None,
        rounded_away=(1.0 - kept / moved if moved else 0.0) if sizes else None,
    )


def block_changes(totals: Iterable[tuple[str, torch.Tensor]]) -> dict[str, float]:
    """Relative change by block: the root of the sums, over a block's changed tensors, of both squared norms.

    Args:
        totals: block of a changed tensor, and its whole change by ``measure_change``.
    """
    sums: dict[str, tuple[float, float]] = {}
    for block, sizes in totals:
        change, weight, *_ = sizes.tolist()
        before = sums.get(block, (0.0, 0.0))
        sums[block] = (before[0] + change, before[1] + weight)
    return {block: _relative(*sums[block]) for block in sorted(sums)}


def _relative(change: float, weight: float) -> float:
    """Norm of a change over that of the weight, of squared norms; of a weight of 0, the norm of the change."""
    return math.sqrt(change / weight) if weight else math.sqrt(change)
