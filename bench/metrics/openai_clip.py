"""CLIPScore, and openai's CLIP ViT-L/14 that the aesthetic predictors share. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.metrics.declare import Inputs, LoadedEncoder, Place, encoder, metric
from bench.metrics.weights import find_weights, read_tensors
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

    from bench.metrics.encoders import ClipShape

WEIGHTS = "openai-vit-l14"


@encoder(WEIGHTS, weights=(WEIGHTS,))
def openai_vit_l14(place: Place) -> LoadedEncoder:
    """openai's CLIP ViT-L/14 with QuickGELU, from the file that open_clip takes."""
    file = find_weights(WEIGHTS, place.weights_dir)
    return load_openai_clip(read_tensors(file), place, file)


def load_openai_clip(
    state: MutableMapping[str, torch.Tensor], place: Place, file: Path, shape: ClipShape | None = None
) -> LoadedEncoder:
    """The encoder with the weights of a file in open_clip's layout; ViT-L/14 by default.

    Its text is cleaned as transformers does, whose CLIPScore it serves; the aesthetic predictors read none.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    from bench.metrics.encoders import VIT_L14, load_open_clip, torchvision_crop, transformers_crop, transformers_tokens

    return load_open_clip(
        state,
        place,
        file,
        what="openai's CLIP ViT-L/14",
        shape=shape or VIT_L14,
        preprocessings={"torchvision": torchvision_crop, "transformers": transformers_crop},
        tokenize=transformers_tokens(),
    )


@metric(
    MetricFacts(
        name="clip-l14",
        version="1-pil-bicubic",
        summary="How well the picture fits its prompt, by openai's CLIP ViT-L/14; typically 24 to 34.",
        unit="100 x cosine",
        higher_is_better=True,
        low=0.0,
        high=100.0,
        category="alignment",
        encoder=openai_vit_l14.name,
        trained_on=("webimagetext",),
        training_data=(
            "400 million picture and text pairs of the web, contrastive; no preferences. Its text half is one of "
            "SDXL's encoders, in every variant alike"
        ),
        licence="MIT",
        reference="J. Hessel et al., CLIPScore, arXiv 2104.08718; A. Radford et al., CLIP, arXiv 2103.00020",
    ),
    preprocessing="transformers",
)
def clip_score(inputs: Inputs) -> torch.Tensor:
    """CLIPScore of each picture: 100 max(cos(image, text), 0), (n,) float32 in [0, 100].

    No prefix before the prompt and no factor 2.5 (pyiqa has both), and clamped per picture, not on the mean
    (as torchmetrics does).
    """
    return 100.0 * inputs.cosines().clamp(min=0.0)
