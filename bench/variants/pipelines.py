"""Loads a variant as a diffusers pipeline, its LoRAs fused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from bench.errors import WeightsError
from bench.records import Settings, Variant
from bench.variants import sources
from bench.variants.checkpoints.families import read_pipeline_class
from bench.variants.headers import first_line, lora_modules, misfit
from bench.variants.samplers import set_sampler

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, struct.error)


def load_pipeline(variant: Variant, settings: Settings, *, device: str, weights_dir: Path | None = None) -> Any:
    """Load a variant onto a device, with the suite's sampler and dtype, LoRAs fused in their order.

    Returns a ``StableDiffusionXLPipeline`` or ``StableDiffusionPipeline`` that shows no progress bar.

    Raises:
        WeightsError: a file is missing, damaged or of another shape, or a LoRA was not wholly applied.
    """
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    found = {role: sources.fetch(place) for role, place in sources.places(variant, weights_dir).items()}
    dtype = getattr(torch, settings.dtype)
    pipe = _load(Path(found["checkpoint"].path or ""), found, dtype)
    set_sampler(pipe, settings.sampler)
    for index, lora in enumerate(variant.loras):
        fuse_lora(pipe, Path(found[f"lora:{index}"].path or ""), lora.weight)
    pipe.set_progress_bar_config(disable=True)
    if settings.vae_tiling:
        pipe.vae.enable_tiling()
    pipe.to(device)
    if settings.compile:
        pipe.unet.compile_repeated_blocks(fullgraph=True)
    return pipe


def _load(folder: Path, found: dict[str, sources.Place], dtype: torch.dtype) -> Any:
    name = read_pipeline_class(folder)
    try:
        parts = {}
        for role, kind in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
            if role in found:
                source = component_folder(role, Path(found[role].path or ""))
                parts[role] = kind.from_pretrained(source, dtype=dtype, use_safetensors=True)
        if name == "StableDiffusionPipeline":
            parts |= {"safety_checker": None, "requires_safety_checker": False}
        return getattr(diffusers, name).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **parts
        )
    except DAMAGED as error:
        raise WeightsError(f"{folder}: could not be loaded as {name}: {first_line(error)}") from error


def component_folder(component: str, override: Path) -> Path:
    """Where a component's weights lie in the source that replaces the checkpoint's: in its folder, or by themselves."""
    return override / component if (override / component).is_dir() else override


def fuse_lora(pipe: Any, path: Path, weight: float) -> int:
    """Add weight * (alpha / rank) * B A to the modules of a pipeline; returns how many were changed.

    Raises:
        WeightsError: the file is damaged or in another layout, or a part of it fits no module.
    """
    expected = set(lora_modules(path))
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="hotart", local_files_only=True)
        applied = _adapted_modules(pipe)
        pipe.fuse_lora(lora_scale=weight, adapter_names=["hotart"])
        pipe.unload_lora_weights()
    except DAMAGED as error:
        raise WeightsError(f"{path}: could not be applied: {first_line(error)}") from error
    left = sorted(expected - applied)
    if left or not applied:
        raise misfit(path, left, len(expected))
    return len(applied)


def _adapted_modules(pipe: Any) -> set[str]:
    return {
        f"{component}.{name}"
        for component in ("unet", "text_encoder", "text_encoder_2")
        for name, module in (getattr(pipe, component, None) or torch.nn.Module()).named_modules()
        if "hotart" in getattr(module, "lora_A", {})
    }
