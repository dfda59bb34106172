"""Tiny UNets of the two true layouts, and of the embedded family's."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

SHARED = {"layers_per_block": 2, "norm_num_groups": 4, "cross_attention_dim": 16, "sample_size": 8}
SD15 = {
    "block_out_channels": (8, 8, 12, 12),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 2,
}
SDXL = {
    "block_out_channels": (8, 12, 16),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "attention_head_dim": (2, 3, 4),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
}
MINI = {
    "block_out_channels": (8, 12),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
}
LAYOUTS = {"sd15": SD15, "sdxl": SDXL, "mini": MINI}


def make_unet(family: str, seed: int = 0) -> UNet2DConditionModel:
    """A UNet of random weights, with the modules of the real one and few channels."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(**(SHARED | LAYOUTS[family])).eval()
