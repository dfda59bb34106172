"""Checkpoints in memory: a few tensors under their true names, with what files would tell of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.checkpoints.checkpoint import Tensor
from bench.records import CheckpointFacts

SHAPES = {
    "unet.conv_in.weight": (8, 4, 3, 3),
    "unet.conv_in.bias": (8,),
    "unet.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3),
    "unet.down_blocks.0.resnets.1.conv1.weight": (8, 8, 3, 3),
    "unet.down_blocks.1.resnets.0.conv1.weight": (8, 8, 3, 3),
    "unet.down_blocks.1.resnets.1.conv1.weight": (8, 8, 3, 3),
    "unet.mid_block.resnets.0.conv1.weight": (8, 8, 3, 3),
    "unet.up_blocks.0.resnets.0.conv1.weight": (8, 16, 3, 3),
    "unet.conv_out.weight": (4, 8, 3, 3),
    "text_encoder.text_model.final_layer_norm.weight": (8,),
    "text_encoder_2.text_model.final_layer_norm.weight": (8,),
    "vae.decoder.conv_in.weight": (8, 4, 3, 3),
}
SDXL = CheckpointFacts(layout="diffusers", family="sdxl")


@dataclass
class Fake:
    what: str
    held: dict[str, torch.Tensor]
    facts: CheckpointFacts = SDXL
    files: tuple[tuple[str, Path], ...] = ()
    config: Path = Path("configs")
    other_configs: dict[str, Path] = field(default_factory=dict)
    identity: str = ""
    tells_prediction: bool = True
    reads: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: Tensor(tuple(item.shape), str(item.dtype).split(".")[1]) for name, item in self.held.items()}

    def read(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return self.held[name].clone()


def fake(seed: int, what: str = "", dtype: torch.dtype = torch.float16, **fields: object) -> Fake:
    """Random tensors of ``SHAPES``, or of those in ``only``."""
    drawn = torch.Generator().manual_seed(seed)
    only = fields.pop("only", SHAPES)
    held = {
        name: torch.randn(SHAPES[name], generator=drawn).to(dtype) for name in SHAPES if name.startswith(tuple(only))
    }
    return Fake(what or f"model-{seed}", held, **fields)  # type: ignore[arg-type]
