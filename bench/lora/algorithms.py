"""LoRA algorithms: which tensors make one change, and the change that they multiply to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.checkpoints.checkpoint import Shape
from bench.records.weights import ChangeKind

# What a LoRA file changes, known from its header alone.


class Change(NamedTuple):
    """What a file does to one tensor of the checkpoint."""

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


class Adapter(NamedTuple):
    """A LoRA file, every key of which has found its place in the checkpoint."""

    path: Path
    layout: str
    """How the keys are named: ``kohya, SGM blocks``; several are joined by `` + ``."""
    keys: int
    applied: dict[str, int]
    """Keys by component; they sum up to ``keys``."""
    changes: tuple[Change, ...]
    """In the order of the tensors' names."""

    @property
    def scales(self) -> list[tuple[str, float]]:
        """Tensor and scale of every change: what a file beside this one may say of it, and its bytes do not."""
        return [(change.tensor, change.scale) for change in self.changes]


# Kinds of changes: which parts make one, what shape they multiply to, and at what rank. Shapes alone, no numbers.

HADA = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})

FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))

SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)

KINDS: Mapping[frozenset[str], ChangeKind] = {
    frozenset({"up", "down"}): "lora",
    frozenset({"up", "down", "mid"}): "tucker",
    HADA: "loha",
    HADA | {"hada_t1", "hada_t2"}: "loha",
    **{first | second: "lokr" for first in FIRST for second in SECOND},
    frozenset({"diff"}): "diff",
    frozenset({"w_norm"}): "norm",
}

"""Parts of a change to a weight -> its kind."""

BIAS_KINDS: Mapping[str, ChangeKind] = {"diff_b": "bias", "b_norm": "norm"}

NORMS = frozenset({"dora_scale", "magnitude"})

"""Parts that make a change a DoRA."""


class Mismatch(ValueError):
    """Parts that make no change: some are missing, or their shapes do not multiply."""


class DeltaShape(NamedTuple):
    """What parts multiply to."""

    shape: Shape
    rank: int | None


def kind_of(roles: frozenset[str]) -> ChangeKind:
    """The kind of a change to a weight, from its parts without ``alpha``, ``dora_scale`` and ``magnitude``.

    Raises:
        Mismatch: they make none; says what is missing, or that there are several.
    """
    if roles in KINDS:
        return KINDS[roles]
    whole = [parts for parts in KINDS if roles < parts]
    if not whole:
        raise Mismatch(f"has parts of several changes ({_listed(roles)})")
    nearest = min(whole, key=len)
    has = f"has {_listed(roles)} and " if roles else ""
    raise Mismatch(f"{has}lacks {_listed(nearest - roles)}")


def product_of(kind: ChangeKind, shapes: Mapping[str, Shape]) -> DeltaShape:
    """Shape and rank of the change that the parts make.

    Convolutions are (out, in, height, width), or flat, (out, in * height * width), where the file has them so.

    Args:
        kind: what they are.
        shapes: role -> shape of the part.

    Raises:
        Mismatch: matrices that do not multiply, or that have no rank at all.
    """
    product = _product_of(kind, shapes)
    if product.rank == 0:
        raise Mismatch("is of rank 0")
    return product


def _product_of(kind: ChangeKind, shapes: Mapping[str, Shape]) -> DeltaShape:
    if kind == "lora":
        return _lora(shapes["up"], shapes["down"])
    if kind == "tucker":
        return _tucker(shapes["mid"], _flipped(shapes["up"]), shapes["down"])
    if kind == "loha":
        halves = [_half(shapes, f"hada_w{n}_a", f"hada_w{n}_b", f"hada_t{n}") for n in (1, 2)]
        if halves[0] != halves[1]:
            raise Mismatch(f"its halves are {_words(*halves[0])} and {_words(*halves[1])}")
        return halves[0]
    if kind == "lokr":
        return _lokr(shapes)
    return DeltaShape(next(iter(shapes.values())), None)


def _lora(up: Shape, down: Shape) -> DeltaShape:
    if len(up) < 2 or len(down) < 2 or up[1] != down[0] or math.prod(up[2:]) != 1:
        raise Mismatch(f"up {list(up)} and down {list(down)} do not multiply")
    return DeltaShape((up[0], *down[1:]), down[0])


def _tucker(core: Shape, a: Shape, b: Shape) -> DeltaShape:
    """A core (rank, rank, ...) between a (rank, out) and b (rank, in)."""
    plain = all(len(shape) >= 2 and math.prod(shape[2:]) == 1 for shape in (a, b))
    if not plain or len(core) < 2 or core[:2] != (a[0], b[0]):
        raise Mismatch(f"the Tucker core {list(core)} does not multiply with {list(a)} and {list(b)}")
    return DeltaShape((a[1], b[1], *core[2:]), b[0])


def _half(shapes: Mapping[str, Shape], a: str, b: str, core: str) -> DeltaShape:
    """One factor of a LoHa or LoKr: a (out, rank) times b (rank, in, ...), or with a core, a (rank, out)."""
    if core in shapes:
        return _tucker(shapes[core], shapes[a], shapes[b])
    return _lora(shapes[a], shapes[b])


def _lokr(shapes: Mapping[str, Shape]) -> DeltaShape:
    pair = []
    for whole in ("lokr_w1", "lokr_w2"):
        core = whole.replace("w", "t")
        pair.append(
            DeltaShape(shapes[whole], None) if whole in shapes else _half(shapes, f"{whole}_a", f"{whole}_b", core)
        )
    (first, rank1), (second, rank2) = pair
    if len(first) != 2 or len(second) < 2:
        raise Mismatch(f"{list(first)} and {list(second)} have no Kronecker product of a weight's shape")
    if rank1 is not None and rank2 is not None and rank1 != rank2:
        raise Mismatch(f"its factors are of rank {rank1} and {rank2}")
    shape = (first[0] * second[0], first[1] * second[1], *second[2:])
    return DeltaShape(shape, rank1 if rank2 is None else rank2)


def _flipped(up: Shape) -> Shape:
    return (up[1], up[0], *up[2:]) if len(up) >= 2 else up


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


def _listed(roles: frozenset[str]) -> str:
    return ", ".join(sorted(roles))


def _words(shape: Shape, rank: int | None) -> str:
    return f"{list(shape)} at rank {rank}"


def parts_of(roles: Mapping[str, str]) -> Iterator[tuple[str, ChangeKind, dict[str, str]]]:
    """The changes that a module's parts make: ``weight`` or ``bias``, the kind, and the parts (role -> key) of each.

    Raises:
        Mismatch: parts are missing, or there are too many.
    """
    of_bias = {role: key for role, key in roles.items() if role in BIAS_KINDS}
    of_weight = {role: key for role, key in roles.items() if role not in BIAS_KINDS}
    if len(of_bias) > 1:
        raise Mismatch(f"has parts of several changes ({_listed(frozenset(of_bias))})")
    for role, key in of_bias.items():
        yield "bias", BIAS_KINDS[role], {role: key}
    if not of_weight:
        return
    norms = NORMS & of_weight.keys()
    kind = kind_of(frozenset(of_weight) - NORMS - {"alpha"})
    if norms and (len(norms) > 1 or kind in ("diff", "norm")):
        raise Mismatch(f"has parts of several changes ({_listed(frozenset(of_weight))})")
    yield "weight", kind, of_weight
