"""``batch = "auto"``: the largest batch that a device's memory holds with a margin."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import msgspec
import torch

from bench.errors import OutOfMemory
from bench.machine import is_out_of_memory, release_memory
from bench.pipeline.compiling import Uncompiled
from bench.pipeline.switch import Model, switch_variant
from bench.records import Suite
from bench.render.images import draw_batch, encode_prompts
from bench.suite import plan_images

UNMEASURED_BATCH = 4
"""Where a device's memory is not told apart from the machine's (CPU, MPS): most of what batching gains there."""
LARGEST_BATCH = 64
MARGIN = 0.9
"""Share of the memory that is free or ours which a batch may take up at its peak, as the allocator holds it."""
STEPS = 2
"""Each step needs the same memory, so a few tell."""


def largest_batch(suite: Suite, *, device: str, weights_dir: Path | None) -> int:
    """The largest power of two, no more than the suite's images, that is drawn within the device's memory.

    It is tried with the suite's last variant, LoRAs and all, at the suite's size and dtype.

    Raises:
        OutOfMemory: not even one image fits.
        WeightsError: the variant cannot be loaded.
    """
    planned = len(suite.prompts) * suite.samples
    if not device.startswith("cuda"):
        return min(UNMEASURED_BATCH, planned)
    try:
        best = _largest(suite, planned, device, weights_dir)
    finally:
        release_memory()
    if not best:
        raise too_large(suite, 1, device)
    return best


def _largest(suite: Suite, planned: int, device: str, weights_dir: Path | None) -> int:
    model, _ = switch_variant(None, suite.variants[-1], suite.settings, device=device, weights_dir=weights_dir)
    best, size = 0, 1
    while size <= min(LARGEST_BATCH, planned) and _fits(model, suite, size, device):
        best, size = size, 2 * size
    return best


def _fits(model: Model, suite: Suite, size: int, device: str) -> bool:
    settings = msgspec.structs.replace(suite.settings, batch=1, steps=STEPS)
    images = tuple(islice(cycle(plan_images(msgspec.structs.replace(suite, settings=settings))), size))
    release_memory()
    torch.cuda.reset_peak_memory_stats(device)
    ours = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    eager = Uncompiled(model.pipe.unet, model.pipe.vae)  # compiled they need no more, and would be for each size
    try:
        draw_batch(model.pipe, settings, images, encode_prompts(model.pipe, suite, [images]))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        eager.remove()
    return torch.cuda.max_memory_reserved(device) <= MARGIN * ours


def too_large(suite: Suite, batch: int, device: str) -> OutOfMemory:
    """The error for a batch that a device cannot hold, with what would need less."""
    settings = suite.settings
    smaller = [f"batch = {batch // 2}"] if batch > 1 else []
    smaller += ['dtype = "float16"'] if settings.dtype == "float32" else []
    smaller += ["vae_slicing = true"] if batch > 1 and not settings.vae_slicing else []
    smaller += [] if settings.vae_tiling else ["vae_tiling = true"]
    return OutOfMemory(
        f"A batch of {batch} images of {settings.width}x{settings.height} in {settings.dtype} does not fit into the "
        f"memory of {device}. What was finished is kept.",
        f"in [settings], {' or '.join(smaller)}: each changes pixels, so it makes another run"
        if smaller
        else "take a smaller width and height in [settings], or another --device",
    )
