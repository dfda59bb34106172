"""CLIPs in open_clip's layout: openai's ViT-L/14 and the ViT-H/14 of HPSv2.

The model is open_clip's own, in the shape of its configurations ``ViT-L-14-quickgelu`` and ``ViT-H-14``; its
parameters have the names of the published files. Imports torch; the modules that declare towers import it late.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from bench.metrics.clip_text import ClipTokens, openai_tokens
from bench.metrics.clip_tower import TORCH_DTYPES, ClipTower, fill_model
from bench.metrics.geometry import Geometry
from bench.metrics.registry import Place


@dataclass(frozen=True)
class ClipShape:
    """Sizes of a CLIP, and its activation."""

    embed_dim: int
    vision_width: int
    vision_layers: int
    head_width: int
    text_width: int
    text_heads: int
    text_layers: int
    quick_gelu: bool
    """x sigmoid(1.702 x), which openai trained with, instead of the exact GELU: it moves aesthetic scores by 0.6."""
    patch_px: int = 14
    side_px: int = 224


VIT_L14 = ClipShape(768, 1024, 24, 64, 768, 12, 12, quick_gelu=True)
VIT_H14 = ClipShape(1024, 1280, 32, 80, 1024, 16, 24, quick_gelu=False)


def load_open_clip(
    state: MutableMapping[str, Tensor],
    place: Place,
    file: Path,
    *,
    what: str,
    shape: ClipShape,
    geometries: Mapping[str, Geometry],
    tokens: ClipTokens | None = None,
) -> ClipTower:
    """A CLIP of the given shape with the weights of a published file, at the place.

    Args:
        state: tensors by open_clip's names, in any dtype; emptied while they are taken over.
        place: device and dtype.
        file: where they were read, for errors.
        what: the model that they should be, for errors.
        shape: its sizes.
        geometries: by the views of its metrics.
        tokens: its tokenizer, openai's by default.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = _model(shape)
    logit_scale = fill_model(model, state, place, file, what)
    # No key of the file fills this buffer, and on the device "meta" it holds nothing: no token sees a later one.
    size = model.context_length
    model.attn_mask = torch.full((size, size), float("-inf"), device=place.device).triu(1)
    return ClipTower(
        encode_image=model.encode_image,
        encode_text=model.encode_text,
        tokens=openai_tokens() if tokens is None else tokens,
        geometries=geometries,
        side_px=shape.side_px,
        logit_scale=logit_scale,
        device=place.device,
        dtype=TORCH_DTYPES[place.dtype],
    )


def _model(shape: ClipShape) -> CLIP:
    return CLIP(
        embed_dim=shape.embed_dim,
        vision_cfg=CLIPVisionCfg(
            image_size=shape.side_px,
            patch_size=shape.patch_px,
            width=shape.vision_width,
            layers=shape.vision_layers,
            head_width=shape.head_width,
        ),
        text_cfg=CLIPTextCfg(width=shape.text_width, heads=shape.text_heads, layers=shape.text_layers),
        quick_gelu=shape.quick_gelu,
    )
