"""One module's keys -> its changes, checked against the checkpoint's shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.records.weights import ChangeKind
from bench.variants.adapters.change import Change
from bench.variants.adapters.kinds import NORMS, Mismatch, Product, fits, norm_axis, parts_of, product_of
from bench.variants.adapters.names import Place
from bench.variants.adapters.scales import Trained, read_alpha, trained_alpha, trained_scale
from bench.variants.checkpoint import Shape, Tensor
from bench.variants.stored import Header

TWICE = "places are named by more than one key"
UNCLEAR = "modules could be of either text encoder, which the names do not tell"
BROKEN = "modules have matrices that are missing or do not go together"
MISFIT = "modules have other shapes than the checkpoint's, so this is a LoRA for another model"
NOT_FINITE = "modules have an alpha that is not finite"
NOTHING = "modules have an alpha of 0, so that they change nothing"
PROBLEMS = (TWICE, UNCLEAR, BROKEN, MISFIT, NOT_FINITE, NOTHING)
"""What can be wrong with a module, the worst first; an error tells of one."""

DIFFERENCES = ("diff", "norm", "bias")
"""Kinds that are added as they are; an alpha beside them has no meaning, in any tool."""


class Group(NamedTuple):
    """The keys of one module."""

    name: str
    """In the file's own spelling."""
    place: Place
    old: bool
    """Whether the keys end as diffusers' did before PEFT."""
    parts: dict[str, str]
    """Role -> key."""


class Problem(Exception):
    """What is wrong with one module.

    Args:
        kind: one of ``PROBLEMS``.
        words: which module, and how.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind, self.words = kind, words


class Source(NamedTuple):
    """What is known of the file and of the checkpoint."""

    path: Path
    header: Header
    trained: Mapping[str, Trained]
    """PEFT's configuration by component."""
    tensors: Mapping[str, Tensor]
    """The checkpoint's."""


def changes_of(group: Group, source: Source) -> Iterator[Change]:
    """The changes that a module's keys make, to its weight and to its bias.

    Raises:
        Problem: they make none, or none for a module of this shape.
    """
    try:
        for leaf, kind, parts in parts_of(group.parts):
            yield _change(group.place, leaf, kind, parts, source)
    except Mismatch as error:
        raise Problem(BROKEN, f"{group.name} {error}") from error


def _change(place: Place, leaf: str, kind: ChangeKind, parts: dict[str, str], source: Source) -> Change:
    shapes = {role: source.header.tensors[key].shape for role, key in parts.items()}
    product = product_of(kind, {role: shape for role, shape in shapes.items() if role not in (*NORMS, "alpha")})
    module = _module(place, leaf, product.shape, source.tensors)
    tensor = f"{module}.{leaf}"
    if kind in DIFFERENCES:
        return Change(tensor, kind, False, None, None, 1.0, parts)
    dora = _is_dora(tensor, shapes, source.tensors[tensor].shape)
    alpha, scale = _scale(module, product, parts, dora, source)
    return Change(tensor, kind, dora, product.rank, alpha, scale, parts)


def _module(place: Place, leaf: str, found: Shape, tensors: Mapping[str, Tensor]) -> str:
    """The module that is meant: the one of the shape of the change, where the name alone does not tell."""
    wanted = {module: tensors[f"{module}.{leaf}"].shape for module in place.modules if f"{module}.{leaf}" in tensors}
    if not wanted:
        raise Problem(MISFIT, f"{place.modules[0]} has no {leaf} in the checkpoint")
    fitting = [module for module, shape in wanted.items() if fits(found, shape)]
    if len(fitting) > 1:
        raise Problem(UNCLEAR, " or ".join(fitting))
    if not fitting:
        module, shape = next(iter(wanted.items()))
        raise Problem(MISFIT, f"{module} (the checkpoint has {list(shape)}, the LoRA {list(found)})")
    return fitting[0]


def _is_dora(tensor: str, shapes: Mapping[str, Shape], shape: Shape) -> bool:
    """Whether there are norms for the weight, of a shape that tells their axis."""
    norms = NORMS & shapes.keys()
    for role in norms:
        if norm_axis(role, shapes[role], shape) is None:
            raise Problem(MISFIT, f"{tensor} (norms {list(shapes[role])} for a weight {list(shape)})")
    return bool(norms)


def _scale(
    module: str, product: Product, parts: Mapping[str, str], dora: bool, source: Source
) -> tuple[float | None, float]:
    """Alpha, where there is one, and what the product is multiplied with; the module's own tensor goes first."""
    component, _, path = module.partition(".")
    told = source.trained.get(component, source.trained.get(""))
    if told is not None and told.use_dora and not dora:
        raise Mismatch("is a DoRA by the metadata, and lacks lora_magnitude_vector")
    if "alpha" in parts:
        alpha: float | None = read_alpha(source.path, parts["alpha"], source.header.tensors[parts["alpha"]])
        # Two whole matrices have no rank: lycoris writes an alpha for them that means 1.
        scale = 1.0 if product.rank is None or alpha is None else alpha / product.rank
    elif told is not None:
        alpha, scale = trained_alpha(told, path), trained_scale(told, path, product.rank)
    else:
        alpha, scale = None, 1.0
    if alpha is not None and not math.isfinite(alpha):
        raise Problem(NOT_FINITE, f"{module} ({alpha})")
    if scale == 0:
        raise Problem(NOTHING, module)
    return alpha, scale
