"""Loads a variant as a diffusers pipeline, its LoRAs fused."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from bench.errors import WeightsError
from bench.records import Settings, Variant
from bench.variants import sources
from bench.variants.fingerprint import component_folder, read_pipeline_class
from bench.variants.samplers import set_sampler

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, struct.error)
LORA_KEY = re.compile(r"^(?P<module>(?:unet|text_encoder(?:_2)?)\..+)\.lora(?:_A|_B|\.down|\.up)\.weight$")


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
                source = component_folder(role, folder, Path(found[role].path or ""))
                parts[role] = kind.from_pretrained(source, dtype=dtype, use_safetensors=True)
        if name == "StableDiffusionPipeline":
            parts |= {"safety_checker": None, "requires_safety_checker": False}
        return getattr(diffusers, name).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **parts
        )
    except DAMAGED as error:
        raise WeightsError(f"{folder}: could not be loaded as {name}: {first_line(error)}") from error


def fuse_lora(pipe: Any, path: Path, weight: float) -> int:
    """Add weight * (alpha / rank) * B A to the modules of a pipeline; returns how many were changed.

    Raises:
        WeightsError: the file is damaged or in another layout, or a part of it fits no module.
    """
    expected = lora_modules(path)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="hotart", local_files_only=True)
        applied = _adapted_modules(pipe)
        pipe.fuse_lora(lora_scale=weight, adapter_names=["hotart"])
        pipe.unload_lora_weights()
    except DAMAGED as error:
        raise WeightsError(f"{path}: could not be applied: {first_line(error)}") from error
    left = sorted(expected - applied)
    if left or not applied:
        raise WeightsError(
            f"{path}: {len(left)} of {len(expected)} modules of the LoRA fit no module of the checkpoint, "
            f"such as {', '.join(left[:3])}.",
            "check that the LoRA was trained for this family of checkpoints",
        )
    return len(applied)


def lora_modules(path: Path) -> set[str]:
    """The modules a LoRA file in the diffusers/PEFT layout speaks of.

    Raises:
        WeightsError: the file cannot be read as safetensors, or has keys of another layout.
    """
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
    except DAMAGED as error:
        raise WeightsError(f"{path}: is no readable .safetensors file: {first_line(error)}") from error
    matched = {key: LORA_KEY.match(key) for key in keys}
    other = [key for key, match in matched.items() if match is None]
    if other or not keys:
        raise WeightsError(
            f"{path}: {len(other)} of {len(keys)} keys are not in the diffusers/PEFT layout "
            f"(unet.*.lora_A.weight or unet.*.lora.down.weight), such as {', '.join(other[:3]) or 'none at all'}."
        )
    return {match["module"] for match in matched.values() if match is not None}


def _adapted_modules(pipe: Any) -> set[str]:
    return {
        f"{component}.{name}"
        for component in ("unet", "text_encoder", "text_encoder_2")
        for name, module in (getattr(pipe, component, None) or torch.nn.Module()).named_modules()
        if "hotart" in getattr(module, "lora_A", {})
    }


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
