"""A variant's LoRAs applied to weights: fused in float32, or computed beside them in every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

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
from bench.lora.algorithms import NORMS, Adapter, Change, norm_axis
from bench.lora.audit import BLOCK, measure_change
from bench.lora.parse import read_adapter
from bench.records import Lora, Variant

# The numbers of a LoRA file, read one change at a time.


class AdapterParts:
    """An open LoRA file.

    Use it in a ``with``: ``with AdapterParts(path, "cuda") as parts: parts.of(change)``.

    Args:
        path: the file.
        device: where the tensors go.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = path
        self._file: Any = safe_open(path, "pt", device=device)

    def __enter__(self) -> AdapterParts:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def of(self, change: Change) -> dict[str, torch.Tensor]:
        """Role -> tensor of a change, float32.

        Raises:
            WeightsError: a value is not finite.
        """
        parts = {role: self._file.get_tensor(key).to(torch.float32) for role, key in change.parts.items()}
        for role, part in parts.items():
            wrong = count_non_finite(part)
            if wrong:
                raise WeightsError(
                    f"{self._path}: {wrong} of {part.numel()} values of {change.parts[role]} are not finite.",
                    "take an earlier checkpoint of the training: a LoRA with such values spoils every image",
                )
        return parts


def read_parts(path: Path, device: str = "cpu") -> AdapterParts:
    """Opens a LoRA file, of which ``of(change)`` reads the tensors of one change at a time."""
    return AdapterParts(path, device)


def check_values(adapter: Adapter) -> None:
    """Reads every number of a LoRA file once, one change in memory at a time.

    Raises:
        WeightsError: a value is not finite, or all changes are zero.
    """
    with read_parts(adapter.path) as parts:
        # No short cut: every change is read, so that every value is looked at.
        zero = [_is_zero(change, parts.of(change)) for change in adapter.changes]
    if all(zero):
        raise WeightsError(
            f"{adapter.path}: changes nothing, since in each of its {len(zero)} modules a matrix is all zeros, such as "
            f"{listed((change.tensor for change in adapter.changes), 3)}.",
            "check that the file is the end of a training, not its beginning",
        )


def _is_zero(change: Change, parts: dict[str, torch.Tensor]) -> bool:
    """Whether a change is zero for sure: a factor of it is all zeros, and no norms are set."""
    return not change.dora and any(not part.any() for role, part in parts.items() if role != "alpha")


# The arithmetic of changes: float32 in, float32 out, on whatever device the tensors are.

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


# The LoRAs of a variant, read and matched to its checkpoint. Imports no torch.


class Applied(NamedTuple):
    """A LoRA of a variant, read and matched to the checkpoint."""

    lora: Lora
    adapter: Adapter


def read_loras(tensors: Mapping[str, Tensor], variant: Variant, weights_dir: Path | None) -> list[Applied]:
    """Read and match every LoRA of a variant.

    Raises:
        WeightsError: one is missing, damaged, or has a key that fits no tensor of the checkpoint.
        SuiteError: it names blocks that the UNet does not have.
    """
    applied, blocks = [], count_blocks(tensors)
    for number, lora in enumerate(variant.loras):
        check_blocks(lora.blocks, blocks, f"variants.{variant.name}.loras[{number}]")
        place = sources.fetch(sources.find_lora(lora.path, weights_dir))
        applied.append(Applied(lora, read_adapter(Path(place.path or ""), tensors)))
    return applied


def by_tensor(applied: Sequence[Applied]) -> dict[str, list[tuple[int, Change]]]:
    """The changes of each tensor, LoRA by LoRA, so that it is computed in float32 from end to end and cast once."""
    found: dict[str, list[tuple[int, Change]]] = {}
    for index, one in enumerate(applied):
        for change in one.adapter.changes:
            found.setdefault(change.tensor, []).append((index, change))
    return found


# LoRAs made part of one tensor: in float32 from end to end, measured on the way, and cast once.


class ScaledChange(NamedTuple):
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
def fuse_into(
    before: torch.Tensor, changes: Sequence[ScaledChange], dtype: torch.dtype, into: torch.Tensor | None
) -> Sizes:
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


def _stacks(tensor: torch.Tensor, changes: Sequence[ScaledChange]) -> Iterator[slice]:
    """Rows to change at a time: all, or on a processor as many as its cache holds, where rows can be changed alone."""
    count = len(tensor)
    if tensor.device.type == "cpu" and all(is_by_rows(one.change) for one in changes):
        count = max(1, BLOCK * count // tensor.numel())
    return (slice(start, start + count) for start in range(0, len(tensor), count))


# LoRAs computed unfused in every step, as at run time, instead of being part of them.


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
