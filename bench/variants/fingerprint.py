"""What a variant *is*: the hashes of its weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.records import Fingerprint, Variant, WeightFile
from bench.variants import sources
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.families import read_pipeline_class
from bench.variants.checkpoints.opening import open_checkpoint, scheduler_config
from bench.variants.headers import changed_modules, read_shapes


def fingerprint(variant: Variant, weights_dir: Path | None = None) -> Fingerprint:
    """Hash a variant's weight files, fetching those that are missing.

    The digest is the sha256 of the pipeline class, the checkpoint's noise schedule and kind of prediction, the
    sha256 of each component's files (of random weights and recipes, what they are made by) and the LoRAs' sha256 and
    weights in order: not of names or paths, so that the same weights at another place are the same variant.

    Every file's header is read, so that what is cut short or fits nothing is told before anything is rendered.

    Raises:
        WeightsError: something is missing, damaged or no checkpoint, or a LoRA fits no module of its UNet.
    """
    checkpoint = open_checkpoint(variant, weights_dir)
    pipeline = read_pipeline_class(checkpoint.config)
    adapters = [Path(sources.fetch(sources.find_lora(lora.path, weights_dir)).path or "") for lora in variant.loras]
    unet = {name.removeprefix("unet."): tensor.shape for name, tensor in checkpoint.tensors.items()}
    changed = set().union(*(changed_modules(path, unet) for path in adapters))
    files = [_weight_file(component, path) for component, path in checkpoint.files]
    loras = [_weight_file(f"lora:{number}", path) for number, path in enumerate(adapters)]
    facts = {
        "pipeline": pipeline,
        "schedule": _noise_schedule(checkpoint),
        "files": [(file.component, file.sha256) for file in files],
        "loras": [(file.sha256, lora.weight) for file, lora in zip(loras, variant.loras, strict=True)],
    }
    if checkpoint.identity:
        facts["identity"] = checkpoint.identity
    return Fingerprint(
        name=variant.name,
        digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        checkpoint=variant.checkpoint,
        pipeline=pipeline,
        files=(*files, *loras),
        loras=variant.loras,
        lora_mode="fused" if variant.loras else "none",
        modules_changed=len(changed),
    )


def _noise_schedule(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's scheduler configuration, which says what its UNet predicts; a sampler takes it over."""
    return {key: value for key, value in scheduler_config(checkpoint).items() if not key.startswith("_")}


def _weight_file(component: str, path: Path) -> WeightFile:
    read_shapes(path)  # refuses a damaged one
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightFile(component=component, name=path.name, sha256=digest, size_bytes=path.stat().st_size)
