"""What a checkpoint or LoRA file is, and what it would change in another checkpoint."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open

from bench.errors import WeightsError
from bench.records import Dtype, Inspection, Lora, Progress, Variant
from bench.variants import sources
from bench.variants.adapters import Adapter, read_adapter
from bench.variants.adapters.arithmetic import changed
from bench.variants.adapters.parts import check_values, read_parts
from bench.variants.audit import Step, audit_lora, block_changes, measure_change
from bench.variants.blocks import block_of, count_blocks
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.opening import open_checkpoint
from bench.variants.headers import read_shapes

FAMILIES = ("random:sdxl", "random:sd15", "mini")
"""Where a LoRA is placed that is looked at for itself: the first of which every key fits."""
OF_CHECKPOINTS = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.embedders.",
    "model_ema.",
)


def inspect_file(
    name: str,
    *,
    against: str | None = None,
    weight: float = 1.0,
    dtype: Dtype = "float16",
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at a checkpoint or a LoRA, alone or against a checkpoint; every value is read.

    Args:
        name: whatever a suite may name as a checkpoint or a LoRA.
        against: a checkpoint; what a LoRA would change in it, or how far another checkpoint is from it.
        weight: of the LoRA.
        dtype: precision for which the share of changes that are rounded away is computed.
        weights_dir: local weights instead of downloads.
        progress: told how many tensors are read.

    Raises:
        WeightsError: a file is missing, damaged, neither checkpoint nor LoRA, or its keys do not all fit.
    """
    base = None if against is None else open_checkpoint(Variant(name="base", checkpoint=against), weights_dir)
    if is_lora(name):
        path = Path(sources.fetch(sources.find_lora(name, weights_dir)).path or "")
        return _inspect_lora(name, path, base, weight, dtype, progress)
    found = open_checkpoint(Variant(name="it", checkpoint=name), weights_dir)
    return _inspect_checkpoint(name, found, base, progress)


def is_lora(name: str) -> bool:
    """Whether a name is that of a LoRA: ``mini:spo``, a file of a Hub repository, or a file with a LoRA's keys."""
    if ":" in name and not name.startswith("random:") and not Path(name).exists():
        return True
    path = Path(name).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    return not any(key.startswith(OF_CHECKPOINTS) for key in read_shapes(path))


def _inspect_lora(
    name: str, path: Path, base: Checkpoint | None, weight: float, dtype: Dtype, progress: Progress | None
) -> Inspection:
    adapter, placed = _place(path, base)
    lora = Lora(path=name, weight=weight)
    check_values(adapter)
    blocks = count_blocks(placed.tensors)
    steps = []
    with read_parts(path) as parts:
        for done, change in enumerate(adapter.changes):
            numbers = None
            if base is not None:
                before = base.read(change.tensor).float()
                after = changed(change, before, parts.of(change), weight)
                numbers = measure_change(before, after, getattr(torch, dtype))
            steps.append(Step(0, change, weight, numbers))
            _tell(progress, done + 1, len(adapter.changes), name)
    totals = [(block_of(step.change.tensor, blocks), step.numbers) for step in steps if step.numbers is not None]
    return Inspection(
        path=name,
        kind="lora",
        files={path.name: sha256(path)},
        checkpoint=None,
        lora=audit_lora(lora, adapter, steps),
        tensors=adapter.applied,
        parameters={"lora": sum(math.prod(shape) for shape in read_shapes(path).values())},
        non_finite={},  # such a LoRA is refused
        against=None if base is None else base.what,
        dtype=None if base is None else dtype,
        blocks=block_changes(totals),
        metadata=read_metadata(path),
    )


def _place(path: Path, base: Checkpoint | None) -> tuple[Adapter, Checkpoint]:
    """The LoRA matched to the checkpoint, or without one to the first family that it fits."""
    if base is not None:
        return read_adapter(path, base.tensors), base
    refusals = []
    for family in FAMILIES:
        checkpoint = open_checkpoint(Variant(name="family", checkpoint=family), None)
        try:
            return read_adapter(path, checkpoint.tensors), checkpoint
        except WeightsError as error:
            refusals.append(error)
    raise WeightsError(
        f"{path}: fits no family that is known here ({', '.join(FAMILIES)}). For the first: {refusals[0].message}",
        f"hotart-bench inspect {shlex.quote(str(path))} --against CHECKPOINT",
    )


def _inspect_checkpoint(name: str, found: Checkpoint, base: Checkpoint | None, progress: Progress | None) -> Inspection:
    there = {} if base is None else base.tensors
    blocks = count_blocks(found.tensors)
    bad: dict[str, int] = {}
    totals: list[tuple[str, torch.Tensor]] = []
    equal = 0
    for done, tensor in enumerate(found.tensors):
        value = found.read(tensor)
        bad[tensor] = int((~value.isfinite()).sum())
        if base is not None and tensor in there:
            other = _read_alike(base, tensor, value.shape)
            equal += bool(torch.equal(other.float(), value.float()))
            numbers = measure_change(_only_finite(other), _only_finite(value), torch.float32)
            totals.append((block_of(tensor, blocks), numbers))
        _tell(progress, done + 1, len(found.tensors), name)
    return Inspection(
        path=name,
        kind="checkpoint",
        files={_file_name(component, path): sha256(path) for component, path in found.files},
        checkpoint=found.facts,
        lora=None,
        tensors=dict(Counter(_component(tensor) for tensor in found.tensors)),
        parameters=_parameters(found),
        non_finite={tensor: count for tensor, count in bad.items() if count},
        against=None if base is None else base.what,
        equal=equal,
        only_here=() if base is None else tuple(sorted(found.tensors.keys() - there.keys())),
        only_there=() if base is None else tuple(sorted(there.keys() - found.tensors.keys())),
        blocks=block_changes(totals),
        metadata={} if len(found.files) != 1 else read_metadata(found.files[0][1]),
    )


def _only_finite(value: torch.Tensor) -> torch.Tensor:
    """float32 with 0 for what is NaN or infinite, which is counted apart and would be all of a norm."""
    return value.float().nan_to_num(0.0, 0.0, 0.0)


def _read_alike(base: Checkpoint, tensor: str, shape: torch.Size) -> torch.Tensor:
    """A tensor of the other checkpoint, in the shape that it must have.

    Raises:
        WeightsError: it has another shape: a checkpoint of another family.
    """
    other = base.read(tensor)
    if other.shape != shape:
        raise WeightsError(
            f"{base.what}: {tensor} has the shape {tuple(other.shape)} there and {tuple(shape)} here: "
            "checkpoints of different families cannot be held against each other."
        )
    return other


def _parameters(found: Checkpoint) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, tensor in found.tensors.items():
        counts[_component(name)] += math.prod(tensor.shape)
    return dict(counts)


def _file_name(component: str, path: Path) -> str:
    return path.name if component == "checkpoint" else f"{component}/{path.name}"


def _component(tensor: str) -> str:
    return tensor.partition(".")[0]


def _tell(progress: Progress | None, done: int, total: int, note: str) -> None:
    if progress is not None:
        progress("inspect", done, total, note)


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header, by name."""
    with safe_open(path, "pt") as file:
        found: dict[str, str] | None = file.metadata()
    return dict(sorted((found or {}).items()))
