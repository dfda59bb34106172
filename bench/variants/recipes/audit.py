"""What a recipe made: its loaded weights held against those of its first model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bench.records import LoraAudit, MergeAudit
from bench.variants.audit import Step, audit_lora, block_changes, measure_change
from bench.variants.blocks import BlockMap, block_of, count_blocks, weight_of
from bench.variants.checkpoint import Checkpoint
from bench.variants.recipes.header import without_folder
from bench.variants.recipes.merged import Fused, Merged, recipe_of


def audit_recipe(checkpoint: Checkpoint, parameters: Mapping[str, torch.Tensor]) -> MergeAudit | None:
    """What a recipe made of the components that it gives; None without one. Where there are two, the UNet's."""
    merged = recipe_of(checkpoint, "unet") or recipe_of(checkpoint, "text_encoder")
    if merged is None:
        return None
    made = [name for name in parameters if recipe_of(checkpoint, name.partition(".")[0]) is merged]
    return audit_merge(merged, {name: parameters[name] for name in made})


def audit_merge(merged: Merged, parameters: Mapping[str, torch.Tensor]) -> MergeAudit:
    """Measure a recipe's result, against its first model, or that one's where it is a recipe itself.

    Args:
        merged: the recipe.
        parameters: what it made, by canonical name, as it is run, before a variant's own LoRAs.
    """
    first, recipe, loras = _first(merged), merged.recipe, _loras(merged)
    blocks = count_blocks(first.tensors)
    totals = []
    for name, after in parameters.items():
        if name in first.tensors and not name.startswith("vae."):
            before = first.read(name).to(after.device, after.dtype).float()
            totals.append((block_of(name, blocks), measure_change(before, after.float(), after.dtype)))
    return MergeAudit(
        method=recipe.method,
        models=recipe.models,
        base=without_folder(first.what),
        given=tuple(one.lora for one in loras),
        loras=tuple(_without_norms(one, blocks) for one in loras),
        blocks=block_changes(totals),
    )


def _first(merged: Merged) -> Checkpoint:
    first = merged.models[0]
    return _first(first) if isinstance(first, Merged) else first


def _loras(merged: Merged) -> tuple[Fused, ...]:
    """Those of the recipes that it is made of, and its own."""
    inner = (one for model in merged.models if isinstance(model, Merged) for one in _loras(model))
    return (*inner, *merged.loras)


def _without_norms(one: Fused, blocks: BlockMap) -> LoraAudit:
    """What a LoRA of the recipe is; the norm of its change is part of that of its block."""
    changes = one.adapter.changes
    return audit_lora(
        one.lora,
        one.adapter,
        [Step(0, change, weight_of(one.lora, change.tensor, blocks), None) for change in changes],
    )
