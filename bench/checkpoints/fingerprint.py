"""What a variant *is* (the hashes of its weights), and what it needs on this machine. No torch for known families."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from bench.checkpoints.checkpoint import Checkpoint, component_of
from bench.checkpoints.configurations import COMPONENTS, read_config
from bench.checkpoints.families import (
    PIPELINES,
    TOKENIZERS,
    family_tensors,
    is_provenance,
    read_pipeline_class,
)
from bench.checkpoints.locate import RANDOM, Place, fetch, find_lora
from bench.checkpoints.pins import check_pins
from bench.checkpoints.safetensors_files import autov3, weights_sha256
from bench.checkpoints.scheduler import refuse_settings
from bench.documents import read_bytes, sha256_of
from bench.errors import WeightsError
from bench.lora.algorithms import weights_of
from bench.lora.parse import read_adapter
from bench.merge.load import every_place, open_checkpoint, open_part
from bench.records import Fingerprint, Record, Settings, Suite, Variant, WeightFile
from bench.records.weights import NoiseSchedule
from bench.suite.runtimes import told_runtime

UNET_FILES = ("unet", "checkpoint")
"""Components of files that hold a UNet."""


def fingerprint(variant: Variant, weights_dir: Path | None = None, settings: Settings | None = None) -> Fingerprint:
    """Hash a variant's weight files, fetching those that are missing.

    The digest is the sha256 of the pipeline class, the checkpoint's noise schedule and kind of prediction, its
    components' configurations and tokenizers, the sha256 of each component's files (of random weights and recipes, what
    they are made by), the LoRAs' sha256, scales and weights in order, and the runtime with its packages' versions: not
    of names or paths, so that the same weights at another place are the same variant.

    Every file's header is read, so that what is cut short or does not fit is refused before anything is rendered.

    Args:
        variant: of a suite.
        weights_dir: a folder to look in before the Hub.
        settings: that are to draw it, where there are any.

    Raises:
        WeightsError: something is missing, damaged or no checkpoint, or a LoRA has a key that fits nothing in it; or
            the settings cannot draw the checkpoint; or a file of the Hub is another than ``fetch`` recorded.
        MachineError: the lock file cannot be read, or a package of the runtime is not installed.
    """
    checkpoint = open_checkpoint(variant, weights_dir)
    if settings is not None:
        refuse_settings(checkpoint.what, checkpoint.facts, settings)
    pipeline = read_pipeline_class(checkpoint.config)
    if checkpoint.facts.layout == "diffusers" or (checkpoint.config / "tokenizer").is_dir():
        _check_tokenizers(checkpoint.config, pipeline)
    paths = [Path(fetch(find_lora(lora.path, weights_dir)).path or "") for lora in variant.loras]
    check_pins(every_place(variant, weights_dir))
    adapters = [
        read_adapter(path, checkpoint.tensors, lora.leave_out) for path, lora in zip(paths, variant.loras, strict=True)
    ]
    changed = {change.tensor for adapter in adapters for change in adapter.changes}
    files = [_weight_file(component, path) for component, path in checkpoint.files]
    loras = [_weight_file(f"lora:{number}", path) for number, path in enumerate(paths)]
    facts = {
        "pipeline": pipeline,
        "schedule": _schedule(checkpoint),
        "configurations": _configurations(checkpoint),
        "tokenizers": _tokenizers(checkpoint.config),
        "files": [(file.component, file.sha256) for file in files],
        "loras": [
            (file.sha256, adapter.scales, weights_of(lora))
            for file, adapter, lora in zip(loras, adapters, variant.loras, strict=True)
        ],
        "fuse": variant.fuse,
    }
    facts |= _further(variant, checkpoint, weights_dir)
    return Fingerprint(
        name=variant.name,
        digest=sha256_of(json.dumps(facts, sort_keys=True).encode()),
        checkpoint=variant.checkpoint,
        pipeline=pipeline,
        files=(*files, *loras),
        loras=variant.loras,
        lora_mode="none" if not variant.loras else "fused" if variant.fuse else "unfused",
        modules_changed=len(changed),
        runtime=told_runtime(variant),
    )


def _further(variant: Variant, checkpoint: Checkpoint, weights_dir: Path | None) -> dict[str, Any]:
    """What few variants have, and is left out of the digests of all others."""
    facts: dict[str, Any] = {}
    if checkpoint.facts.noise != NoiseSchedule():
        facts["noise"] = msgspec.to_builtins(checkpoint.facts.noise)
    if checkpoint.identity:
        facts["identity"] = checkpoint.identity
    if variant.unet_steps:
        others = ((start, _other_unet(name, checkpoint, weights_dir)) for start, name in variant.unet_steps)
        facts["unet_steps"] = list(others)
    if variant.runtime is not None:
        facts["runtime"] = told_runtime(variant)
    return facts


def _other_unet(name: str, base: Checkpoint, weights_dir: Path | None) -> Any:
    """What a UNet is that runs in some steps; "" for the variant's own."""
    if not name:
        return ""
    part = open_part("unet", name, weights_dir, base)
    return [part.identity, [weights_sha256(path) for component, path in part.files if component in UNET_FILES]]


def _schedule(checkpoint: Checkpoint) -> dict[str, Any]:
    """The saved scheduler, with what counts of it as the checkpoint's files mark it.

    Settings that are left aside are still in it, so that the digests of earlier runs stay.
    """
    config = read_config(checkpoint.config / "scheduler" / "scheduler_config.json")
    facts = checkpoint.facts
    if facts.prediction != config.get("prediction_type", "epsilon"):
        config["prediction_type"] = facts.prediction
    if facts.zero_terminal_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _check_tokenizers(folder: Path, pipeline: str) -> None:
    """Raise WeightsError for a tokenizer without its words: transformers makes an empty one and says nothing."""
    for name in TOKENIZERS[PIPELINES[pipeline]]:
        present = {file for file in ("tokenizer.json", "vocab.json", "merges.txt") if (folder / name / file).is_file()}
        if "tokenizer.json" not in present and len(present) < 2:
            raise WeightsError(
                f"{folder / name}: holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.",
                "save the whole pipeline again, or download it anew",
            )


def _configurations(checkpoint: Checkpoint) -> dict[str, Any]:
    """What each component's network computes of its weights: an activation, the scale of the VAE's latents."""
    present = {component_of(name) for name in checkpoint.tensors}
    found: dict[str, Any] = {}
    for part in COMPONENTS:
        if part not in present:
            continue
        folder = checkpoint.other_configs.get(part, checkpoint.config / part)
        config = read_config(folder / "config.json", COMPONENTS[part])
        found[part] = {key: value for key, value in config.items() if not is_provenance(key)}
    return found


def _tokenizers(folder: Path) -> dict[str, str]:
    """sha256 of the files that say which words a prompt is made of; none where they come with the package."""
    names = ("tokenizer.json", "vocab.json", "merges.txt")
    files = [folder / part / name for part in ("tokenizer", "tokenizer_2") for name in names]
    return {str(file.relative_to(folder).as_posix()): sha256_of(read_bytes(file)) for file in files if file.is_file()}


def _weight_file(component: str, path: Path) -> WeightFile:
    return WeightFile(
        component=component,
        name=path.name,
        sha256=weights_sha256(path),
        size_bytes=path.stat().st_size,
        autov3=autov3(path) if component.startswith("lora:") else None,
    )


class Needed(Record, frozen=True):
    """One thing that a variant needs, for ``doctor``."""

    variant: str
    what: str
    present: bool
    path: str | None
    size_bytes: int | None


def weights_needed(suite: Suite, weights_dir: Path | None) -> tuple[Needed, ...]:
    """What every variant of a suite needs, its recipes' sources too, and whether it is on this machine."""
    return tuple(
        _need(variant.name, place) for variant in suite.variants for place in every_place(variant, weights_dir)
    )


def _need(variant: str, place: Place) -> Needed:
    return Needed(
        variant=variant,
        what=place.what,
        present=place.path is not None,
        path=place.path,
        size_bytes=None if place.path is None else _size(place.what, Path(place.path)),
    )


def _size(what: str, path: Path) -> int:
    if what in RANDOM:
        return sum(2 * math.prod(tensor.shape) for tensor in family_tensors(path.name).values())
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*.safetensors"))
