"""Whether numbers are finite, found out without making anything of their size where they are."""

from __future__ import annotations

import math

import torch


def extremes(values: torch.Tensor) -> torch.Tensor:
    """Smallest and largest of floating-point values, float64 (2,), left on their device; NaN where any is NaN.

    Both are finite just where all values are, and one reading finds them, which of half-precision numbers ``isfinite``
    is slow to do on a processor. Of no values at all they are 0.
    """
    if values.numel() == 0:
        return torch.zeros(2, dtype=torch.float64, device=values.device)
    known = values if values.element_size() > 1 else values.float()  # 8-bit floats have no order of their own
    return torch.stack(torch.aminmax(known)).double()


def count_non_finite(values: torch.Tensor) -> int:
    """How many values are NaN or infinite; of whole numbers none. Waits for the device."""
    if not values.is_floating_point() or all(map(math.isfinite, extremes(values).tolist())):
        return 0
    return int(count_on_device(values))


def count_on_device(values: torch.Tensor) -> torch.Tensor:
    """How many floating-point values are NaN or infinite, int64 without dimensions, left on their device."""
    known = values if values.element_size() > 1 else values.float()
    return (~known.isfinite()).sum()
