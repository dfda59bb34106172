"""The arithmetic of changes: float32 in, float32 out, on whatever device the tensors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bench.variants.adapters.change import Change
from bench.variants.adapters.kinds import NORMS, norm_axis

Parts = Mapping[str, torch.Tensor]


def delta(change: Change, parts: Parts, shape: Sequence[int]) -> torch.Tensor:
    """dW = scale * product of the parts, float32, reshaped to ``shape``.

    LoRA up @ down (arXiv 2106.09685); Tucker sum_pq core[p,q,...] up[o,p] down[q,i]; LoHa (w1_a @ w1_b) * (w2_a @ w2_b)
    elementwise (arXiv 2108.06098); LoKr kron(w1, w2) (arXiv 2212.10650); a difference is itself. For a DoRA this is
    what is added before the norms are set.
    """
    return _product(change.kind, parts).mul_(change.scale).reshape(tuple(shape))


def changed(change: Change, weight: torch.Tensor, parts: Parts, strength: float) -> torch.Tensor:
    """The weight with a change at a strength: W + strength * dW, and for a DoRA W + strength * (W' - W).

    W' is the fully applied DoRA, m * (W + dW) / ||W + dW||, norms per output or per input as the file has them (arXiv
    2402.09353). It is the only one of the usual three definitions that is the identity at 0.

    Args:
        change: what to do.
        weight: W, float32.
        parts: role -> tensor, as ``AdapterParts.of`` reads them.
        strength: the weight that the suite gives this tensor; at 0 the result is ``weight`` itself.
    """
    if strength == 0:
        return weight
    if change.kind == "lora" and not change.dora:
        flat = [values.flatten(1) for values in (weight, parts["up"], parts["down"])]
        return torch.addmm(flat[0], flat[1], flat[2], alpha=strength * change.scale).reshape(weight.shape)
    added = delta(change, parts, weight.shape)
    if not change.dora:
        return torch.add(weight, added, alpha=strength, out=added)
    return torch.lerp(weight, _with_norms(weight + added, parts), strength)


def is_by_rows(change: Change) -> bool:
    """Whether a row of the change is made of the same row of its parts, so that rows can be changed alone."""
    return change.kind in ("lora", "tucker") and not change.dora


def rows_of(change: Change, parts: Parts, rows: slice) -> Parts:
    """The parts of those rows of a change; of one whose rows cannot be changed alone, all parts."""
    return {**parts, "up": parts["up"][rows]} if is_by_rows(change) else parts


def _with_norms(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    """A weight scaled to the norms that a DoRA sets; a row of zeros stays one."""
    role = next(role for role in parts if role in NORMS)
    axis = norm_axis(role, tuple(parts[role].shape), tuple(weight.shape))
    others = [dim for dim in range(weight.dim()) if dim != axis]
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (parts[role].reshape(norms.shape) / norms.clamp_min(torch.finfo(norms.dtype).tiny))


def _product(kind: str, parts: Parts) -> torch.Tensor:
    """The product of the parts, in memory of its own."""
    if kind == "lora":
        return _matrix(parts["up"], parts["down"])
    if kind == "tucker":
        return _tucker(parts["mid"], parts["up"].flatten(1).T, parts["down"].flatten(1))
    if kind == "loha":
        return _factor(parts, "hada_w1") * _factor(parts, "hada_w2")
    if kind == "lokr":
        first, second = _factor(parts, "lokr_w1"), _factor(parts, "lokr_w2")
        # As matrices: the columns of the result are (in of the first, in of the second, height, width) in this order.
        return torch.kron(first, second.flatten(1))
    (difference,) = (part for role, part in parts.items() if role != "alpha")
    return difference.clone()


def _factor(parts: Parts, name: str) -> torch.Tensor:
    """A factor of a LoHa or LoKr: whole, of two matrices, or of two and a Tucker core."""
    if name in parts:
        return parts[name]
    a, b, core = parts[f"{name}_a"], parts[f"{name}_b"], parts.get(name.replace("_w", "_t"))
    return _matrix(a, b) if core is None else _tucker(core, a, b)


def _matrix(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """(out, rank) times (rank, ...) -> (out, ...), flat."""
    return up.flatten(1) @ down.flatten(1)


def _tucker(core: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """core (p, q, ...), a (p, out), b (q, in) -> (out, in, ...)."""
    return torch.einsum("pq...,po,qi->oi...", core, a, b)
