"""What a checkpoint or LoRA file is, and what it would change; also a file from which no image can be rendered."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch

from bench.checkpoints.blocks import BlockMap, block_of, count_blocks
from bench.checkpoints.checkpoint import Checkpoint, component_of
from bench.checkpoints.configurations import LoneConfig, read_config
from bench.checkpoints.detect import LORA, detect
from bench.checkpoints.diffusers_folder import CLASS_NAMES, open_component
from bench.checkpoints.finite import count_non_finite
from bench.checkpoints.locate import SHIPPED, fetch, find_checkpoint, find_lora, lora_in, refuse_pickle
from bench.checkpoints.safetensors_files import read_header, weight_files, weights_sha256
from bench.errors import UsageError, WeightsError
from bench.formatting import argument
from bench.lora.algorithms import Adapter
from bench.lora.apply import AdapterParts, check_values, fuse_into
from bench.lora.audit import Step, audit_lora, block_changes, measure_change
from bench.lora.parse import OtherFamilyError, parse_key, read_adapter
from bench.merge.load import open_named
from bench.records import ChangedModule, Component, Dtype, Inspection, Lora, Progress
from bench.records.weights import Family

FAMILIES = ("random:sdxl", "random:sd15", "mini")
"""What a LoRA alone is matched to: the first of these that every key fits."""

DTYPE: Dtype = "float16"
NO_UNET = BlockMap(0, 0, frozenset())


def find_lora_file(name: str, weights_dir: Path | None) -> Path | None:
    """The file of a LoRA, fetched where it is missing; None where the name is that of something else.

    Args:
        name: ``mini:spo``, a file, a file of a Hub repository, or any name of a checkpoint.
        weights_dir: a folder to look in before the Hub.

    Raises:
        WeightsError: there is no such thing, a pickle, or a file that is damaged.
    """
    family, _, part = name.partition(":")
    if family in SHIPPED and part:
        return Path(find_lora(name, weights_dir).path or "")
    refuse_pickle(name)
    path = Path(name).expanduser()
    path = lora_in(path) or path
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file raises for a name that is too long
        path = Path(fetch(find_checkpoint(name, None, weights_dir)).path or "")
    if not path.is_file() or path.suffix == ".toml":
        return None
    keys = read_header(path).tensors
    # A LoRA has a key that no checkpoint has, or none that a LoRA could not have.
    is_lora = any(LORA.search(key) for key in keys) or (bool(keys) and all(parse_key(key) for key in keys))
    return path if is_lora else None


def open_any(name: str, weights_dir: Path | None) -> Checkpoint:
    """Whatever a suite or recipe names, except LoRAs: also an inpainting model, or a UNet or VAE alone.

    Raises:
        WeightsError: it is missing, damaged, or not a checkpoint.
    """
    path = Path(fetch(find_checkpoint(name, None, weights_dir)).path or "")
    if not path.is_dir() or (path / "model_index.json").is_file():
        return open_named(name, None, weights_dir)
    folders = [folder for folder in (path / "unet", path / "vae", path) if (folder / "config.json").is_file()]
    if not folders:
        return open_named(name, None, weights_dir)  # which says what is missing
    if len(folders) > 1:
        raise WeightsError(
            f"{name}: holds a unet and a vae, and no model_index.json that makes them a pipeline.",
            f"hotart-bench inspect {argument(folders[0])}",
        )
    return _open_lone(folders[0], name)


def _open_lone(folder: Path, name: str) -> Checkpoint:
    """A folder of a UNet or a VAE alone."""
    stored = {key: found for file in weight_files(folder) for key, found in read_header(file).tensors.items()}
    config = read_config(folder / "config.json", LoneConfig)
    component: Component = "vae" if config.get("_class_name") == CLASS_NAMES["vae"] else "unet"
    if stored:
        kind = detect(name, stored)
        if kind == "checkpoint":
            raise WeightsError(f"{name}: is neither a folder of a UNet or VAE, nor a pipeline.")
        component = kind
    family: Family = "sdxl" if config.get("addition_embed_type") == "text_time" else "sd15"
    return open_component(folder, component, name, family)


def inspect_file(
    name: str,
    *,
    against: str | None = None,
    weight: float | None = None,
    dtype: Dtype | None = None,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at a checkpoint or a LoRA, alone or against a checkpoint; every value is read.

    Also what no image can be rendered from alone: an inpainting model, a lone UNet or VAE.

    Args:
        name: whatever a suite or recipe may name as a checkpoint, a UNet, a VAE or a LoRA.
        against: a checkpoint; what a LoRA would change in it, or how far another checkpoint is from it.
        weight: of the LoRA; 1 where it is None.
        dtype: precision for which the share of changes that are rounded away is computed; float16 where it is None.
        weights_dir: a folder to look in before the Hub.
        progress: told how many tensors are read.

    Raises:
        UsageError: a weight or dtype where no LoRA is inspected.
        WeightsError: a file is missing, damaged, neither checkpoint nor LoRA, or its keys do not all fit.
    """
    path = find_lora_file(name, weights_dir)
    if path is None and weight is not None:
        raise UsageError(f"--weight is that of a LoRA, and {name} is a checkpoint.", "leave --weight out")
    if dtype is not None and (path is None or against is None):
        raise UsageError(
            "--dtype is the precision of weights that a LoRA changes: it needs a LoRA, and --against a checkpoint.",
            "leave --dtype out",
        )
    base = None if against is None else open_any(against, weights_dir)
    if path is not None:
        return _inspect_lora(name, path, base, 1.0 if weight is None else weight, dtype or DTYPE, progress)
    return _inspect_checkpoint(name, open_any(name, weights_dir), base, progress)


def _inspect_lora(
    name: str, path: Path, base: Checkpoint | None, weight: float, dtype: Dtype, progress: Progress | None
) -> Inspection:
    adapter, matched = _match(path, base)
    header = read_header(path)
    lora = Lora(path=name, weight=weight)
    check_values(adapter)
    blocks = count_blocks(matched.tensors)
    steps: list[Step] = []
    bad: dict[str, int] = {}
    parts = AdapterParts(path)
    for done, change in enumerate(adapter.changes):
        sizes = None
        if base is not None:
            scaled = (change, parts.of(change), weight)
            sizes = fuse_into(base.read(change.tensor), [scaled], getattr(torch, dtype), None)[-1]
            bad[change.tensor] = int(sizes[-1])
        steps.append((change, weight, sizes))
        _tell(progress, done + 1, len(adapter.changes), name)
    totals = [(block_of(change.tensor, blocks), sizes) for change, _, sizes in steps if sizes is not None]
    audit = audit_lora(lora, adapter, steps)
    return Inspection(
        path=name,
        kind="lora",
        files={path.name: weights_sha256(path)},
        checkpoint=None,
        lora=msgspec.structs.replace(audit, modules=tuple(_only_numbers(one) for one in audit.modules)),
        tensors=adapter.applied,
        parameters={"lora": sum(math.prod(stored.shape) for stored in header.tensors.values())},
        non_finite={tensor: count for tensor, count in bad.items() if count},
        against=None if base is None else base.what,
        dtype=None if base is None else dtype,
        blocks=_blocks(totals),
        metadata=dict(sorted(header.metadata.items())),
    )


def _match(path: Path, base: Checkpoint | None) -> tuple[Adapter, Checkpoint]:
    """The LoRA matched to the checkpoint, or without one to the first family that it fits."""
    if base is not None:
        return read_adapter(path, base.tensors), base
    refusals = []
    for family in FAMILIES:
        checkpoint = open_named(family, None, None)
        try:
            return read_adapter(path, checkpoint.tensors), checkpoint
        except OtherFamilyError as error:
            refusals.append(error)
    raise WeightsError(
        f"{refusals[0].message} That is for {FAMILIES[0]}; it fits {' and '.join(FAMILIES[1:])} no better.",
        f"hotart-bench inspect {argument(path)} --against CHECKPOINT",
    )


def _inspect_checkpoint(name: str, found: Checkpoint, base: Checkpoint | None, progress: Progress | None) -> Inspection:
    there = {} if base is None else base.tensors
    if base is not None:
        _refuse_other_shapes(found, base)
    blocks = count_blocks(found.tensors) if any(component_of(tensor) == "unet" for tensor in found.tensors) else NO_UNET
    bad: dict[str, int] = {}
    totals: list[tuple[str, torch.Tensor]] = []
    equal = 0
    for done, tensor in enumerate(found.tensors):
        value = found.read(tensor)
        bad[tensor] = count_non_finite(value)
        if base is not None and tensor in there:
            other = base.read(tensor)
            equal += bool(torch.equal(other.float(), value.float()))
            numbers = measure_change(_only_finite(other), _only_finite(value), torch.float32)
            totals.append((block_of(tensor, blocks), numbers))
        _tell(progress, done + 1, len(found.tensors), name)
    parameters: Counter[str] = Counter()
    for tensor, known in found.tensors.items():
        parameters[component_of(tensor)] += math.prod(known.shape)
    one_file = len(found.files) == 1 and found.facts.layout != "recipe"
    metadata = read_header(found.files[0][1]).metadata if one_file else {}
    return Inspection(
        path=name,
        kind="checkpoint",
        files=_hashes(found.files),
        checkpoint=found.facts,
        lora=None,
        tensors=dict(Counter(map(component_of, found.tensors))),
        parameters=dict(parameters),
        non_finite={tensor: count for tensor, count in bad.items() if count},
        against=None if base is None else base.what,
        equal=equal,
        only_here=() if base is None else tuple(sorted(found.tensors.keys() - there.keys())),
        only_there=() if base is None else tuple(sorted(there.keys() - found.tensors.keys())),
        blocks=_blocks(totals),
        metadata=dict(sorted(metadata.items())),
    )


def _only_finite(value: torch.Tensor) -> torch.Tensor:
    """float32 with 0 for what is NaN or infinite, which is counted apart and would be all of a norm."""
    return value.float().nan_to_num(0.0, 0.0, 0.0)


def _only_numbers(module: ChangedModule) -> ChangedModule:
    """The same without ratios that are not finite, since the weight or its change is not."""
    if module.relative_change is None or math.isfinite(module.relative_change):
        return module
    return msgspec.structs.replace(module, relative_change=None, rounded_away=None)


def _blocks(totals: Iterable[tuple[str, torch.Tensor]]) -> dict[str, float | None]:
    """As ``block_changes``, None where a sum is not finite."""
    return {name: change if math.isfinite(change) else None for name, change in block_changes(totals).items()}


def _refuse_other_shapes(found: Checkpoint, base: Checkpoint) -> None:
    """Raises WeightsError where a tensor of both has another shape in the one than in the other."""
    for name, tensor in found.tensors.items():
        other = base.tensors.get(name, tensor)
        if other.shape != tensor.shape:
            different = (
                "an inpainting model and one that is not"
                if found.facts.inpainting != base.facts.inpainting
                else "checkpoints of different families"
            )
            raise WeightsError(
                f"{base.what}: {name} has the shape {other.shape} there and {tensor.shape} here: "
                f"{different} cannot be compared."
            )


def _hashes(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """sha256 by the file's name, behind its component's; with as many folders as tell files of one name apart."""
    names = {
        (component, path): path.name if component == "checkpoint" else f"{component}/{path.name}"
        for component, path in files
    }
    known = {path: weights_sha256(path) for path in {path for _, path in names}}
    for depth in range(2, 1 + max((len(path.parts) for path in known), default=0)):
        counts = Counter(names.values())
        for file, name in names.items():
            if counts[name] > 1:
                names[file] = "/".join(file[1].parts[-depth:])
    return {name: known[path] for (_, path), name in names.items()}


def _tell(progress: Progress | None, done: int, total: int, note: str) -> None:
    if progress is not None:
        progress("inspect", done, total, note)
