"""A LoRA on the UNet's attention, in the diffusers/PEFT layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

RANK = 8
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def add(unet: UNet2DConditionModel, seed: int) -> list[nn.Parameter]:
    """Add an untrained LoRA (alpha = rank) and return its parameters; it changes nothing yet."""
    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=list(TARGETS)))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


class Trained(nn.Module):
    """The LoRA's parameters alone, as what a checkpoint holds."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        named = {name.replace(".", "/"): p for name, p in unet.named_parameters() if p.requires_grad}
        self.parts = nn.ParameterDict(named)


def save(unet: UNet2DConditionModel, folder: Path, name: str) -> None:
    """Write ``<name>.safetensors`` in the diffusers/PEFT layout (``unet.<module>.lora_A.weight``), float16."""
    half = {key: value.half().contiguous() for key, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=half, weight_name=f"{name}.safetensors")
