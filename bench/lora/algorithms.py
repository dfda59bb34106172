"""LoRA algorithms: which tensors make one change of a weight, which shape they multiply to, and the changed weight.

Torch is imported only where numbers are computed: a fingerprint needs nothing but the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from bench.checkpoints.checkpoint import Shape
from bench.records import Lora
from bench.records.weights import ChangeKind

if TYPE_CHECKING:
    import torch

    Parts = Mapping[str, torch.Tensor]


Start = Literal["pissa", "olora"]
"""What PEFT took out of a weight and made the matrices of, before it trained them (``begun_with``)."""


class Change(NamedTuple):
    """What a LoRA file does to one tensor of the checkpoint."""

    tensor: str
    """Canonical name: ``unet.mid_block.attentions.0.proj_in.weight``."""
    kind: ChangeKind
    dora: bool
    """Whether the weight's norm is set too, so that the change is not additive."""
    rank: int | None
    """Width of the thin matrices; None where there are none."""
    alpha: float | None
    """As the file or its metadata has it; None means alpha = rank."""
    scale: float
    """What the matrices' product is multiplied with: alpha/rank, for rsLoRA alpha/sqrt(rank); 1 for differences."""
    parts: dict[str, str]
    """Role (``up``, ``hada_w1_a``, ``dora_scale``) -> key in the file."""
    start: Start | None = None
    """What the matrices were begun with, which is taken away again; None where that was a change of 0."""


class Adapter(NamedTuple):
    """A LoRA file; each of its keys belongs to a tensor of the checkpoint."""

    path: Path
    layout: str
    """How the keys are named: ``kohya, SGM blocks``; several are joined by `` + ``."""
    keys: int
    applied: dict[str, int]
    """Keys by component; they sum up to ``keys``."""
    changes: tuple[Change, ...]
    """In the order of the tensors' names."""
    notes: tuple[str, ...] = ()
    """As ``LoraAudit.notes``."""

    @property
    def scales(self) -> list[tuple[str, float] | tuple[str, float, str]]:
        """Tensor, scale and start of every change: PEFT keeps them beside the file, so its bytes do not tell them."""
        return [
            (one.tensor, one.scale) if one.start is None else (one.tensor, one.scale, one.start) for one in self.changes
        ]


def weights_of(lora: Lora) -> dict[str, Any]:
    """What of a LoRA's table decides the change, for digests; newer fields only where they are set."""
    return {
        name: value
        for name, value in msgspec.to_builtins(lora).items()
        if name not in ("path", "trained_on") and (name not in ("leave_out", "step_factors") or value)
    }


class Mismatch(Exception):
    """Tensors of one module that make no change, or none for this checkpoint.

    Args:
        words: what is wrong.
        problem: one of ``bench.lora.parse.PROBLEMS``; empty where parts are missing or do not multiply.
    """

    def __init__(self, words: str, problem: str = "") -> None:
        super().__init__(words)
        self.words, self.problem = words, problem


# Which parts make a change.

_HADA = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
_KRON_FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
_KRON_SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)

KINDS: Mapping[frozenset[str], ChangeKind] = {
    frozenset({"up", "down"}): "lora",
    frozenset({"up", "down", "mid"}): "tucker",
    _HADA: "loha",
    _HADA | {"hada_t1", "hada_t2"}: "loha",
    **{first | second: "lokr" for first in _KRON_FIRST for second in _KRON_SECOND},
    frozenset({"diff"}): "diff",
    frozenset({"w_norm"}): "norm",
}
"""Parts of a change to a weight -> its kind."""
BIAS_KINDS: Mapping[str, ChangeKind] = {"diff_b": "bias", "b_norm": "norm"}
NORMS = frozenset({"dora_scale", "magnitude"})
"""Parts that make a change a DoRA: lycoris's name and PEFT's."""


def changes_of(parts: Mapping[str, str]) -> Iterator[tuple[str, ChangeKind, dict[str, str]]]:
    """The changes that a module's parts make: ``weight`` or ``bias``, the kind, and the parts (role -> key) of each.

    Raises:
        Mismatch: parts are missing, or there are too many.
    """
    of_bias = {role: key for role, key in parts.items() if role in BIAS_KINDS}
    of_weight = {role: key for role, key in parts.items() if role not in BIAS_KINDS}
    if len(of_bias) > 1:
        raise _several(of_bias)
    for role, key in of_bias.items():
        yield "bias", BIAS_KINDS[role], {role: key}
    if not of_weight:
        return
    norms = NORMS & of_weight.keys()
    roles = frozenset(of_weight) - NORMS - {"alpha"}
    kind = KINDS.get(roles)
    if kind is None:
        larger = [known for known in KINDS if roles < known]
        if not larger:
            raise _several(roles)
        has = f"has {', '.join(sorted(roles))} and " if roles else ""
        raise Mismatch(f"{has}lacks {', '.join(sorted(min(larger, key=len) - roles))}")
    if norms and (len(norms) > 1 or kind in ("diff", "norm")):
        raise _several(of_weight)
    yield "weight", kind, of_weight


def _several(roles: Mapping[str, str] | frozenset[str]) -> Mismatch:
    return Mismatch(f"has parts of several changes ({', '.join(sorted(roles))})")


# The shape that the parts multiply to.


def delta_shape(kind: ChangeKind, shapes: Mapping[str, Shape]) -> tuple[Shape, int | None]:
    """Shape and rank of the change that the parts make; the rank is None where no thin matrices are multiplied.

    Convolutions are (out, in, height, width), or flat, (out, in * height * width), where the file has them so.

    Args:
        kind: as ``changes_of`` gives it.
        shapes: role -> shape of the part, without alpha and norms.

    Raises:
        Mismatch: the matrices do not multiply, or their rank is 0.
    """
    match kind:
        case "lora":
            shape, rank = _matrix_shape(shapes["up"], shapes["down"])
        case "tucker":
            up = shapes["up"]
            shape, rank = _tucker_shape(shapes["mid"], (*up[1::-1], *up[2:]), shapes["down"])
        case "loha":
            (shape, rank), other = _factor_shape(shapes, "hada_w1"), _factor_shape(shapes, "hada_w2")
            if (shape, rank) != other:
                halves = " and ".join(f"{list(half)} at rank {width}" for half, width in ((shape, rank), other))
                raise Mismatch(f"its halves are {halves}")
        case "lokr":
            (first, rank), (second, other_rank) = _factor_shape(shapes, "lokr_w1"), _factor_shape(shapes, "lokr_w2")
            if len(first) != 2 or len(second) < 2:
                raise Mismatch(f"{list(first)} and {list(second)} have no Kronecker product of a weight's shape")
            if None not in (rank, other_rank) and rank != other_rank:
                raise Mismatch(f"its factors are of rank {rank} and {other_rank}")
            shape = (first[0] * second[0], first[1] * second[1], *second[2:])
            rank = rank if other_rank is None else other_rank
        case _:
            (shape,), rank = shapes.values(), None
    if rank == 0:
        raise Mismatch("is of rank 0")
    return shape, rank


def _factor_shape(shapes: Mapping[str, Shape], name: str) -> tuple[Shape, int | None]:
    if name in shapes:
        return shapes[name], None
    a, b, core = shapes[f"{name}_a"], shapes[f"{name}_b"], shapes.get(name.replace("_w", "_t"))
    return _matrix_shape(a, b) if core is None else _tucker_shape(core, a, b)


def _matrix_shape(up: Shape, down: Shape) -> tuple[Shape, int | None]:
    if len(up) < 2 or len(down) < 2 or up[1] != down[0] or math.prod(up[2:]) != 1:
        raise Mismatch(f"up {list(up)} and down {list(down)} do not multiply")
    return (up[0], *down[1:]), down[0]


def _tucker_shape(core: Shape, a: Shape, b: Shape) -> tuple[Shape, int | None]:
    matrices = all(len(shape) >= 2 and math.prod(shape[2:]) == 1 for shape in (a, b))
    if not matrices or len(core) < 2 or core[:2] != (a[0], b[0]):
        raise Mismatch(f"the Tucker core {list(core)} does not multiply with {list(a)} and {list(b)}")
    return (a[1], b[1], *core[2:]), b[0]


def fits(found: Shape, shape: Shape) -> bool:
    """Whether a change of the shape ``found`` is one for a weight of ``shape``.

    A 1x1 convolution and a linear layer are the same, and a convolution's change may be flat.
    """
    return _narrow(found) == _narrow(shape) or (len(found) == 2 and found == (shape[0], math.prod(shape[1:])))


def _narrow(shape: Shape) -> Shape:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def norm_axis(role: str, found: Shape, shape: Shape) -> int | None:
    """The axis of the weight that a DoRA's norms belong to: 0 outputs, 1 inputs; None where they fit neither.

    PEFT's ``magnitude`` is per output always, as (out,) or (1, out, 1, 1). lycoris's ``dora_scale`` tells by its shape:
    (out, 1, ...) or (1, in, ...).
    """
    if math.prod(found) == shape[0] and (role == "magnitude" or found[:1] == shape[:1]):
        return 0
    by_input = len(found) >= 2 and len(shape) >= 2 and found[:2] == (1, shape[1]) and math.prod(found) == shape[1]
    return 1 if by_input and role == "dora_scale" else None


# The numbers: float32 in, float32 out, on whatever device the tensors are.


def changed(change: Change, weight: torch.Tensor, parts: Parts, strength: float) -> torch.Tensor:
    """The weight with a change at a strength: W + strength * dW, and for a DoRA W + strength * (W' - W).

    W' is the fully applied DoRA, m * (W + dW) / ||W + dW||, norms per output or per input as the file has them (arXiv
    2402.09353). It is the only one of the usual three definitions that is the identity at 0.

    Args:
        change: what to do.
        weight: W, float32.
        parts: role -> tensor, as ``bench.lora.apply.AdapterParts`` reads them, and ``with_start``.
        strength: the weight that the suite gives this tensor; at 0 the result is ``weight`` itself.
    """
    import torch

    if strength == 0:
        return weight
    if is_by_rows(change) and change.kind == "lora":
        flat, up, down = (values.flatten(1) for values in (weight, parts["up"], parts["down"]))
        return torch.addmm(flat, up, down, alpha=strength * change.scale).reshape(weight.shape)
    added = delta(change, parts, weight.shape)
    if not change.dora:
        return torch.add(weight, added, alpha=strength, out=added)
    return torch.lerp(weight, _with_norms(weight + added, parts), strength)


def _with_norms(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    """A weight scaled to the norms that a DoRA sets; a row of zeros stays one."""
    import torch

    (role,) = NORMS & parts.keys()
    axis = norm_axis(role, tuple(parts[role].shape), tuple(weight.shape))
    others = [dim for dim in range(weight.dim()) if dim != axis]
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (parts[role].reshape(norms.shape) / norms.clamp_min(torch.finfo(norms.dtype).tiny))


def delta(change: Change, parts: Parts, shape: Sequence[int]) -> torch.Tensor:
    """dW = scale * product of the parts, float32, reshaped to ``shape``; of a DoRA, what is added before the norms.

    Where the matrices have a start, it is taken away.
    LoRA up @ down (arXiv 2106.09685); Tucker sum_pq core[p,q,...] up[o,p] down[q,i]; LoHa (w1_a @ w1_b) * (w2_a @ w2_b)
    elementwise (arXiv 2108.06098); LoKr kron(w1, w2) (arXiv 2212.10650); a difference is itself.
    """
    match change.kind:
        case "lora":
            product = _matrix(parts["up"], parts["down"])
        case "tucker":
            product = _tucker(parts["mid"], parts["up"].flatten(1).T, parts["down"].flatten(1))
        case "loha":
            product = _factor(parts, "hada_w1") * _factor(parts, "hada_w2")
        case "lokr":
            # As matrices: the result's columns are (in of the first, in of the second, height, width) in this order.
            product = _factor(parts, "lokr_w1").kron(_factor(parts, "lokr_w2").flatten(1))
        case _:
            (difference,) = parts.values()
            product = difference.clone()
    added = product.mul_(change.scale).reshape(tuple(shape))
    return added.sub_(parts["start"]) if change.start is not None else added


def with_start(change: Change, parts: Parts, weight: torch.Tensor) -> Parts:
    """The parts of a change, with what it was begun with as ``start``: (out, in) float32.

    Args:
        change: the change.
        parts: role -> tensor.
        weight: (out, in), as the checkpoint has it, before any LoRA.
    """
    if change.start is None:
        return parts
    return {**parts, "start": begun_with(change, weight.float())}


def begun_with(change: Change, weight: torch.Tensor) -> torch.Tensor:
    """scale * B0 @ A0, (out, in) float32, which PEFT takes out of a weight W before it trains B and A beside the rest.

    PiSSA: U_r S_r V_r^T = U_r U_r^T W of the singular value decomposition (arXiv 2404.02948). OLoRA: scale * Q_r R_r =
    scale * Q_r Q_r^T W of the QR decomposition (arXiv 2406.01775). So signs do not matter.
    Source: PEFT, tuners/lora/layer.py, pissa_init and olora_init.
    """
    import torch

    pissa = change.start == "pissa"
    directions = torch.linalg.svd(weight, full_matrices=False).U if pissa else torch.linalg.qr(weight).Q
    taken: torch.Tensor = directions[:, : change.rank] @ (directions[:, : change.rank].T @ weight)
    return taken if pissa else taken.mul_(change.scale)


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
    """Core (p, q, ...), a (p, out), b (q, in) -> (out, in, ...)."""
    import torch

    return torch.einsum("pq...,po,qi->oi...", core, a, b)


def is_by_rows(change: Change) -> bool:
    """Whether a row of the change is made of the same row of ``up``, so that rows can be changed alone."""
    return change.kind in ("lora", "tucker") and not change.dora and change.start is None


def can_run_unfused(change: Change) -> bool:
    """Whether a change can be computed in every step: a plain LoRA on a linear layer or a convolution.

    The other kinds are not two small layers, a DoRA scales the module's own output too, a start is as large as the
    weight, and an embedding is looked up, not multiplied with.
    """
    return change.kind == "lora" and is_by_rows(change) and not change.tensor.endswith("_embedding.weight")
