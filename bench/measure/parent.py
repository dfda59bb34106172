"""What the parent itself holds of a CUDA device, which its children share with it. Never imports torch."""

from __future__ import annotations

import gc
import sys


def has_context() -> bool:
    """Whether this process has started CUDA, as rendering and scoring do: the driver then lists it for good."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def release_memory() -> None:
    """Give back what rendering and scoring left of the device's memory in this process, its context aside.

    Children would find the device too full otherwise. Pipelines hold themselves in cycles, so they are collected.
    """
    if has_context():
        gc.collect()
        sys.modules["torch"].cuda.empty_cache()
