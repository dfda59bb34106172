"""``batch = "auto"``: the largest batch that a device's memory holds with a margin."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import msgspec
import torch

from bench.errors import OutOfMemory
from bench.records import Suite
from bench.render.draw import draw_batch, encode_cases
from bench.suite import plan_cells
from bench.variants.models import Model, turn_into

UNMEASURED_BATCH = 4
"""Where a device's memory is not told apart from the machine's (CPU, MPS): most of what batching gains there."""
LARGEST_BATCH = 64
MARGIN = 0.9
"""Share of the device's memory that a batch may take up at its peak, as the allocator holds it."""
STEPS = 2
"""Each step needs the same memory, so a few tell."""


def largest_batch(suite: Suite, *, device: str, weights_dir: Path | None) -> int:
    """The largest power of two, no more than the suite's images, that is drawn within the device's memory.

    It is tried with the suite's last variant, LoRAs and all, at the suite's size and dtype.

    Raises:
        OutOfMemory: not even one image fits.
        WeightsError: the variant cannot be loaded.
    """
    planned = len(suite.cases) * suite.samples
    if not device.startswith("cuda"):
        return min(UNMEASURED_BATCH, planned)
    model, _ = turn_into(None, suite.variants[-1], suite.settings, device=device, weights_dir=weights_dir)
    best, size = 0, 1
    while size <= min(LARGEST_BATCH, planned) and _fits(model, suite, size, device):
        best, size = size, 2 * size
    if not best:
        raise too_large(suite, 1, device)
    return best


def _fits(model: Model, suite: Suite, size: int, device: str) -> bool:
    one = msgspec.structs.replace(suite.settings, batch=1, steps=STEPS)
    cells = tuple(islice(cycle(plan_cells(msgspec.structs.replace(suite, settings=one))), size))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        draw_batch(model.pipe, one, cells, encode_cases(model.pipe, suite, [cells]))
    except torch.OutOfMemoryError:
        return False
    whole = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) <= MARGIN * whole


def too_large(suite: Suite, batch: int, device: str) -> OutOfMemory:
    """The error for a batch that a device cannot hold, with what would need less."""
    settings = suite.settings
    smaller = [f"batch = {batch // 2}"] if batch > 1 else []
    smaller += ['dtype = "float16"'] if settings.dtype == "float32" else []
    smaller += [] if settings.vae_tiling else ["vae_tiling = true"]
    return OutOfMemory(
        f"A batch of {batch} images of {settings.width}x{settings.height} in {settings.dtype} does not fit into the "
        f"memory of {device}. What was finished is kept.",
        f"in [settings], {' or '.join(smaller)}: each changes pixels, so it makes another run"
        if smaller
        else "take a smaller width and height in [settings], or another --device",
    )
