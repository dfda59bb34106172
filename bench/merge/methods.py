"""The arithmetic of merging, one tensor at a time, in float32. Pure: no files, and names of tensors only for seeds.

A, B, C are tensors of one shape, ``alpha`` is a number. Sums and products are separate operations of one rounding
each, never a fused one, so that neither the number of threads nor the processor changes a bit of the result. Each
function may write into the tensors that it is given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

PARALLEL = 0.9995

"""From this cosine on, SLERP is the straight line: the angle is too small to divide by its sine."""

_BLOCK = 1 << 18

"""How many numbers are worked on at a time: a few such blocks of float32 fit a processor's cache."""


def in_blocks(
    entrywise: Callable[..., torch.Tensor], *tensors: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """What a function of single entries makes of tensors of one shape: computed in float32, rounded to ``dtype``.

    Block by block, which is several times as fast as tensor by tensor: no intermediate result leaves the processor's
    cache, and no float32 copy of an input is in memory.
    """
    result = torch.empty(tensors[0].shape, dtype=dtype)
    target, sources = result.view(-1), [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, target.numel(), _BLOCK):
        parts = (source[start : start + _BLOCK].to(torch.float32, copy=True) for source in sources)
        target[start : start + _BLOCK] = entrywise(*parts)
    return result


def weighted_sum(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """A (1 - alpha) + B alpha, computed from the nearer end, so that equal entries stay as they are."""
    if alpha < 0.5:
        return a.add_(b.sub_(a).mul_(alpha))
    return b.add_(a.sub_(b).mul_(1.0 - alpha))


def add_difference(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, alpha: float) -> torch.Tensor:
    """A + alpha (B - C)."""
    return a.add_(b.sub_(c).mul_(alpha))


def slerp(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """(A sin((1 - alpha) w) + B sin(alpha w)) / sin w, with w the angle between A and B as vectors.

    Nearly parallel, nearly opposite or zero tensors are interpolated linearly. The angle is computed in float64.
    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """
    product, square_a, square_b = (_dot(left, right) for left, right in ((a, b), (a, a), (b, b)))
    lengths = math.sqrt(square_a) * math.sqrt(square_b)
    cosine = product / lengths if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return weighted_sum(a, b, alpha)
    angle = math.acos(cosine)
    of_a, of_b = (math.sin(share * angle) / math.sin(angle) for share in (1 - alpha, alpha))
    return a.mul_(of_a).add_(b.mul_(of_b))


def ties(
    base: torch.Tensor, others: Sequence[torch.Tensor], weights: Sequence[float], density: float, alpha: float
) -> torch.Tensor:
    """base + alpha TIES(other - base, ...): trim each difference, elect a sign for each entry, average who agrees.

    The elected sign is that of the weighted sum of the trimmed differences (``trim``); the mean is over the
    differences of that sign, weighted; 0 where the sum is 0.
    Source: Yadav et al., "TIES-Merging", arXiv 2306.01708 (there over the whole model; here tensor by tensor).
    """
    changes = [trim(other.sub_(base), density).mul_(weight) for other, weight in zip(others, weights, strict=True)]
    elected = torch.zeros_like(base)
    for change in changes:
        elected.add_(change)
    elected.sign_()
    total, count = torch.zeros_like(base), torch.zeros_like(base)
    for change, weight in zip(changes, weights, strict=True):
        agrees = change.mul(elected) > 0
        total.add_(change.mul_(agrees))
        count.add_(agrees.to(base.dtype).mul_(weight))
    mean = total.div_(count.masked_fill_(count == 0, 1.0))
    return base.add_(mean.mul_(alpha))


def trim(change: torch.Tensor, density: float) -> torch.Tensor:
    """The change with all but its ``density`` share of largest magnitudes set to 0, at least one kept."""
    kept = max(1, round(density * change.numel()))
    if kept >= change.numel():
        return change
    size = change.abs()
    place = change.numel() - kept
    flat = size.flatten().numpy().copy()
    flat.partition(place)
    return change.masked_fill_(size < float(flat[place]), 0.0)


def dare(
    base: torch.Tensor,
    others: Iterable[torch.Tensor],
    weights: Sequence[float],
    masks: Iterable[torch.Tensor],
    drop: float,
    alpha: float,
) -> torch.Tensor:
    """base + alpha sum_i weight_i mask_i (other_i - base) / (1 - drop): dropped at random, the rest made up for.

    Args:
        base: the model that the others are measured against.
        others: the other models.
        weights: one for each of them.
        masks: for each of them what is kept, as ``kept_entries`` gives it.
        drop: the share that is dropped, 0 to below 1.
        alpha: what the sum of the changes is multiplied with.

    Source: Yu et al., "Language Models are Super Mario", arXiv 2311.03099.
    """
    total = torch.zeros_like(base)
    for other, weight, mask in zip(others, weights, masks, strict=True):
        total.add_(other.sub_(base).mul_(mask).mul_(weight / (1.0 - drop)))
    return base.add_(total.mul_(alpha))


def kept_entries(shape: Sequence[int], drop: float, seed: int, model: int, name: str) -> torch.Tensor:
    """Which entries DARE keeps: bool, each kept with the probability 1 - drop (to 2^-32).

    It depends on the seed, the model's place in the recipe and the tensor's name alone, not on what was drawn
    before. The numbers are the raw output of PCG64, which numpy promises not to change.
    """
    entropy = hashlib.sha256(f"{seed}\0{model}\0{name}".encode()).digest()
    count = math.prod(shape)
    raw = np.random.PCG64(int.from_bytes(entropy, "little")).random_raw((count + 1) // 2)
    halves = raw.astype("<u8", copy=False).view("<u4")[:count]
    return torch.from_numpy(halves >= round(drop * 2**32)).reshape(tuple(shape))


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """The scalar product in float64, block by block: no float64 copy of a tensor, and the same sum on any machine."""
    left, right = a.flatten().numpy(), b.flatten().numpy()
    blocks = range(0, left.size, _BLOCK)
    return math.fsum(
        float(np.sum(left[at : at + _BLOCK].astype(np.float64) * right[at : at + _BLOCK])) for at in blocks
    )
