"""What was changed in a checkpoint, measured while it is changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from bench.checkpoints.finite import count_non_finite, count_on_device, extremes
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import Adapter, Change
from bench.records import ChangedModule, Lora, LoraAudit

BLOCK = 1 << 19

"""How many numbers a processor changes and measures at a time: what is made of them stays in its cache."""


class Step(NamedTuple):
    """One change that was made to one tensor."""

    lora: int
    """Which of the variant's LoRAs."""
    change: Change
    strength: float
    """The weight that the suite gives this tensor."""
    numbers: torch.Tensor | None
    """As ``measure_change`` returns them; None where there is no weight to change."""


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
    return torch.stack([_square(after - before), _square(before), moved, kept, _bad(rounded)])


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


def _bad(values: torch.Tensor) -> torch.Tensor:
    """How many are not finite, without waiting for a device."""
    if values.device.type == "cpu":
        return torch.tensor(count_non_finite(values))
    return count_on_device(values)


def find_non_finite(parameters: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many values are NaN or infinite, by tensor; tensors without any are left out. Waits for the device once."""
    kinds = [(name, value) for name, value in parameters.items() if value.is_floating_point()]
    if not kinds:
        return {}
    sound = torch.stack([extremes(value) for _, value in kinds]).isfinite().all(dim=1).tolist()
    return {name: count_non_finite(value) for (name, value), good in zip(kinds, sound, strict=True) if not good}


def non_finite_of(totals: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many values of each changed tensor are not finite, by ``measure_change``. Waits for the device once."""
    counts = torch.stack(list(totals.values()))[:, 4].tolist() if totals else []
    return {tensor: int(count) for tensor, count in zip(totals, counts, strict=True) if count}


def checkpoint_not_finite(what: str, tensor: str) -> WeightsError:
    """The error for a checkpoint whose own values are to blame."""
    return WeightsError(
        f"{what}: {tensor} holds values that are not finite.",
        "get the checkpoint again, and compare its size and sha256 with the source's",
    )


def loras_overflow(paths: Sequence[str], bad: Mapping[str, int], dtype: torch.dtype) -> WeightsError:
    """The error for LoRAs whose change of finite weights is beyond the precision that is run."""
    tensor, count = next(iter(bad.items()))
    more = f" (and {len(bad) - 1} more tensors are so)" if len(bad) > 1 else ""
    return WeightsError(
        f"{listed(paths, 3)}: at the weights that are asked for, {count} values of {tensor} overflow "
        f"{str(dtype).removeprefix('torch.')}{more}.",
        "give smaller weights, or check the file's alpha",
    )


def audit_lora(lora: Lora, adapter: Adapter, steps: Sequence[Step]) -> LoraAudit:
    """The record of one LoRA: ``steps`` are those that were made with it."""
    known = [step.numbers for step in steps if step.numbers is not None]
    rows = iter(torch.stack(known).tolist() if known else [])  # all at once: one wait for the device
    return LoraAudit(
        path=lora.path,
        layout=adapter.layout,
        keys=adapter.keys,
        applied=adapter.applied,
        modules=tuple(_changed_module(step, None if step.numbers is None else next(rows)) for step in steps),
    )


def _changed_module(step: Step, numbers: list[float] | None) -> ChangedModule:
    made = step.change
    change, weight, moved, kept, *_ = numbers or (0.0, 0.0, 0.0, 0.0)
    return ChangedModule(
        module=made.tensor.removesuffix(".weight"),
        kind=made.kind,
        dora=made.dora,
        rank=made.rank,
        alpha=made.alpha,
        scale=made.scale * step.strength,
        weight=step.strength,
        relative_change=relative(change, weight) if numbers else None,
        rounded_away=(1.0 - kept / moved if moved else 0.0) if numbers else None,
    )


def refuse_no_change(audit: LoraAudit) -> None:
    """Refuse a LoRA that was to be applied and left every weight as it was.

    Raises:
        WeightsError: all its changes are zero, though the suite gives it a weight.
    """
    if any(one.weight for one in audit.modules) and not any(one.relative_change for one in audit.modules):
        raise WeightsError(
            f"{audit.path}: changes nothing: in all of its {len(audit.modules)} modules the change is zero.",
            "check that the file is the end of a training, not its beginning",
        )


def block_changes(totals: Iterable[tuple[str, torch.Tensor]]) -> dict[str, float]:
    """Relative change by block: the root of the sums, over a block's changed tensors, of both squared norms.

    Args:
        totals: block of a changed tensor, and its whole change by ``measure_change``.
    """
    sums: dict[str, list[float]] = {}
    for block, numbers in totals:
        row = sums.setdefault(block, [0.0, 0.0])
        change, weight, *_ = numbers.tolist()
        row[0], row[1] = row[0] + change, row[1] + weight
    return {block: relative(*sums[block]) for block in sorted(sums)}


def relative(change: float, weight: float) -> float:
    """Norm of a change over that of the weight, of squared norms; of a weight of 0, the norm of the change."""
    return math.sqrt(change / weight) if weight else math.sqrt(change)
