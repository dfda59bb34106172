"""Where training computes: torch's default device, which ``--device`` sets. Random numbers are always the CPU's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def device() -> torch.device:
    """The device of this process."""
    return torch.get_default_device()


def put(values: Any) -> Tensor:
    """A tensor or array on the device."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.to(device())


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Unit Gaussian numbers, drawn on the CPU so that they are the same everywhere."""
    return put(torch.randn(*shape, generator=generator, device="cpu"))


def integers(high: int, n: int, generator: torch.Generator) -> Tensor:
    """n integers, uniform in 0..high-1, int64."""
    return put(torch.randint(0, high, (n,), generator=generator, device="cpu"))


def half() -> torch.autocast:
    """The context in which networks compute in bfloat16, or in float32 on a CPU that would have to emulate it.

    Emulated, a convolution takes some forty times as long.
    """
    where = device().type
    return torch.autocast(where, torch.bfloat16, enabled=where != "cpu" or has_bfloat16())


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; False too where torch cannot tell."""
    told = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(told is not None and told())
