"""A recipe's LoRAs taken out of a loaded model's weights again and run beside them, to see what fusing them moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.checkpoints.blocks import block_of, count_blocks, weight_of
from bench.checkpoints.checkpoint import Checkpoint, Tensor
from bench.checkpoints.finite import count_non_finite
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.apply import (
    AdapterParts,
    Applied,
    ScaledChange,
    attach,
    by_tensor,
    fuse_into,
    is_runtime,
    read_loras,
    read_parts,
)
from bench.lora.audit import (
    Step,
    audit_lora,
    block_changes,
    checkpoint_not_finite,
    find_non_finite,
    loras_overflow,
    non_finite_of,
    refuse_no_change,
)
from bench.machine import release_memory, reuse_freed_memory
from bench.merge.audit import audit_recipe
from bench.merge.load import open_checkpoint
from bench.merge.merged import Fused, Merged, recipe_in, recipe_of
from bench.pipeline.build import Uncompiled, build_pipeline, module_of, named_parameters
from bench.records import Audit, LoraAudit, MergeAudit, Settings, Variant

# A pipeline whose variants are changed in place: one load serves every variant of a checkpoint.

SPARE_BYTES = 8 * 2**30

"""Device memory that drawing needs; the kept weights lie on the device only where this is left beside them."""


@dataclass
class Model:
    """A loaded pipeline, and what of it is not as it was loaded."""

    pipe: Any
    checkpoint: Checkpoint
    base: tuple[str | None, ...]
    """What a variant shares with the loaded one, so that it needs no other load: see ``base_of``."""
    settings: Settings
    tensors: Mapping[str, Tensor]
    """The checkpoint's."""
    parameters: dict[str, torch.Tensor]
    original: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights as the checkpoint has them, in stored precision, of every tensor that was changed so far."""
    modified: set[str] = field(default_factory=set)
    """The tensors that are changed now."""
    hooks: list[Any] = field(default_factory=list)
    merge: MergeAudit | None = None
    """What a recipe made; None of any other checkpoint, and before it is asked for."""
    non_finite: dict[str, int] = field(default_factory=dict)
    """Numbers of the checkpoint that are NaN or infinite as they are run, by tensor; empty before it is asked for."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision that is run."""
        dtype: torch.dtype = getattr(torch, self.settings.dtype)
        return dtype


def base_of(variant: Variant) -> tuple[str | None, ...]:
    """Variants of which this is equal differ in LoRAs alone."""
    return (variant.checkpoint, variant.revision, variant.unet, variant.vae)


def load_model(
    variant: Variant, settings: Settings, *, device: str, weights_dir: Path | None = None, into: Any = None
) -> Model:
    """Load the checkpoint of a variant, without its LoRAs; ``into`` as ``build_pipeline`` takes it.

    Raises:
        WeightsError: a file is missing, damaged, or of another shape.
    """
    if device.startswith("cuda"):
        release_memory()
    checkpoint = open_checkpoint(variant, weights_dir)
    pipe = build_pipeline(checkpoint, settings, device, into)
    return Model(pipe, checkpoint, base_of(variant), settings, checkpoint.tensors, dict(named_parameters(pipe)))


def load_pipeline(variant: Variant, settings: Settings, *, device: str, weights_dir: Path | None = None) -> Any:
    """Load a variant for itself alone: a pipeline with its LoRAs, and no memory spent on changing to another.

    Raises:
        WeightsError: a file is missing, damaged or of another shape, or a LoRA was not wholly applied.
    """
    model = load_model(variant, settings, device=device, weights_dir=weights_dir)
    apply_loras(model, variant, weights_dir, keep=False)
    return model.pipe


def switch_variant(
    model: Model | None, variant: Variant, settings: Settings, *, device: str, weights_dir: Path | None
) -> tuple[Model, Audit]:
    """A model that holds a variant: the given one changed in place where it is of the same checkpoint.

    One of another checkpoint gives its networks, where they are of the same shape, and is of no use afterwards.

    Raises:
        WeightsError: a file is missing, damaged or of another shape, or a LoRA fits no part of the checkpoint.
    """
    if model is None or model.base != base_of(variant):
        old = None if model is None else _emptied(model)
        model = load_model(variant, settings, device=device, weights_dir=weights_dir, into=old)
        model.merge = audit_recipe(model.checkpoint, model.parameters)
        model.non_finite = find_non_finite(model.parameters)
    restore(model)
    return model, apply_loras(model, variant, weights_dir, keep=True)


def _part(tensor: str) -> str:
    return tensor.partition(".")[0]


def _emptied(model: Model) -> Any:
    """The pipeline of a model that keeps nothing more, whoever still holds it: the next one needs the memory."""
    pipe, model.pipe = restore(model).pipe, None
    model.original.clear()
    model.parameters.clear()
    return pipe


def restore(model: Model) -> Model:
    """Put back the checkpoint's own weights, bit for bit, and take away LoRAs that run beside them."""
    for hook in model.hooks:
        hook.remove()
    model.hooks.clear()
    with torch.no_grad():
        for name in model.modified:
            model.parameters[name].copy_(model.original[name])
    model.modified.clear()
    return model


def apply_loras(
    model: Model, variant: Variant, weights_dir: Path | None, *, keep: bool, fuse: bool | None = None
) -> Audit:
    """Apply a variant's LoRAs to a model that has none: fused into the weights, or beside them (``fuse = false``).

    Args:
        model: as ``load_model`` or ``restore`` left it.
        variant: of the model's checkpoint.
        weights_dir: local weights instead of downloads.
        keep: whether the weights are kept as they were, for ``restore``.
        fuse: instead of the variant's own wish.

    Raises:
        WeightsError: a LoRA is missing, damaged, fits no part of the checkpoint, changes nothing, or cannot run beside
            the weights.
        SuiteError: it names blocks that the UNet does not have.
    """
    fused = variant.fuse if fuse is None else fuse
    applied = read_loras(model.tensors, variant, weights_dir)
    blocks = count_blocks(model.tensors)
    dtype = model.dtype if fused else torch.float32  # what runs unfused is not rounded into them
    # All before the first is changed: kept weights between what is computed would leave it fresh memory only.
    into = {tensor: changeable(model, tensor, keep) for tensor in by_tensor(applied)} if fused else {}
    with ExitStack() as files:
        parts = [files.enter_context(read_parts(one.adapter.path, str(model.pipe.device))) for one in applied]
        steps, totals = _change(model, applied, parts, dtype, into)
        if not fused:
            attach_loras(model, applied, parts)
    bad = non_finite_of(totals)
    if bad:
        raise _overflow(model, variant, bad, dtype)
    return Audit(
        checkpoint=model.checkpoint.facts,
        dtype=model.settings.dtype,
        loras=_audits(applied, steps),
        blocks=block_changes((block_of(tensor, blocks), whole) for tensor, whole in totals.items()),
        non_finite=model.non_finite,
        merge=model.merge,
    )


def _change(
    model: Model,
    applied: Sequence[Applied],
    parts: Sequence[AdapterParts],
    dtype: torch.dtype,
    into: Mapping[str, torch.Tensor],
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Apply LoRAs tensor by tensor, writing into those of ``into``: what each did, and the whole of each tensor."""
    reuse_freed_memory()
    blocks = count_blocks(model.tensors)
    steps: list[Step] = []
    totals: dict[str, torch.Tensor] = {}
    for tensor, changes in by_tensor(applied).items():
        strong = [
            ScaledChange(change, parts[index].of(change), weight_of(applied[index].lora, tensor, blocks))
            for index, change in changes
        ]
        sizes = fuse_into(_original(model, tensor), strong, dtype, into.get(tensor))
        totals[tensor] = sizes.whole
        steps += [
            Step(index, change, one.strength, size)
            for (index, change), one, size in zip(changes, strong, sizes.steps, strict=True)
        ]
    return steps, totals


def _audits(applied: Sequence[Applied], steps: Sequence[Step]) -> tuple[LoraAudit, ...]:
    """The record of each LoRA. Raises WeightsError for one that changes nothing."""
    audits = tuple(
        audit_lora(one.lora, one.adapter, [step for step in steps if step.lora == index])
        for index, one in enumerate(applied)
    )
    for audit in audits:
        refuse_no_change(audit)
    return audits


def _overflow(model: Model, variant: Variant, bad: Mapping[str, int], dtype: torch.dtype) -> WeightsError:
    """The error for changed weights that are not finite, which says whose fault it is."""
    for tensor in bad:
        if count_non_finite(model.checkpoint.read(tensor)):  # the parameter may be overwritten already
            return checkpoint_not_finite(model.checkpoint.what, tensor)
    return loras_overflow([lora.path for lora in variant.loras], bad, dtype)


def _original(model: Model, tensor: str) -> torch.Tensor:
    """A tensor as the checkpoint has it, in stored precision, on the parameter's device."""
    parameter = model.parameters[tensor]
    if tensor in model.original:
        return model.original[tensor].to(parameter.device)
    if model.tensors[tensor].dtype == model.settings.dtype and recipe_of(model.checkpoint, _part(tensor)) is None:
        return parameter.detach()
    return model.checkpoint.read(tensor).to(parameter.device)


def changeable(model: Model, tensor: str, keep: bool) -> torch.Tensor:
    """The parameter to write a tensor into, once it is kept as it was; ``restore`` puts that back."""
    parameter = model.parameters[tensor]
    if keep and tensor not in model.original:
        model.original[tensor] = _original(model, tensor).to(_store(parameter), copy=True)
    model.modified.add(tensor)
    return parameter


def _store(parameter: torch.Tensor) -> torch.device:
    """Where a weight is kept as it was: beside its parameter, unless a device's memory is short."""
    if parameter.device.type == "cuda" and torch.cuda.mem_get_info(parameter.device)[0] < SPARE_BYTES:
        return torch.device("cpu")
    return parameter.device


def can_run_beside(model: Model, variant: Variant, weights_dir: Path | None) -> bool:
    """Whether every change of a variant's LoRAs is a plain product of two matrices."""
    applied = read_loras(model.tensors, variant, weights_dir)
    return all(is_runtime(change) for one in applied for change in one.adapter.changes)


def attach_loras(model: Model, applied: Sequence[Applied], parts: Sequence[AdapterParts]) -> None:
    """Let LoRAs run unfused, as extra products in every step; ``restore`` takes them away.

    Raises:
        WeightsError: one holds a change that is no plain product.
    """
    for one in applied:
        odd = [change.tensor for change in one.adapter.changes if not is_runtime(change)]
        if odd:
            raise WeightsError(
                f"{one.lora.path}: {len(odd)} of its changes can only be fused, such as that of {listed(odd, 1)}.",
                "leave out fuse = false",
            )
    model.hooks.append(Uncompiled(model.pipe.unet))  # what is compiled takes no notice of hooks
    blocks = count_blocks(model.tensors)
    for one, read in zip(applied, parts, strict=True):
        for change in one.adapter.changes:
            module, strength = module_of(model.pipe, change.tensor), weight_of(one.lora, change.tensor, blocks)
            model.hooks.append(attach(module, change, read.of(change), strength))


# A recipe's LoRAs taken out of a loaded model's weights again and run beside them, to see what fusing them moved.


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
