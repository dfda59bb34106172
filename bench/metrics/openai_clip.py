"""The tower of openai's CLIP ViT-L/14, which the aesthetic predictors and CLIPScore share.

It has the geometries of both official codes as its views: they give the same pixels on square pictures, which are
then embedded once, and differ by a pixel of the crop on others. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.metrics.registry import LoadedTower, Place, tower
from bench.weights import find_weights, read_tensors

if TYPE_CHECKING:
    import torch

    from bench.metrics.open_clip_model import ClipShape

WEIGHTS = "openai-vit-l14"


@tower(WEIGHTS, weights=(WEIGHTS,))
def openai_vit_l14(place: Place) -> LoadedTower:
    """openai's CLIP ViT-L/14 with QuickGELU, from the file that open_clip takes."""
    file = find_weights(WEIGHTS, place)
    return load_openai_clip(read_tensors(file), place, file)


def load_openai_clip(
    state: MutableMapping[str, torch.Tensor], place: Place, file: Path, shape: ClipShape | None = None
) -> LoadedTower:
    """The tower with the weights of a file in open_clip's layout; ViT-L/14 by default.

    Its text is cleaned as transformers does, whose CLIPScore it serves; the aesthetic predictors read none.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    from bench.metrics.clip_text import transformers_tokens
    from bench.metrics.geometry import torchvision_crop, transformers_crop
    from bench.metrics.open_clip_model import VIT_L14, load_open_clip

    return load_open_clip(
        state,
        place,
        file,
        what="openai's CLIP ViT-L/14",
        shape=shape or VIT_L14,
        geometries={"torchvision": torchvision_crop, "transformers": transformers_crop},
        tokens=transformers_tokens(),
    )
