"""Changing the loaded variant at SDXL's shapes: over loading the other anew, and over diffusers' own LoRAs.

``reload_over_switch`` and ``lora_apply_over_diffusers``.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import msgspec
import torch

from bench.pipeline.switch import Model, apply_loras, load_model, load_pipeline, restore, switch_variant
from bench.records import Lora, Settings, Variant

from .figure import Figure, ratio_figure
from .merge_work import write_inputs, write_lora

TURNS = 3
RANK = 64
WEIGHT = 0.8
SETTINGS = Settings(width=1024, height=1024, steps=20, guidance_scale=5.0, sampler="euler", dtype="float16", batch=1)


def figure_switch(shape: str = "sdxl") -> tuple[Figure, ...]:
    """A single file of random float16 numbers, with and without a LoRA on every matrix of the UNet's attentions.

    Both sides end with the variant in memory, ready to draw; files are read from the page cache, and LoRAs are read
    anew on both. In turns: to the LoRA and back to the base, which is what a run does. 14 GB of disk for SDXL.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_inputs(folder, shape)
        base = Variant(name="base", checkpoint=str(folder / "a.safetensors"))
        lora = (Lora(path=str(folder / "lora.safetensors"), weight=WEIGHT),)
        variants = (msgspec.structs.replace(base, name="merged", loras=lora), base)
        for variant in variants:
            loaded_s(variant, device)  # the files are in the page cache from here on
        loaded = [sum(loaded_s(variant, device) for variant in variants) for _ in range(TURNS)]
        model, _ = switch_variant(None, base, SETTINGS, device=device, weights_dir=None)
        for variant in variants:
            turned_s(model, variant, device)  # keeps what the LoRA changes beside, once
        turned = [sum(turned_s(model, variant, device) for variant in variants) for _ in range(TURNS)]
    figure = ratio_figure("reload_over_switch", loaded, turned, ">=", 10.0)
    return (msgspec.structs.replace(figure, where=device),)


def loaded_s(variant: Variant, device: str) -> float:
    """Seconds of loading a variant; it is let go of before the next."""
    gc.collect()  # pipelines hold themselves in cycles, and two do not fit beside each other everywhere
    start = time.perf_counter()
    load_pipeline(variant, SETTINGS, device=device)
    settle(device)
    return time.perf_counter() - start


def turned_s(model: Model, variant: Variant, device: str) -> float:
    """Seconds of turning the loaded model into a variant."""
    settle(device)
    start = time.perf_counter()
    switch_variant(model, variant, SETTINGS, device=device, weights_dir=None)
    settle(device)
    return time.perf_counter() - start


def settle(device: str) -> None:
    """Wait until the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def figure_apply(shape: str = "sdxl") -> tuple[Figure, ...]:
    """A LoRA of rank 64 on attentions and feed-forward layers fused in place and taken out again, on the CPU.

    Ours reads the file, keeps the weights that it changes, fuses in float32, measures each change for the audit, and
    puts the weights back bit for bit. diffusers reads it (``load_lora_weights``), fuses it, subtracts it again
    (``unfuse_lora``, which does not give the same bits) and unloads it. Each begins from a model that keeps nothing.
    Both work on one loaded pipeline, random float16 weights, with torch's threads, in turns; 13 GB of memory for SDXL.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "lora.safetensors"
        write_lora(path, shape, rank=RANK)
        base = Variant(name="base", checkpoint=f"random:{shape}")
        variant = msgspec.structs.replace(base, loras=(Lora(path=str(path), weight=WEIGHT),))
        model = load_model(base, SETTINGS, device="cpu")
        turns = [(applied_s(model, variant), applied_by_diffusers_s(model, path)) for _ in range(TURNS)]
    ours, theirs = zip(*turns, strict=True)
    return (ratio_figure("lora_apply_over_diffusers", ours, theirs, "<=", 1.0),)


def applied_s(model: Model, variant: Variant) -> float:
    """Seconds of applying the variant's LoRA, audit included, and of putting back what was kept."""
    start = time.perf_counter()
    apply_loras(model, variant, None, keep=True)
    restore(model)
    seconds = time.perf_counter() - start
    model.original.clear()
    return seconds


def applied_by_diffusers_s(model: Model, path: Path) -> float:
    """Seconds of the same by diffusers' functions."""
    start = time.perf_counter()
    model.pipe.load_lora_weights(path)
    model.pipe.fuse_lora(lora_scale=WEIGHT)
    model.pipe.unfuse_lora()
    model.pipe.unload_lora_weights()
    return time.perf_counter() - start
