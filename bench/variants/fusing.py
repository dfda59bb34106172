"""LoRAs made part of one tensor: in float32 from end to end, measured on the way, and cast once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from bench.variants.adapters import Change
from bench.variants.adapters.arithmetic import Parts, changed, is_by_rows, rows_of
from bench.variants.audit import BLOCK, measure_change


class Strong(NamedTuple):
    """A change at the weight that the suite gives its tensor."""

    change: Change
    parts: Parts
    strength: float


class Sizes(NamedTuple):
    """Sizes of changes of one tensor, each as ``measure_change`` returns them."""

    steps: tuple[torch.Tensor, ...]
    """Of each change after the one before."""
    whole: torch.Tensor
    """Of all of them together."""


@torch.no_grad()
def fuse_into(before: torch.Tensor, changes: Sequence[Strong], dtype: torch.dtype, into: torch.Tensor | None) -> Sizes:
    """Apply changes to a tensor, one after the other.

    Args:
        before: the tensor as the checkpoint has it, in any precision.
        changes: at least one.
        dtype: the precision in which the changes are judged.
        into: takes the result, cast to its own precision; may be ``before`` itself. None only measures.
    """
    measured = []
    for rows in _stacks(before, changes):
        values = [before[rows].float()]
        for change, parts, strength in changes:
            values.append(changed(change, values[-1], rows_of(change, parts, rows), strength))
        pairs = [*pairwise(values), *([(values[0], values[-1])] if len(changes) > 1 else [])]
        measured.append(torch.stack([measure_change(old, new, dtype) for old, new in pairs]))
        if into is not None:
            into[rows].copy_(values[-1])
    sizes = torch.stack(measured).sum(0)
    return Sizes(tuple(sizes[: len(changes)]), sizes[-1])


def _stacks(tensor: torch.Tensor, changes: Sequence[Strong]) -> Iterator[slice]:
    """Rows to change at a time: all, or on a processor as many as its cache holds, where rows can be changed alone."""
    count = len(tensor)
    if tensor.device.type == "cpu" and all(is_by_rows(one.change) for one in changes):
        count = max(1, BLOCK * count // tensor.numel())
    return (slice(start, start + count) for start in range(0, len(tensor), count))
