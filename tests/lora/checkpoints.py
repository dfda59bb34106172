"""Checkpoints of the true layouts with few channels, and LoRA files for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from layouts import make_unet
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.checkpoints.checkpoint import Tensor

Weights = dict[str, torch.Tensor]


@cache
def checkpoint(family: str) -> Weights:
    """Canonical names -> weights of a UNet and its text encoders; CLIP-L is 16 wide, bigG 24."""
    weights = {f"unet.{name}": tensor for name, tensor in make_unet(family).state_dict().items()}
    weights |= _text_encoder("text_encoder", CLIPTextModel, 16)
    if family != "sd15":
        weights |= _text_encoder("text_encoder_2", CLIPTextModelWithProjection, 24)
    return weights


def _text_encoder(component: str, kind: type[torch.nn.Module], width: int) -> Weights:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=50,
        projection_dim=width,
        bos_token_id=48,
        eos_token_id=49,
    )
    tensors = kind(config).state_dict()
    whole = {name if name.startswith("text_") else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    return {f"{component}.{name}": tensor for name, tensor in whole.items()}


def shapes(weights: Weights) -> dict[str, Tensor]:
    """What the header of such a checkpoint would tell."""
    return {name: Tensor(tuple(tensor.shape), str(tensor.dtype)[6:]) for name, tensor in weights.items()}


def random(*shape: int) -> torch.Tensor:
    """Numbers large enough to be seen."""
    return torch.randn(shape) * 0.3


def lora(module: str, weight: torch.Tensor, rank: int = 2, alpha: float | None = 1.0) -> Weights:
    """A plain LoRA of a module in kohya's parts, under any spelling of its name."""
    tail = weight.shape[2:]
    tensors = {
        f"{module}.lora_down.weight": random(rank, *weight.shape[1:]),
        f"{module}.lora_up.weight": random(weight.shape[0], rank, *(1 for _ in tail)),
    }
    return tensors if alpha is None else tensors | {f"{module}.alpha": torch.tensor(alpha)}


def save(folder: Path, tensors: Weights, metadata: dict[str, str] | None = None, name: str = "lora") -> Path:
    """Writes a LoRA file."""
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path
