"""``reload_over_switch``: loading a variant anew over turning the loaded one into it, at SDXL's shapes."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import msgspec
import torch

from bench.pipeline.switch import Model, load_pipeline, switch_variant
from bench.records import Lora, Settings, Variant

from .figure import Figure, ratio_figure
from .merge_work import write_inputs

TURNS = 3
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
        lora = (Lora(path=str(folder / "lora.safetensors"), weight=0.8),)
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
