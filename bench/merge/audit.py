"""What a recipe made: its loaded weights compared with those of its first model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from bench.checkpoints.blocks import BlockMap, block_of, count_blocks, weight_of
from bench.checkpoints.checkpoint import Checkpoint, component_of
from bench.lora.audit import Step, audit_lora, block_changes, measure_change
from bench.merge.merged import Fused, Merged, recipe_in, recipe_of
from bench.merge.write import without_folder
from bench.records import LoraAudit, MergeAudit

OTHER_FIELDS = ("schema", "method", "models", "loras", "metadata")
"""Fields of a recipe that ``MergeAudit.fields`` leaves out."""


def audit_recipe(checkpoint: Checkpoint, parameters: Mapping[str, torch.Tensor]) -> MergeAudit | None:
    """What a recipe made of the components that it gives; None without one. Where there are two, the UNet's."""
    merged = recipe_in(checkpoint)
    if merged is None:
        return None
    made = [name for name in parameters if recipe_of(checkpoint, component_of(name)) is merged]
    return audit_merge(merged, {name: parameters[name] for name in made})


def audit_merge(merged: Merged, parameters: Mapping[str, torch.Tensor]) -> MergeAudit:
    """Measure a recipe's result, against its first model, or that one's where it is a recipe itself.

    Args:
        merged: the recipe.
        parameters: where the tensors are that it made, by canonical name, and in which precision they are run.
    """
    first, recipe, loras = _first(merged), merged.recipe, _loras(merged)
    blocks = count_blocks(first.tensors)
    totals = []
    for name, run in parameters.items():
        if name in first.tensors:
            # As it was computed, not as it is run: what rounding takes away is to be seen.
            before, after = (source.read(name).to(run.device).float() for source in (first, merged))
            totals.append((block_of(name, blocks), measure_change(before, after, run.dtype)))
    sums = torch.stack([numbers for _, numbers in totals]).sum(0).tolist() if totals else [0.0] * 5
    _, _, moved, kept, _ = sums
    return MergeAudit(
        method=recipe.method,
        models=recipe.models,
        fields=_fields(merged),
        base=without_folder(first.what),
        fused_loras=tuple(one.lora for one in loras),
        loras=tuple(_without_norms(one, blocks) for one in loras),
        blocks=block_changes(totals),
        rounded_away=1.0 - kept / moved if moved else 0.0,
    )


def _fields(merged: Merged) -> dict[str, Any]:
    """What else a recipe says, and under ``recipes`` the same of those that it is made of, by their names in it."""
    fields: dict[str, Any] = {
        name: value
        for name, value in msgspec.to_builtins(merged.recipe).items()
        if name not in OTHER_FIELDS and value not in (None, (), [], {})
    }
    sources = zip((*merged.recipe.models, merged.recipe.vae), (*merged.models, merged.vae), strict=True)
    recipes = {
        str(name): {"method": source.recipe.method, "models": list(source.recipe.models), **_fields(source)}
        for name, source in sources
        if isinstance(source, Merged)
    }
    return fields | ({"recipes": recipes} if recipes else {})


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
