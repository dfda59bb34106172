"""One tensor of a recipe: merged, changed by the recipe's LoRAs, or as its one source has it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from bench.checkpoints.blocks import block_of, weight_of
from bench.checkpoints.checkpoint import component_of
from bench.checkpoints.finite import count_non_finite
from bench.errors import WeightsError
from bench.lora.algorithms import Change
from bench.lora.apply import AdapterParts, changed, check_values, read_parts
from bench.merge import methods

if TYPE_CHECKING:
    from bench.merge.merged import Merged


class Computation:
    """Reads tensors of a recipe; its LoRA files are opened once."""

    def __init__(self, merged: Merged) -> None:
        self.merged, self.recipe, self.models = merged, merged.recipe, merged.models
        self.weights = merged.recipe.weights or (1.0,) * (len(merged.models) - 1)
        self.changes = [{change.tensor: change for change in one.adapter.changes} for one in merged.loras]

    @functools.cached_property
    def parts(self) -> list[AdapterParts]:
        """The LoRA files, opened once; every value in them is checked before the first is used."""
        for one in self.merged.loras:
            check_values(one.adapter)
        return [read_parts(one.adapter.path) for one in self.merged.loras]

    def read(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        """As ``Merged.read``."""
        merged, changes = self.merged, self._changes_of(name)
        if component_of(name) == "vae" and merged.vae is not None:
            tensor = finite(merged.vae.read(name), name, merged.vae.what)
        elif component_of(name) in merged.merged:
            tensor = self._compute(name, None if changes else dtype)
        else:
            tensor = self._stored(0, name)
        for number, change, strength in changes:
            tensor = changed(change, tensor.to(torch.float32), self.parts[number].of(change), strength)
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

    def _compute(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        """The tensor merged, in float32; in ``dtype`` already where that costs nothing."""
        recipe, alpha = self.recipe, self._alpha(name)
        first, *others = range(len(self.models))
        if alpha == 0.0:  # the others add nothing, and nothing may be rounded
            return self._float32(first, name)
        if recipe.method in ("weighted_sum", "slerp") and alpha == 1.0:
            return self._float32(1, name)
        if recipe.method in ("weighted_sum", "add_difference"):
            # Inputs are not checked yet: what is not finite in an entry of one is not finite in the sum.
            entrywise = functools.partial(getattr(methods, recipe.method), alpha=alpha)
            stored = (self.models[index].read(name) for index in (first, *others))
            return methods.in_blocks(entrywise, *stored, dtype=dtype or torch.float32)
        base, rest = self._float32(first, name), (self._float32(index, name) for index in others)
        if recipe.method == "slerp":
            (other,) = rest
            return methods.slerp(base, other, alpha)
        if recipe.method == "ties":
            return methods.ties(base, list(rest), self.weights, recipe.density or 0.0, alpha)
        drop, seed, shape = recipe.drop or 0.0, recipe.seed or 0, self.merged.tensors[name].shape
        masks = (methods.kept_entries(shape, drop, seed, index, name) for index in others)
        return methods.dare(base, rest, self.weights, masks, drop, alpha)

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

    def _float32(self, index: int, name: str) -> torch.Tensor:
        """A model's tensor in float32, which may be written into."""
        return self._stored(index, name).to(torch.float32, copy=True)

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
