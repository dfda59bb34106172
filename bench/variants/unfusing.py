"""A recipe's LoRAs taken out of a loaded model's weights again and run beside them, to see what fusing them moved."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from bench.variants.adapters.parts import read_parts
from bench.variants.adapters.runtime import is_runtime
from bench.variants.loras import Applied
from bench.variants.models import Model, attach_loras, changeable
from bench.variants.recipes.merged import Merged, recipe_in, recipe_of


def fused_by_recipe(model: Model) -> Merged | None:
    """The recipe that gives the model's weights, where it fuses LoRAs into them; None of any other checkpoint.

    LoRAs of a recipe within it do not count: what becomes of them depends on its arithmetic.
    """
    merged = recipe_in(model.checkpoint)
    return merged if merged is not None and merged.loras else None


def can_unfuse(merged: Merged) -> bool:
    """Whether every change of the recipe's LoRAs is a plain product of two matrices."""
    return all(is_runtime(change) for one in merged.loras for change in one.adapter.changes)


@torch.no_grad()
def unfuse(model: Model, merged: Merged) -> None:
    """Put the recipe's weights without its LoRAs in place, and let these run beside them; ``restore`` undoes it.

    Args:
        model: as ``load_model`` or ``restore`` left it.
        merged: as ``fused_by_recipe`` gives it.
    """
    bare = merged.without_loras()
    changed = {change.tensor for one in merged.loras for change in one.adapter.changes}
    for tensor in sorted(changed):
        if recipe_of(model.checkpoint, tensor.partition(".")[0]) is merged:
            parameter = changeable(model, tensor, keep=True)
            parameter.copy_(bare.read(tensor, parameter.dtype))
    with ExitStack() as files:
        device = str(model.pipe.device)
        parts = [files.enter_context(read_parts(one.file, device)) for one in merged.loras]
        attach_loras(model, [Applied(one.lora, one.adapter) for one in merged.loras], parts)
