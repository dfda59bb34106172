"""Single files of the tiny family, as a trainer would leave them, and a LoRA for it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.checkpoints.families import family_tensors
from bench.checkpoints.ldm_layout import ldm_tensors

UNET, CLIP_L, CLIP_G = "model.diffusion_model.", "conditioner.embedders.0.", "conditioner.embedders.1."
POSITIONS = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
PROJ_IN = "unet.mid_block.attentions.0.proj_in.weight"
LDM_PROJ_IN = "model.diffusion_model.middle_block.1.proj_in.weight"


def tiny_state(seed: int, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """Random tensors of a whole tiny checkpoint, under their names in a single file."""
    drawn = torch.Generator().manual_seed(seed)
    state = {
        entry.key: (torch.randn(entry.shape, generator=drawn) * 0.05).to(dtype)
        for entry in ldm_tensors(family_tensors("tiny"))
        if entry.join != "positions"
    }
    state[POSITIONS] = torch.arange(77).unsqueeze(0)
    return state


def write_tiny(path: Path, seed: int, texts: dict[str, str] | None = None, **more: torch.Tensor) -> Path:
    """A single file; ``more`` goes into it beside what belongs there."""
    save_file({**tiny_state(seed), **more}, path, texts)
    return path


def write_lora(path: Path, seed: int = 0, rank: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A LoRA of one module, in diffusers' names; up and down."""
    drawn = torch.Generator().manual_seed(seed)
    out, inner = family_tensors("tiny")[PROJ_IN].shape
    up, down = torch.randn((out, rank), generator=drawn) * 0.1, torch.randn((rank, inner), generator=drawn)
    module = PROJ_IN.removesuffix(".weight")
    save_file({f"{module}.lora_B.weight": up, f"{module}.lora_A.weight": down}, path)
    return up, down


def write_recipe(path: Path, text: str) -> Path:
    """A recipe; the schema is put in."""
    path.write_text(f"schema = 1\n{text}", encoding="utf-8")
    return path
