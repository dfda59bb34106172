"""The embeddings that the golden values of set metrics are of."""

from __future__ import annotations

import numpy as np


def features(seed: int, count: int, width: int = 24) -> np.ndarray:
    """(count, width) embeddings with a common direction, as those of CLIP have."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) + 1.5 * np.arange(width) / width
