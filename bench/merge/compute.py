"""One tensor of a recipe: merged, changed by the recipe's LoRAs, or as its one source has it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from bench.checkpoints.blocks import block_of, weight_of
from bench.checkpoints.checkpoint import component_of
from bench.checkpoints.finite import count_non_finite
from bench.checkpoints.ldm_layout import packed_with
from bench.errors import WeightsError
from bench.lora.algorithms import Change, changed, with_start
from bench.lora.apply import AdapterParts, check_values
from bench.merge import methods

if TYPE_CHECKING:
    from bench.merge.merged import Merged


WHOLE = ("slerp", "ties")
"""Methods by which an entry depends on all entries of its tensor."""
PACKED = 4
"""How many tensors that are merged as one are kept until their parts are read: weight and bias, two at a time."""


class Computation:
    """Reads tensors of a recipe; its LoRA files are opened once."""

    def __init__(self, merged: Merged) -> None:
        self.merged, self.recipe, self.models = merged, merged.recipe, merged.models
        self.weights = merged.recipe.weights or (1.0,) * (len(merged.models) - 1)
        self._packed = functools.lru_cache(PACKED)(self._compute_packed)
        self.changes = [{change.tensor: change for change in one.adapter.changes} for one in merged.loras]

    @functools.cached_property
    def parts(self) -> list[AdapterParts]:
        """The LoRA files, opened once; every value in them is checked before the first is used."""
        for one in self.merged.loras:
            check_values(one.adapter)
        return [AdapterParts(one.adapter.path) for one in self.merged.loras]

    def read(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        """As ``Merged.read``."""
        merged, changes = self.merged, self._changes_of(name)
        if component_of(name) == "vae" and merged.vae is not None:
            tensor = finite(merged.vae.read(name), name, merged.vae.what)
        elif component_of(name) in merged.merged:
            tensor = self._merge(name, None if changes else dtype)
        else:
            tensor = self._stored(0, name)
        bare = tensor
        for number, change, strength in changes:
            parts = with_start(change, self.parts[number].of(change), bare)
            tensor = changed(change, tensor.to(torch.float32), parts, strength)
        if dtype is None:
            return self._finite(tensor, name, merged.what)
        return self._finite(tensor.to(dtype), name, f"{merged.what}, rounded to {str(dtype).removeprefix('torch.')}")

    def _finite(self, result: torch.Tensor, name: str, what: str) -> torch.Tensor:
        """A result, once it is sure that it is finite; where it is not, an input that is to blame is named first."""
        try:
            return finite(result, name, what)
        except WeightsError:
            if component_of(name) in self.merged.merged:
                for index in range(len(self.models)):
                    self._stored(index, name)
            raise

    def _merge(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        """A tensor merged, in float32; in ``dtype`` already where that costs nothing.

        SLERP and TIES look at the whole of a tensor: as the published file has it, where q, k and v are one.
        """
        names = packed_with(name)
        if self.recipe.method not in WHOLE or len(names) == 1:
            return self._compute((name,), dtype)
        return self._packed(names)[names.index(name)].clone()

    def _compute_packed(self, names: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
        return self._compute(names, None).chunk(len(names))

    def _compute(self, names: tuple[str, ...], dtype: torch.dtype | None) -> torch.Tensor:
        """One below the other, tensors that are merged as one; several for ``WHOLE`` only."""
        recipe, alpha, (name, *_) = self.recipe, self._alpha(names[0]), names
        first, *others = range(len(self.models))
        if alpha == 0.0:  # the others add nothing, and nothing may be rounded
            return self._float32(first, names)
        if recipe.method in ("weighted_sum", "slerp") and alpha == 1.0:
            return self._float32(1, names)
        if recipe.method in ("weighted_sum", "add_difference"):
            # Inputs are not checked yet: what is not finite in an entry of one is not finite in the sum.
            entrywise = functools.partial(getattr(methods, recipe.method), alpha=alpha)
            base, *rest = (self.models[index].read(name) for index in (first, *others))
            if base.shape == rest[0].shape:
                return methods.in_blocks(entrywise, base, *rest, dtype=dtype or torch.float32)
            channels = rest[0].shape[1]  # of an inpainting model, those of the mask stay as they are
            result = base.to(torch.float32, copy=True)
            result[:, :channels] = methods.in_blocks(entrywise, base[:, :channels], *rest)
            return result
        base, float32 = self._float32(first, names), (self._float32(index, names) for index in others)
        if recipe.method == "slerp":
            (other,) = float32
            return methods.slerp(base, other, alpha)
        if recipe.method == "ties":
            return methods.ties(base, list(float32), self.weights, recipe.density or 0.0, alpha)
        drop, seed, shape = recipe.drop or 0.0, recipe.seed or 0, self.merged.tensors[name].shape
        masks = (methods.kept_entries(shape, drop, seed, index, name) for index in others)
        return methods.dare(base, float32, self.weights, masks, drop, alpha)

    def _alpha(self, name: str) -> float:
        """How much of the others goes into a tensor: its block's number where the recipe names one."""
        alpha, blocks = self.recipe.alpha or 0.0, self.merged.blocks
        if not self.recipe.blocks or blocks is None or component_of(name) != "unet":
            return alpha
        return self.recipe.blocks.get(block_of(name, blocks), alpha)

    def _stored(self, index: int, name: str) -> torch.Tensor:
        """A model's tensor as it has it."""
        model = self.models[index]
        return finite(model.read(name), name, model.what)

    def _float32(self, index: int, names: tuple[str, ...]) -> torch.Tensor:
        """A model's tensors in float32, one below the other, which may be written into."""
        stored = [self._stored(index, name).to(torch.float32, copy=True) for name in names]
        return stored[0] if len(stored) == 1 else torch.cat(stored)

    def _changes_of(self, name: str) -> list[tuple[int, Change, float]]:
        """What the LoRAs do to a tensor: each one's number, its change and the weight that it is given."""
        blocks = self.merged.blocks
        if blocks is None:
            return []
        found = ((number, changes[name]) for number, changes in enumerate(self.changes) if name in changes)
        loras = self.merged.loras
        weighted = [(number, change, weight_of(loras[number].lora, name, blocks)) for number, change in found]
        return [(number, change, strength) for number, change, strength in weighted if strength]


def finite(tensor: torch.Tensor, name: str, what: str) -> torch.Tensor:
    """The tensor, once it is sure that it holds finite values only.

    Raises:
        WeightsError: some are not; how many, in which tensor of what.
    """
    bad = count_non_finite(tensor)
    if bad:
        raise WeightsError(f"{what}: {name} holds {bad} values of {tensor.numel()} that are not finite.")
    return tensor
