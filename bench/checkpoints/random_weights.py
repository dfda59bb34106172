"""Random weights of a family's true shape: latency and memory can be taken with nothing downloaded.

The numbers have mean 0 and variance 1/inputs, so that signals keep their size on the way through the layers and a pass
in float16 stays finite; norms are the identity. What is drawn depends on ``VERSION`` and the tensor's name, and on
nothing else. No torch before a read.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from bench.checkpoints.checkpoint import Shape, SourceCheckpoint, stored_dtypes
from bench.checkpoints.families import config_folder, family_tensors, pipeline_family
from bench.records import CheckpointFacts

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Another number whenever other values are drawn: such weights are another variant."""

SIGN_AND_FRACTION, ONE = 0x83FF_83FF_83FF_83FF, 0x3C00_3C00_3C00_3C00
"""Bits of four float16: those that are drawn, and the exponent that puts their sizes between 1 and 2."""

VARIANCE = 7.0 / 3.0
"""Of numbers whose size is uniform between 1 and 2 and whose sign is drawn."""

BLOCK = 1 << 22
"""Numbers that are drawn at a time, which limits the memory besides the tensor."""


def open_random(family: str) -> SourceCheckpoint:
    """``random:<family>``, in float16, of the families whose configurations come with the package."""
    tensors, identity = family_tensors(family), f"random:{family} {VERSION}"
    return SourceCheckpoint(
        what=f"random:{family}",
        facts=CheckpointFacts(
            layout="random", family=pipeline_family(config_folder(family)), dtypes=stored_dtypes(tensors)
        ),
        tensors=tensors,
        files=(),
        config=config_folder(family),
        read=lambda name: _read(f"{identity}:{name}", tensors[name].shape),
        identity=identity,
    )


def _read(name: str, shape: Shape) -> torch.Tensor:
    """One tensor on the CPU; the same on every machine."""
    import torch

    if len(shape) == 1:
        return (torch.ones if name.endswith(".weight") else torch.zeros)(shape, dtype=torch.float16)
    return _draw(name, shape, 1.0 / math.sqrt(VARIANCE * math.prod(shape[1:])))


def _draw(name: str, shape: Shape, scale: float) -> torch.Tensor:
    """float16 numbers whose size is uniform between ``scale`` and twice that, of either sign."""
    import numpy as np
    import torch

    # random_raw alone is promised to stay as it is; numbers are made of its bits, since arithmetic would take longer.
    bits = np.random.SFC64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little"))
    tensor = torch.empty(shape, dtype=torch.float16)
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), BLOCK):
        block = flat[start : start + BLOCK]
        words = bits.random_raw(-(-block.numel() // 4)) & np.uint64(SIGN_AND_FRACTION) | np.uint64(ONE)
        numbers = torch.from_numpy(words.astype("<u8", copy=False).view("<f2"))
        torch.mul(numbers[: block.numel()], scale, out=block)
    return tensor
