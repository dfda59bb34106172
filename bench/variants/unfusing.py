"""A recipe's LoRAs taken out of a loaded model's weights again and run beside them, to see what fusing them moved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from bench.variants.adapters.parts import read_parts
from bench.variants.adapters.runtime import is_runtime
from bench.variants.loras import Applied
from bench.variants.models import Model, attach_loras, changeable
from bench.variants.recipes.merged import Fused, Merged, recipe_in, recipe_of


def fused_by_recipe(model: Model) -> list[Applied]:
    """The LoRAs that a recipe fused into the model's weights, and what they change of the components that it gives.

    None of any other checkpoint. LoRAs of a recipe within the recipe do not count: what becomes of them depends on its
    arithmetic.
    """
    merged = recipe_in(model.checkpoint)
    found = [] if merged is None else [_of_model(model, merged, one) for one in merged.loras]
    return [one for one in found if one.adapter.changes]


def can_unfuse(fused: Sequence[Applied]) -> bool:
    """Whether every change of these LoRAs is a plain product of two matrices."""
    return all(is_runtime(change) for one in fused for change in one.adapter.changes)


@torch.no_grad()
def unfuse(model: Model, fused: Sequence[Applied]) -> None:
    """Put the recipe's weights without its LoRAs in place, and let these run beside them; ``restore`` undoes it.

    Args:
        model: as ``load_model`` or ``restore`` left it.
        fused: as ``fused_by_recipe`` gives them.
    """
    merged = recipe_in(model.checkpoint)
    if merged is None:
        return
    bare = merged.without_loras()
    for tensor in sorted({change.tensor for one in fused for change in one.adapter.changes}):
        parameter = changeable(model, tensor, keep=True)
        parameter.copy_(bare.read(tensor, parameter.dtype))
    with ExitStack() as files:
        device = str(model.pipe.device)
        attach_loras(model, fused, [files.enter_context(read_parts(one.adapter.path, device)) for one in fused])


def _of_model(model: Model, merged: Merged, one: Fused) -> Applied:
    changes = (
        change
        for change in one.adapter.changes
        if recipe_of(model.checkpoint, change.tensor.partition(".")[0]) is merged
    )
    return Applied(one.lora, one.adapter._replace(changes=tuple(changes)))
