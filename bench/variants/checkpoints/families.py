"""The configurations that travel with the package: SDXL's, SD 1.5's, and a tiny pipeline built as SDXL is. No torch.

A single file has no configuration; its header's shapes say which of these it is. ``random:<family>`` has no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import WeightsError
from bench.records.weights import Family
from bench.variants.checkpoint import Tensor
from bench.variants.checkpoints.architecture import component_shapes

FAMILIES = ("sdxl", "sd15", "tiny")
COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
PIPELINES: dict[str, Family] = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusionPipeline": "sd15"}
"""Pipeline classes that are rendered, and the family of each."""


def config_folder(family: str) -> Path:
    """The folder of a family's configurations, as diffusers saves them, without tokenizers."""
    return Path(__file__).parent / "configs" / family


def read_config(path: Path) -> dict[str, Any]:
    """One ``config.json``.

    Raises:
        WeightsError: it is missing, or no JSON object.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is missing or cannot be read.", "save the whole pipeline again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: is not a JSON object.", "save the whole pipeline again")
    return config


def read_pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder names.

    Raises:
        WeightsError: no readable ``model_index.json``, or a pipeline that is not of the SD or SDXL family.
    """
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{folder}: is no diffusers folder: model_index.json is missing or cannot be read.",
            "save one with pipeline.save_pretrained(FOLDER)",
        ) from error
    if name not in PIPELINES:
        raise WeightsError(f"{folder}: holds a {name}; hotart-bench renders {' and '.join(PIPELINES)}.")
    return str(name)


def pipeline_family(folder: Path) -> Family:
    """The family of a diffusers folder; raises as ``read_pipeline_class``."""
    return PIPELINES[read_pipeline_class(folder)]


def config_shapes(folder: Path, component: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a component's tensors by name, from its folder's ``config.json``.

    Raises:
        WeightsError: as ``read_config`` and ``component_shapes``, with the file's name.
    """
    path = folder / "config.json"
    config = read_config(path)
    try:
        return component_shapes(component, config)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error


def folder_tensors(folder: Path, dtype: str = "float16") -> dict[str, Tensor]:
    """Every tensor of a pipeline whose configurations lie in a folder, under the names of ``Checkpoint``."""
    return {
        f"{component}.{name}": Tensor(shape, dtype)
        for component in COMPONENTS
        if (folder / component).is_dir()
        for name, shape in config_shapes(folder / component, component).items()
    }


@lru_cache
def family_tensors(family: str) -> Mapping[str, Tensor]:
    """Every tensor of a family, as float16."""
    return folder_tensors(config_folder(family))


def is_provenance(key: str) -> bool:
    """Whether a field of a component's configuration says where it is from, and nothing of what it computes."""
    return key.startswith("_") or key in ("transformers_version", "dtype", "torch_dtype", "architectures")
