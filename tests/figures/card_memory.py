"""``peak_12gb_batch1``, ``peak_24gb_batch4``: GiB that a full-size variant reserves where no more may be had."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch

from bench.pipeline.switch import switch_variant
from bench.render import draw_batch, encode_prompts

from .commands import GIB
from .figure import Figure, figure_of
from .full_bench import Size, device_name, suite_of
from .merge_work import write_lora
from .rendering import batches

CARDS = {"peak_12gb_batch1": (12, 1), "peak_24gb_batch4": (24, 4)}
"""Figure -> GiB of the card, images a batch."""
STEPS = 2
"""Each step needs the same memory, so a few tell."""


def peak_figure(name: str, size: Size) -> Figure:
    """The most that torch reserved of the device for one variant with a LoRA: loaded, changed, one batch drawn.

    Weights that are kept as they were, to go on to another variant, are part of it, and lie where such a card would
    have them. The driver's context, about half a GiB, is not. Nothing is compiled. The process must hold nothing else
    on the device.
    """
    gib, batch = CARDS[name]
    with tempfile.TemporaryDirectory() as place, card_of(gib):
        peak_gib = reserved_gib(size, Path(place), batch)
    return msgspec.structs.replace(figure_of(name, [peak_gib], "<=", gib), where=device_name(size.device))


def reserved_gib(size: Size, place: Path, batch: int) -> float:
    """Load the first variant with a LoRA, draw one batch, and return the peak of what torch reserved."""
    write_lora(place / "lora-1.safetensors", size.shape, seed=1)
    suite = suite_of(size, place)
    settings = msgspec.structs.replace(suite.settings, batch=batch, steps=STEPS, compile=False)
    suite = msgspec.structs.replace(suite, settings=settings)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model, _ = switch_variant(None, suite.variants[1], settings, device=size.device, weights_dir=None)
    images = next(batches(suite))
    draw_batch(model.pipe, settings, images, encode_prompts(model.pipe, suite, [images]))
    return torch.cuda.max_memory_reserved() / GIB


@contextmanager
def card_of(gib: int) -> Iterator[None]:
    """The device as a card of this memory: torch cannot have more of it, and sees that when it asks what is free."""
    limit, real = gib * GIB, torch.cuda.mem_get_info
    whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / whole))
    torch.cuda.mem_get_info = lambda device=None: (limit - torch.cuda.memory_reserved(device), limit)
    try:
        yield
    finally:
        torch.cuda.mem_get_info = real
        torch.cuda.set_per_process_memory_fraction(1.0)
