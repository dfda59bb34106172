"""What the parent itself holds of a CUDA device, which its children share with it. Never imports torch."""

from __future__ import annotations

import sys


def has_context() -> bool:
    """Whether this process has started CUDA, as rendering and scoring do: the driver then lists it for good."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
