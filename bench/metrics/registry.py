"""Metrics and towers: how they are declared and found.

A metric is a decorated function from ``Inputs`` (a batch of images, their prompts, and the embeddings
of the tower it asks for) to one number an image. A tower is an image/text encoder, loaded once and
shared by every metric that names it. Packages add theirs through the entry-point group
``hotart_bench.metrics``: each entry names a module whose import declares them.

This module imports no torch, so that ``list metrics`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class LoadedTower(Protocol):
    """An image/text encoder in memory.

    ``preprocess`` turns one image into a float32 tensor (3, h, w); ``embed_images`` takes (n, 3, h, w)
    and ``embed_texts`` n prompts; both return float32 (n, d) with unit L2 norm.
    """

    batch: int
    """Images are embedded at this one batch shape, the last batch padded, so that no score
    depends on its batch-mates."""
    logit_scale: float
    """exp(logit_scale): what the cosine is multiplied with where a metric asks for it."""

    def preprocess(self, image: Image) -> torch.Tensor: ...

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor: ...

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Tower:
    """How a tower is named and loaded."""

    name: str
    load: Callable[[str], LoadedTower]
    """Takes the torch device string."""


@dataclass(frozen=True)
class Inputs:
    """What a metric sees of a batch of n images."""

    prompts: tuple[str, ...]
    pixels: torch.Tensor
    """(n, 3, H, W), float32 in [0, 1]."""
    reference_pixels: torch.Tensor | None
    """The same cells of the reference variant, or None when it is not at hand."""
    image_embeds: torch.Tensor | None
    text_embeds: torch.Tensor | None
    """(n, d), float32, unit norm; None for a metric without a tower."""
    logit_scale: float
    head: Any
    """What the metric's ``load_head`` returned, or None."""


@dataclass(frozen=True)
class Metric:
    """A declared metric: its facts, its arithmetic, and the weights of its own head."""

    facts: MetricFacts
    compute: Callable[[Inputs], torch.Tensor]
    """Inputs -> (n,) float32."""
    load_head: Callable[[str], Any] | None = None
    """Loads the metric's own small weights onto a device."""
    needs_reference: bool = False
