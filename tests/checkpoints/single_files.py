"""Small files in the single-file layout, and small families of configurations, for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench.checkpoints.families import config_folder, folder_tensors
from bench.checkpoints.ldm_layout import join, ldm_tensors

SMALL_SD15: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 32, "attention_head_dim": 4},
    "vae": {"block_out_channels": [16, 32, 32, 32], "norm_num_groups": 16},
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 300,
        "projection_dim": 32,
    },
}


def small_sd15(folder: Path) -> Path:
    """SD 1.5's configurations at a few channels."""
    shutil.copytree(config_folder("sd15"), folder)
    for component, changes in SMALL_SD15.items():
        path = folder / component / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")
    return folder


def draw(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """Random tensors of a family by the names of ``Checkpoint``."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (0.1 * torch.randn(tensor.shape, generator=generator)).to(dtype)
        for name, tensor in folder_tensors(folder).items()
    }


def as_single_file(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors by their names in a single file."""
    return {
        entry.key: join(entry, [tensors[part] for part in entry.parts]) for entry in ldm_tensors(folder_tensors(folder))
    }


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata or None)
    return path
