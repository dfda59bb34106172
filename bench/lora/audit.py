"""What was changed in a checkpoint, measured while it is changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from bench.checkpoints.finite import count_non_finite, count_on_device, extremes
from bench.lora.algorithms import Adapter, Change
from bench.records import ChangedModule, Lora, LoraAudit

SIGN = -(1 << 15)
"""The bit of a number of 16 that is its sign, as a whole number."""
BLOCK = 1 << 19
"""How many numbers a processor changes and measures at a time: what is made of them stays in its cache."""

Step = tuple[Change, float, torch.Tensor | None]
"""A change, the weight that the suite gives its tensor, and its sizes as ``measure_change`` returns them; None where
there is no weight to change."""


def measure_change(
    before: torch.Tensor,
    after: torch.Tensor,
    dtype: torch.dtype,
    rounded: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Sizes of a change of one tensor, left on its device so that nothing waits.

    Args:
        before, after: float32, of equal shape.
        dtype: the precision that is run.
        rounded: both in ``dtype``, where they are at hand.

    Returns:
        float64 (5,): squared Frobenius norms of the change and of ``before``; how many entries were meant to
        change; how many of those are another number in ``dtype`` too; how many are not finite there.
    """
    tensors = [one.flatten() for one in (before, after, *(rounded or (before.to(dtype), after.to(dtype))))]
    if before.device.type != "cpu":
        return _measure_on_device(*tensors)
    pieces = zip(*(torch.split(one, BLOCK) for one in tensors), strict=True)
    return torch.tensor([_measure_block(*piece) for piece in pieces], dtype=torch.float64).sum(0)


def _measure_on_device(
    before: torch.Tensor, after: torch.Tensor, rounded_before: torch.Tensor, rounded_after: torch.Tensor
) -> torch.Tensor:
    change, moved, kept = after - before, before != after, rounded_before != rounded_after
    squares = _exact_square(change), _exact_square(before)
    return torch.stack([*squares, moved.sum(), kept.sum(), count_on_device(rounded_after)])


def _measure_block(
    before: torch.Tensor, after: torch.Tensor, rounded_before: torch.Tensor, rounded_after: torch.Tensor
) -> tuple[float, float, int, int, int]:
    """The same of numbers of a processor, (n,) each: what is made of them stays in its cache."""
    change = after - before
    squares = _square(change), _square(before)
    # No entry of a sum is larger than both norms together, so mostly nobody has to look for what overflows.
    most = sum(map(math.sqrt, squares))
    bad = 0 if most < torch.finfo(rounded_after.dtype).max / 2 else count_non_finite(rounded_after)
    if bad:  # the difference of two infinities is no number
        moved, kept = _differing(before, after), _differing(rounded_before, rounded_after)
    else:
        moved = int(np.count_nonzero(change.numpy() != 0))
        kept = _differing_bits(rounded_before, rounded_after) if rounded_after.element_size() == 2 else moved
    return *squares, moved, kept, bad


def _differing(before: torch.Tensor, after: torch.Tensor) -> int:
    """How many are other numbers; numpy compares and counts in a third of torch's time."""
    return int(np.count_nonzero(before.float().numpy() != after.float().numpy()))


def _differing_bits(before: torch.Tensor, after: torch.Tensor) -> int:
    """``_differing`` of finite numbers of 16 bits."""
    old, new = (values.view(torch.int16).numpy() for values in (before, after))
    if (old | new).min(initial=0) == SIGN:  # two zeros, not both without a sign: other bits, and the same number
        return _differing(before, after)
    return int(np.count_nonzero(old != new))


def _square(values: torch.Tensor) -> float:
    """Squared norm of a processor's numbers: from float32 products, where none of them can be lost or overflow."""
    quick = float(values.dot(values))
    return quick if 1e-20 < quick < 1e30 else float(_exact_square(values))


def _exact_square(values: torch.Tensor) -> torch.Tensor:
    """Squared norm, float64, left on its device."""
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
