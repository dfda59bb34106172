"""What a recipe made: its loaded weights held against those of its first model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bench.records import LoraAudit, MergeAudit
from bench.variants.audit import Step, audit_lora, block_changes, measure_change
from bench.variants.blocks import BlockMap, block_of, count_blocks, weight_of
from bench.variants.recipes.merged import Fused, Merged


def audit_merge(merged: Merged, parameters: Mapping[str, torch.Tensor]) -> MergeAudit:
    """Measure a recipe's result.

    Args:
        merged: the recipe.
        parameters: the result by canonical name, as it is run, before a variant's own LoRAs.
    """
    first, recipe = merged.models[0], merged.recipe
    blocks = count_blocks(first.tensors)
    totals = []
    for name, after in parameters.items():
        if name in first.tensors and not name.startswith("vae."):
            before = first.read(name).to(after.device, after.dtype).float()
            totals.append((block_of(name, blocks), measure_change(before, after.float(), after.dtype)))
    return MergeAudit(
        method=recipe.method,
        models=recipe.models,
        given=tuple(one.lora for one in merged.loras),
        loras=tuple(_without_norms(one, blocks) for one in merged.loras),
        blocks=block_changes(totals),
    )


def _without_norms(one: Fused, blocks: BlockMap) -> LoraAudit:
    """What a LoRA of the recipe is; the norm of its change is part of that of its block."""
    changes = one.adapter.changes
    return audit_lora(
        one.lora,
        one.adapter,
        [Step(0, change, weight_of(one.lora, change.tensor, blocks), None) for change in changes],
    )
