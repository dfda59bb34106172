"""What a variant *is*: the hashes of its weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.errors import WeightsError
from bench.records import Fingerprint, Variant, WeightFile
from bench.variants import sources
from bench.variants.headers import changed_modules, read_shapes, weight_files

COMPONENTS = {
    "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
}
PIPELINES = tuple(COMPONENTS)
TOKENIZERS = {
    "StableDiffusionXLPipeline": ("tokenizer", "tokenizer_2"),
    "StableDiffusionPipeline": ("tokenizer",),
}


def fingerprint(variant: Variant, weights_dir: Path | None = None) -> Fingerprint:
    """Hash a variant's weight files, fetching those that are missing.

    The digest is the sha256 of the pipeline class, the checkpoint's noise schedule and kind of prediction, the
    sha256 of each component's files and the LoRAs' sha256 and weights in order: not of names or paths, so that
    the same weights at another place are the same variant.

    Every file's header is read, so that what is cut short or fits nothing is told before anything is rendered.

    Raises:
        WeightsError: something is missing, damaged or no checkpoint, or a LoRA fits no module of its UNet.
    """
    found = {role: sources.fetch(place) for role, place in sources.places(variant, weights_dir).items()}
    folder = Path(found["checkpoint"].path or "")
    pipeline = read_pipeline_class(folder)
    _check_tokenizers(folder, pipeline)
    weights = {component: _component(component, folder, found) for component in COMPONENTS[pipeline]}
    files = [_weight_file(component, path) for component, paths in weights.items() for path in paths]
    adapters = {role: Path(place.path or "") for role, place in found.items() if role.startswith("lora:")}
    loras = [_weight_file(role, path) for role, path in adapters.items()]
    unet = {name: shape for path in weights["unet"] for name, shape in read_shapes(path).items()}
    facts = {
        "pipeline": pipeline,
        "schedule": _noise_schedule(folder),
        "files": [(file.component, file.sha256) for file in files],
        "loras": [(file.sha256, lora.weight) for file, lora in zip(loras, variant.loras, strict=True)],
    }
    return Fingerprint(
        name=variant.name,
        digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        checkpoint=variant.checkpoint,
        pipeline=pipeline,
        files=(*files, *loras),
        loras=variant.loras,
        lora_mode="fused" if variant.loras else "none",
        modules_changed=len(set().union(*(changed_modules(path, unet) for path in adapters.values()))),
    )


def read_pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder names.

    Raises:
        WeightsError: no readable ``model_index.json``, or a pipeline that is not of the SD or SDXL family.
    """
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder}: is no diffusers folder: model_index.json is missing or cannot be read.",
            "save one with pipeline.save_pretrained(FOLDER)",
        ) from error
    if name not in PIPELINES:
        raise WeightsError(f"{folder}: holds a {name}; hotart-bench renders {' and '.join(PIPELINES)}.")
    return str(name)


def component_folder(component: str, checkpoint: Path, override: Path | None) -> Path:
    """Where a component's weights lie: in the checkpoint, or in the source that replaces it."""
    if override is None:
        return checkpoint / component
    return override / component if (override / component).is_dir() else override


def _component(component: str, checkpoint: Path, found: dict[str, sources.Place]) -> list[Path]:
    """The weight files of a component."""
    override = found.get(component)
    folder = component_folder(component, checkpoint, None if override is None else Path(override.path or ""))
    files = weight_files(folder)
    if not files:
        raise WeightsError(
            f"{folder}: holds no .safetensors weights for {component}; pickled weights are not read.",
            "save the pipeline with safe_serialization=True",
        )
    return files


def _check_tokenizers(folder: Path, pipeline: str) -> None:
    """Raise WeightsError for a tokenizer without its words: transformers makes an empty one and says nothing."""
    for name in TOKENIZERS[pipeline]:
        present = {file for file in ("tokenizer.json", "vocab.json", "merges.txt") if (folder / name / file).is_file()}
        if "tokenizer.json" not in present and len(present) < 2:
            raise WeightsError(
                f"{folder / name}: holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.",
                "save the whole pipeline again, or download it anew",
            )


def _noise_schedule(folder: Path) -> dict[str, Any]:
    """The checkpoint's scheduler configuration, which says what its UNet predicts; a sampler takes it over."""
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: is missing or cannot be read.", "save the whole pipeline again") from error
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _weight_file(component: str, path: Path) -> WeightFile:
    read_shapes(path)  # refuses a damaged one
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightFile(component=component, name=path.name, sha256=digest, size_bytes=path.stat().st_size)
