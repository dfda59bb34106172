"""The configurations that travel with the package: SDXL's, SD 1.5's, and a tiny pipeline built as SDXL is. No torch.

A single file has no configuration: the shapes in its header say which of these it is. ``random:<family>`` has no file.
Beside each configuration lies ``shapes.json``, every tensor's shape as diffusers and transformers build the models, so
that a header is checked without them; ``python tests/checkpoints/write_shapes.py`` writes these files anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from bench.checkpoints.checkpoint import Shape, Tensor, component_of
from bench.checkpoints.configurations import AGAIN, PipelineIndex, read_config
from bench.errors import WeightsError
from bench.records import Component
from bench.records.weights import Family

FAMILIES = ("sdxl", "sd15", "tiny")
COMPONENTS: tuple[Component, ...] = ("unet", "vae", "text_encoder", "text_encoder_2")
PIPELINES: dict[str, Family] = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusionPipeline": "sd15"}
"""Pipeline classes that are rendered, and the family of each."""

TOKENIZERS: dict[Family, tuple[str, ...]] = {"sdxl": ("tokenizer", "tokenizer_2"), "sd15": ("tokenizer",)}
CONFIGS = Path(__file__).parent / "configs"
CONV_IN = "unet.conv_in.weight"
INPAINTING_CHANNELS = 9


def config_folder(family: str) -> Path:
    """The folder of a family's configurations, as diffusers saves them, without tokenizers."""
    return CONFIGS / family


def family_components(family: Family) -> tuple[Component, ...]:
    """The components of a family's pipelines; SD 1.5 has no second text encoder."""
    return COMPONENTS if family == "sdxl" else COMPONENTS[:-1]


def read_pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder names.

    Raises:
        WeightsError: no readable ``model_index.json``, or a pipeline that is not of the SD or SDXL family.
    """
    path = folder / "model_index.json"
    if not path.exists():
        raise WeightsError(
            f"{folder}: is not a diffusers folder: model_index.json is missing.",
            AGAIN,
        )
    name = read_config(path, PipelineIndex)["_class_name"]
    if name not in PIPELINES:
        raise WeightsError(f"{folder}: holds a {name}; hotart-bench renders {' and '.join(PIPELINES)}.")
    return str(name)


def pipeline_family(folder: Path) -> Family:
    """The family of a diffusers folder; raises as ``read_pipeline_class``."""
    return PIPELINES[read_pipeline_class(folder)]


@lru_cache
def family_tensors(family: str) -> Mapping[str, Tensor]:
    """Every tensor of a family, as float16."""
    shapes = json.loads((CONFIGS / family / "shapes.json").read_text("utf-8"))
    return {name: Tensor(tuple(shape), "float16") for name, shape in shapes.items()}


def folder_tensors(folder: Path) -> Mapping[str, Tensor]:
    """Every tensor that the configurations of a folder ask for, as float16; those of a family without torch.

    Raises:
        WeightsError: a configuration is missing or cannot be understood.
    """
    if folder.parent == CONFIGS:
        return family_tensors(folder.name)
    parts = [component for component in COMPONENTS if (folder / component).is_dir()]
    shapes = [component_shapes(component, folder / component) for component in parts]
    return {name: Tensor(shape, "float16") for part in shapes for name, shape in part.items()}


def component_shapes(component: Component, folder: Path) -> dict[str, Shape]:
    """The shape of every tensor that a component's ``config.json`` asks for, by its name in a ``Checkpoint``.

    Raises:
        WeightsError: the configuration is missing or cannot be understood.
    """
    if folder.parent.parent == CONFIGS:
        return of_component(component, family_tensors(folder.parent.name))
    from bench.checkpoints.meta_model import model_shapes  # imports torch, which most commands do not need

    return model_shapes(component, folder)


def of_component(component: str, tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shapes of one component's tensors."""
    return {name: tensor.shape for name, tensor in tensors.items() if component_of(name) == component}


def inpainting_shape(shape: Shape) -> Shape:
    """The shape of ``CONV_IN`` of an inpainting UNet, which also takes a mask and a masked image."""
    return (shape[0], INPAINTING_CHANNELS, *shape[2:])


def is_provenance(key: str) -> bool:
    """Whether a field of a component's configuration says where it is from, and nothing of what it computes."""
    return key.startswith("_") or key in ("transformers_version", "dtype", "torch_dtype", "architectures")
