"""What a recipe made: its loaded weights held against those of its first model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch

from bench.checkpoints.blocks import BlockMap, block_of, count_blocks, weight_of
from bench.checkpoints.checkpoint import Checkpoint
from bench.lora.audit import audit_lora, block_changes, measure_change
from bench.merge.merged import Fused, Merged, recipe_in, recipe_of
from bench.merge.write import without_folder
from bench.records import LoraAudit, MergeAudit

TOLD_APART = ("schema", "method", "models", "loras", "metadata")

"""Fields of a recipe that an audit has a place of their own for, or none."""


def audit_recipe(checkpoint: Checkpoint, parameters: Mapping[str, torch.Tensor]) -> MergeAudit | None:
    """What a recipe made of the components that it gives; None without one. Where there are two, the UNet's."""
    merged = recipe_in(checkpoint)
    if merged is None:
        return None
    made = [name for name in parameters if recipe_of(checkpoint, name.partition(".")[0]) is merged]
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
    return MergeAudit(
        method=recipe.method,
        models=recipe.models,
        asked=_asked(merged),
        base=without_folder(first.what),
        given=tuple(one.lora for one in loras),
        loras=tuple(_without_norms(one, blocks) for one in loras),
        blocks=block_changes(totals),
        rounded_away=_rounded_away([numbers for _, numbers in totals]),
    )


def _asked(merged: Merged) -> dict[str, Any]:
    """What a recipe says beside its method and models, and what the recipes say that it is made of, by their names."""
    fields: dict[str, Any] = msgspec.to_builtins(merged.recipe)
    asked = {
        name: value for name, value in fields.items() if name not in TOLD_APART and value not in (None, (), [], {})
    }
    sources = zip((*merged.recipe.models, merged.recipe.vae), (*merged.models, merged.vae), strict=True)
    inner = {
        str(name): {"method": source.recipe.method, "models": list(source.recipe.models), **_asked(source)}
        for name, source in sources
        if isinstance(source, Merged)
    }
    return asked | ({"recipes": inner} if inner else {})


def _rounded_away(changes: Sequence[torch.Tensor]) -> float:
    """Share of the entries meant to change that are the same number in the precision that is run."""
    _, _, moved, kept, _ = torch.stack(list(changes)).sum(0).tolist() if changes else [0.0] * 5
    return 1.0 - kept / moved if moved else 0.0


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
        [(change, weight_of(one.lora, change.tensor, blocks), None) for change in changes],
    )
