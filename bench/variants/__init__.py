"""Variants: from a suite's words to a loaded diffusers pipeline. Importing this room imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.variants.fingerprint import fingerprint
from bench.variants.needs import Needed, weights_needed

if TYPE_CHECKING:
    from bench.variants.models import load_pipeline

__all__ = ["Needed", "fingerprint", "load_pipeline", "weights_needed"]


def __getattr__(name: str) -> Any:
    if name == "load_pipeline":
        from bench.variants.models import load_pipeline

        return load_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
