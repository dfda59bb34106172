"""CLIPScore with openai's ViT-L/14: how well a picture fits its prompt. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.openai_clip import openai_vit_l14
from bench.metrics.registry import Inputs, metric
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch


@metric(
    MetricFacts(
        name="clip-l14",
        version="1-pil-bicubic",
        summary="How well the picture fits its prompt, by openai's CLIP ViT-L/14; typically 24 to 34.",
        unit="100 x cosine",
        higher_is_better=True,
        low=0.0,
        high=100.0,
        axis="alignment",
        tower=openai_vit_l14.name,
        trained_on=(
            "400 million picture and text pairs of the web, contrastive; no preferences. Its text half is one of "
            "SDXL's encoders, in every variant alike"
        ),
        standing="held-out",
        licence="MIT",
        reference="J. Hessel et al., CLIPScore, arXiv 2104.08718; A. Radford et al., CLIP, arXiv 2103.00020",
    ),
    view="transformers",
)
def clip_score(inputs: Inputs) -> torch.Tensor:
    """CLIPScore of each picture: 100 max(cos(image, text), 0), (n,) float32 in [0, 100].

    No prefix before the prompt and no factor 2.5 (pyiqa has both), and clamped per picture, not on the mean
    (as torchmetrics does).
    """
    return 100.0 * (inputs.image_embeds * inputs.text_embeds).sum(dim=1).clamp(min=0.0)  # type: ignore[operator]
