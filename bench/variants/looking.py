"""What is opened to be looked at, though no image may be rendered from it alone. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bench.errors import WeightsError
from bench.records.weights import Family
from bench.variants import sources
from bench.variants.adapters.keys import take_apart
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.families import read_config
from bench.variants.checkpoints.folder import open_component
from bench.variants.checkpoints.kinds import LORA, find_kind
from bench.variants.checkpoints.opening import open_named
from bench.variants.headers import read_shapes, weight_files
from bench.variants.pickles import refuse_pickle
from bench.variants.stored import read_header

LONE = ("unet", "vae")


def find_lora_file(name: str, weights_dir: Path | None) -> Path | None:
    """The file of a LoRA, fetched where it is missing; None where the name is that of something else.

    Args:
        name: ``mini:spo``, a file, a file of a Hub repository, or any name of a checkpoint.
        weights_dir: a folder to look in before the Hub.

    Raises:
        WeightsError: there is no such thing, a pickle, or a file that is damaged.
    """
    family, _, part = name.partition(":")
    if family in sources.SHIPPED and part:
        return Path(sources.find_lora(name, weights_dir).path or "")
    refuse_pickle(name)
    path = Path(name).expanduser()
    path = sources.lora_in(path) or path
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file raises for a name that is too long
        path = Path(sources.fetch(sources.find_checkpoint(name, None, weights_dir)).path or "")
    if not path.is_file() or path.suffix == ".toml":
        return None
    return path if is_lora(read_shapes(path)) else None


def is_lora(keys: Iterable[str]) -> bool:
    """Whether these are a LoRA's: one that no checkpoint has, or none that a LoRA could not have."""
    keys = tuple(keys)
    return any(LORA.search(key) for key in keys) or (bool(keys) and all(take_apart(key) for key in keys))


def open_any(name: str, weights_dir: Path | None) -> Checkpoint:
    """Whatever a suite or recipe names, but for LoRAs: also an inpainting model, or a UNet or VAE alone.

    Raises:
        WeightsError: it is missing, damaged, or nothing of the kind.
    """
    path = Path(sources.fetch(sources.find_checkpoint(name, None, weights_dir)).path or "")
    if not path.is_dir() or (path / "model_index.json").is_file():
        return open_named(name, None, weights_dir)
    folders = [folder for folder in (path / "unet", path / "vae", path) if (folder / "config.json").is_file()]
    if not folders:
        return open_named(name, None, weights_dir)  # which says what is missing
    if len(folders) > 1:
        raise WeightsError(
            f"{name}: holds a unet and a vae, and no model_index.json that makes them a pipeline.",
            f"hotart-bench inspect {folders[0]}",
        )
    return _open_lone(folders[0], name)


def _open_lone(folder: Path, name: str) -> Checkpoint:
    """A folder of a UNet or a VAE; a VAE tells its family by the scale of its latents, if at all."""
    shapes = {key: stored for file in weight_files(folder) for key, stored in read_header(file).tensors.items()}
    config = read_config(folder / "config.json")
    told = config.get("_class_name")
    kind = find_kind(name, shapes) if shapes else "vae" if told == "AutoencoderKL" else "unet"
    if kind not in LONE:
        raise WeightsError(f"{name}: is no folder of a UNet or VAE, and no pipeline.")
    family: Family = "sdxl" if config.get("addition_embed_type") == "text_time" else "sd15"
    return open_component(folder, kind, name, family)
