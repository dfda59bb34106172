"""One loaded pipeline that is switched between the variants of its checkpoint, and back to the original weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch.utils.hooks import RemovableHandle

from bench.checkpoints.blocks import UNET, BlockMap, block_of, count_blocks, weight_of
from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.finite import count_non_finite
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import Adapter, Change
from bench.lora.apply import AdapterParts, attach, fuse_into, read_loras, refuse_fused_only
from bench.lora.audit import Step, audit_lora, block_changes, find_non_finite
from bench.machine import lone_threads, release_memory, reuse_freed_memory
from bench.merge.audit import audit_recipe
from bench.merge.load import open_checkpoint, open_part
from bench.merge.merged import recipe_in, recipe_of
from bench.pipeline.build import build_pipeline, module_of, named_parameters
from bench.pipeline.compiling import Uncompiled
from bench.pipeline.phases import Phase, WeightsByStep, changes_by_step, phases_of
from bench.pipeline.runtimes import start_runtime
from bench.records import Audit, Lora, LoraAudit, MergeAudit, QuantizedLayers, Settings, Variant
from bench.suite.step_ranges import elsewhere, steps_text

Made = TypeVar("Made")

SPARE_BYTES = 8 * 2**30
"""Device memory that drawing needs; original weights are kept on the device only where this is left beside them."""


@dataclass
class Model:
    """A loaded pipeline, and what of it is not as it was loaded."""

    pipe: Any
    checkpoint: Checkpoint
    base: tuple[str | None, ...]
    """What a variant shares with the loaded one, so that it needs no other load: see ``base_of``."""
    settings: Settings
    blocks: BlockMap
    """The shape of the UNet."""
    parameters: dict[str, torch.Tensor]
    original: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights as the checkpoint has them, in stored precision, of every tensor that was changed so far."""
    modified: set[str] = field(default_factory=set)
    """The tensors that are changed now."""
    hooks: list[Any] = field(default_factory=list)
    """What ``restore`` removes: unfused LoRAs, and what the variant's runtime put in."""
    loras: list[tuple[Lora, Adapter]] = field(default_factory=list)
    """Those of the variant, as they were last read."""
    merge: MergeAudit | None = None
    """What a recipe made; None of any other checkpoint, and before it is asked for."""
    non_finite: dict[str, int] = field(default_factory=dict)
    """Numbers of the checkpoint that are NaN or infinite as they are run, by tensor; empty before it is asked for."""


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
    blocks = count_blocks(checkpoint.tensors)
    return Model(pipe, checkpoint, base_of(variant), settings, blocks, dict(named_parameters(pipe)))


def load_pipeline(variant: Variant, settings: Settings, *, device: str, weights_dir: Path | None = None) -> Any:
    """Load a variant for itself alone: a pipeline with its LoRAs, and no memory spent on changing to another.

    Raises:
        WeightsError: a file is missing, damaged or of another shape, or a LoRA was not wholly applied.
    """
    model = load_model(variant, settings, device=device, weights_dir=weights_dir)
    apply_loras(model, variant, weights_dir, keep=False)
    apply_runtime(model, variant)
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
    audit = apply_loras(model, variant, weights_dir, keep=True)
    return model, msgspec.structs.replace(audit, quantized=apply_runtime(model, variant))


def apply_runtime(model: Model, variant: Variant) -> QuantizedLayers | None:
    """Let a model run as its variant says, its LoRAs applied; ``restore`` takes it away. Errors of ``start_runtime``.

    Returns:
        What was quantised.
    """
    if variant.runtime is None:
        return None
    started, quantized = start_runtime(model.pipe, variant, model.settings)
    model.hooks += started
    return quantized


def _emptied(model: Model) -> Any:
    """The pipeline of a model that keeps nothing more, whoever still holds it: the next one needs the memory."""
    pipe, model.pipe = restore(model).pipe, None
    model.original.clear()
    model.parameters.clear()
    return pipe


@torch.no_grad()
def restore(model: Model) -> Model:
    """Put back the original weights, bit for bit, and take away unfused LoRAs and the runtime."""
    model.pipe.weights_by_step = None
    for hook in model.hooks:
        hook.remove()
    model.hooks.clear()
    for name in model.modified:
        model.parameters[name].copy_(model.original[name], non_blocking=True)
    model.modified.clear()
    return model


def apply_loras(model: Model, variant: Variant, weights_dir: Path | None, *, keep: bool) -> Audit:
    """Apply a variant's LoRAs to a model that has none: fused into the weights, or unfused (``fuse = false``).

    Args:
        model: as ``load_model`` or ``restore`` left it.
        variant: of the model's checkpoint.
        weights_dir: local weights instead of downloads.
        keep: whether the original weights are kept for ``restore``.

    Raises:
        WeightsError: a LoRA is missing, damaged, fits no part of the checkpoint, changes nothing, cannot run unfused,
            or makes weights that are not finite.
        SuiteError: it names blocks that the UNet does not have.
    """
    model.loras = read_loras(model.checkpoint.tensors, variant, weights_dir)
    # What runs unfused is not rounded into the weights.
    dtype: torch.dtype = getattr(torch, model.settings.dtype) if variant.fuse else torch.float32
    by_step = changes_by_step(variant)
    steps, totals = change_weights(model, model.loras, fuse=variant.fuse, keep=keep or by_step, measured_in=dtype)
    _refuse_overflow(model, totals, dtype)
    audits = tuple(audit_lora(lora, adapter, own) for (lora, adapter), own in zip(model.loras, steps, strict=True))
    for audit in audits:
        if any(one.weight for one in audit.modules) and not any(one.relative_change for one in audit.modules):
            raise WeightsError(
                f"{audit.path}: changes nothing: in all of its {len(audit.modules)} modules the change is zero.",
                "check that the file is the end of a training, not its beginning",
            )
    if by_step:
        follow_steps(model, variant, weights_dir)
        audits = _with_steps(model, audits)
    return Audit(
        checkpoint=model.checkpoint.facts,
        dtype=model.settings.dtype,
        loras=audits,
        blocks=block_changes((block_of(tensor, model.blocks), whole) for tensor, whole in totals.items()),
        non_finite=model.non_finite,
        merge=model.merge,
    )


def change_weights(
    model: Model,
    loras: Sequence[tuple[Lora, Adapter]],
    *,
    fuse: bool,
    keep: bool = True,
    measured_in: torch.dtype | None = None,
    factors: Sequence[float] | None = None,
    base: Checkpoint | None = None,
) -> tuple[list[list[Step]], dict[str, torch.Tensor]]:
    """Apply LoRAs tensor by tensor, each file read once.

    Args:
        model: whose weights are changed, or whose modules get LoRAs that run unfused.
        loras: matched to its checkpoint.
        fuse: into the weights; else unfused, which ``restore`` takes away.
        keep: whether the original weights are kept for ``restore``.
        measured_in: the precision in which the changes are measured; None measures nothing.
        factors: what each LoRA's weights are multiplied with; fused LoRAs of factor 0 are left out, unfused ones read
            theirs anew at each call. None is 1 throughout.
        base: has the UNet that is changed, where it is not the model's own.

    Returns:
        What each LoRA did, and the sizes of each tensor's whole change, as ``measure_change`` gives them.

    Raises:
        WeightsError: a value is not finite, or a LoRA cannot run unfused and is not to be fused.
    """
    factors = [1.0] * len(loras) if factors is None else factors
    changes: dict[str, list[tuple[int, Change]]] = {}
    for index, (_, adapter) in enumerate(loras):
        for change in adapter.changes if factors[index] or not fuse else ():
            changes.setdefault(change.tensor, []).append((index, change))
    # All before the first is changed: kept weights between what is computed would leave it fresh memory only.
    into = {tensor: _changeable(model, tensor, keep) for tensor in changes} if fuse else {}
    if loras and not fuse:
        refuse_fused_only(loras)
        model.hooks.append(Uncompiled(model.pipe.unet))  # what is compiled takes no notice of hooks
    reuse_freed_memory()
    files = [AdapterParts(adapter.path, str(model.pipe.device)) for _, adapter in loras]

    def change_one(tensor: str) -> tuple[list[float], torch.Tensor | None, list[RemovableHandle]]:
        own = changes[tensor]
        strengths = [
            weight_of(loras[index][0], tensor, model.blocks) * (factors[index] if fuse else 1.0) for index, _ in own
        ]
        parts = [files[index].of(change) for index, change in own]
        scaled = list(zip([change for _, change in own], parts, strengths, strict=True))
        measured = fuse or measured_in is not None
        sizes = fuse_into(_original(model, tensor, base), scaled, measured_in, into.get(tensor)) if measured else None
        if fuse:
            return strengths, sizes, []
        module = module_of(model.pipe, tensor)
        return strengths, sizes, [attach(module, *one, factors, i) for (i, _), one in zip(own, scaled, strict=True)]

    steps: list[list[Step]] = [[] for _ in loras]
    totals: dict[str, torch.Tensor] = {}
    for tensor, (strengths, sizes, hooks) in zip(changes, _each(model.pipe.device, change_one, changes), strict=True):
        model.hooks += hooks
        if sizes is not None:
            totals[tensor] = sizes[-1]
            for (index, change), strength, size in zip(changes[tensor], strengths, sizes, strict=False):
                steps[index].append((change, strength, size))
    return steps, totals


def _each(device: torch.device, work: Callable[[str], Made], items: Iterable[str]) -> Iterator[Made]:
    """What is made of each, in order; on a processor by as many threads as torch may use."""
    if device.type != "cpu":
        yield from map(work, items)
        return
    with lone_threads(torch.get_num_threads()) as threads:
        yield from threads.map(work, items)


def _refuse_overflow(model: Model, totals: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Refuse changed weights that are not finite, saying whether the checkpoint or its LoRAs are the cause."""
    counts = torch.stack(list(totals.values()))[:, 4].tolist() if totals else []  # one wait for the device
    bad = {tensor: int(count) for tensor, count in zip(totals, counts, strict=True) if count}
    for tensor in bad:
        if count_non_finite(model.checkpoint.read(tensor)):  # the parameter may be overwritten already
            raise WeightsError(
                f"{model.checkpoint.what}: {tensor} holds values that are not finite.",
                "get the checkpoint again, and compare its size and sha256 with the source's",
            )
    if bad:
        tensor, count = next(iter(bad.items()))
        more = f" (and {len(bad) - 1} more tensors are so)" if len(bad) > 1 else ""
        raise WeightsError(
            f"{listed((lora.path for lora, _ in model.loras), 3)}: at the weights that are asked for, "
            f"{count} values of {tensor} overflow {str(dtype).removeprefix('torch.')}{more}.",
            "give smaller weights, or check the file's alpha",
        )


def _original(model: Model, tensor: str, base: Checkpoint | None = None) -> torch.Tensor:
    """A tensor as the checkpoint has it, in stored precision, on the parameter's device; or as ``base`` has it."""
    parameter = model.parameters[tensor]
    if base is not None and tensor.startswith(UNET):
        return base.read(tensor).to(parameter.device)
    if tensor in model.original:
        return model.original[tensor].to(parameter.device, non_blocking=True)
    computed = recipe_of(model.checkpoint, tensor.partition(".")[0]) is not None
    if model.checkpoint.tensors[tensor].dtype == model.settings.dtype and not computed:
        return parameter.detach()
    return model.checkpoint.read(tensor).to(parameter.device)


def _changeable(model: Model, tensor: str, keep: bool) -> torch.Tensor:
    """The parameter to write a tensor into, once its original is kept; ``restore`` puts that back."""
    parameter = model.parameters[tensor]
    if keep and tensor not in model.original:
        original = _original(model, tensor)
        model.original[tensor] = _kept(original, copy=original.data_ptr() == parameter.data_ptr())
    model.modified.add(tensor)
    return parameter


def _kept(weight: torch.Tensor, *, copy: bool = True) -> torch.Tensor:
    """A weight that is not in use: on its device while drawing has enough beside it, else in the host's memory.

    There a GPU's are pinned, so that nothing waits while they are put back. ``copy`` says whether it is in use, too.
    """
    if weight.device.type != "cuda" or torch.cuda.mem_get_info(weight.device)[0] >= SPARE_BYTES:
        return weight.clone() if copy else weight
    return torch.empty(weight.shape, dtype=weight.dtype, pin_memory=True).copy_(weight)


# Weights that change by step.


@torch.no_grad()
def follow_steps(model: Model, variant: Variant, weights_dir: Path | None) -> None:
    """Make ready the weights of each phase of a variant, so that ``denoise`` can put them in place by step.

    Args:
        model: with the variant's LoRAs read.
        variant: whose weights depend on the step.
        weights_dir: local weights instead of downloads.

    Raises:
        WeightsError: a LoRA that follows steps would change a text encoder; or another UNet is missing or does not fit.
    """
    _refuse_text_encoders(model, variant)
    phases = phases_of(variant, model.settings.steps)
    others = {
        name: open_part("unet", name, weights_dir, model.checkpoint) for name in {one.unet for one in phases} - {""}
    }
    made: dict[tuple[object, ...], dict[str, torch.Tensor]] = {}
    for phase in phases:
        if phase[1:] not in made:
            made[phase[1:]] = _weights_of(model, variant, phase, others.get(phase.unet))
    differing = set().union(*made.values())
    for weights in made.values():
        weights |= {name: model.original[name] for name in differing - weights.keys()}
    restore(model)
    strengths = list(phases[0].factors)
    if not variant.fuse:
        change_weights(model, model.loras, fuse=False, factors=strengths)
    model.modified |= differing
    ready = [made[phase[1:]] for phase in phases]
    model.pipe.weights_by_step = WeightsByStep(model.parameters, phases, ready, strengths, now=-1)
    model.pipe.weights_by_step.enter(1)


def _with_steps(model: Model, audits: Sequence[LoraAudit]) -> tuple[LoraAudit, ...]:
    """The audits, with the steps that each LoRA runs in and how that is set elsewhere."""
    scheduler, steps = model.pipe.scheduler, model.settings.steps
    scheduler.set_timesteps(steps)
    timesteps = [float(t) for t in scheduler.timesteps[:: scheduler.order]]
    found = []
    for audit, (lora, _) in zip(audits, model.loras, strict=True):
        own = lora.step_factors
        said = (f"Runs {steps_text(own, steps)}.", elsewhere(own, timesteps)) if own else ()
        found.append(msgspec.structs.replace(audit, notes=(*audit.notes, *said)))
    return tuple(found)


def _weights_of(model: Model, variant: Variant, phase: Phase, other: Checkpoint | None) -> dict[str, torch.Tensor]:
    """The tensors that a phase has otherwise than the checkpoint, in the precision that is run."""
    restore(model)
    if other is not None:
        for name in [name for name in model.parameters if name.startswith(UNET)]:
            _changeable(model, name, keep=True).copy_(_original(model, name, other))
    if variant.fuse:
        change_weights(model, model.loras, fuse=True, factors=phase.factors, base=other)
    changed = {name: model.parameters[name] for name in model.modified}
    return {name: _kept(tensor) for name, tensor in changed.items()}


def _refuse_text_encoders(model: Model, variant: Variant) -> None:
    for lora, adapter in model.loras:
        touched = sorted(
            {
                change.tensor.partition(".")[0]
                for change in adapter.changes
                if not change.tensor.startswith(UNET) and weight_of(lora, change.tensor, model.blocks)
            }
        )
        if lora.step_factors and touched:
            off = " and ".join(f"{part} = 0" for part in touched)
            raise WeightsError(
                f"{lora.path}: follows steps, and would change {listed(touched)} too, which run once, before the first "
                "step.",
                f"give it {off} in variant {variant.name}, or leave its step_range out",
            )


# What ``bench.render.unfused`` needs: a recipe's LoRAs taken out of the weights again and run unfused.


def fused_by_recipe(model: Model) -> list[tuple[Lora, Adapter]]:
    """The LoRAs that a recipe fused into the model's weights, and what they change of the components that it gives.

    None of any other checkpoint. LoRAs of a recipe within the recipe do not count: what becomes of them depends on its
    arithmetic.
    """
    merged = recipe_in(model.checkpoint)
    found = []
    for one in () if merged is None else merged.loras:
        changes = tuple(
            change
            for change in one.adapter.changes
            if recipe_of(model.checkpoint, change.tensor.partition(".")[0]) is merged
        )
        if changes:
            found.append((one.lora, one.adapter._replace(changes=changes)))
    return found


@torch.no_grad()
def unfuse_recipe(model: Model, fused: Sequence[tuple[Lora, Adapter]]) -> None:
    """Put the recipe's weights without its LoRAs in place, and let these run unfused; ``restore`` undoes it.

    Args:
        model: of a recipe, as ``load_model`` or ``restore`` left it.
        fused: as ``fused_by_recipe`` gives them.
    """
    merged = recipe_in(model.checkpoint)
    if merged is None:
        return
    bare = merged.without_loras()
    for tensor in sorted({change.tensor for _, adapter in fused for change in adapter.changes}):
        parameter = _changeable(model, tensor, keep=True)
        parameter.copy_(bare.read(tensor, parameter.dtype))
    change_weights(model, fused, fuse=False)
