"""Models of diffusers and transformers without memory (on torch's meta device): what shapes a configuration asks for.

Imports torch, diffusers and transformers; ``families`` calls it for what the committed shapes do not answer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bench.checkpoints.checkpoint import Shape
from bench.checkpoints.configurations import COMPONENTS, read_config
from bench.checkpoints.safetensors_files import first_line
from bench.errors import WeightsError
from bench.records import Component

# Where torchao is installed, importing diffusers' models imports it, and both tell of their own deprecations.
diffusers.utils.logging.set_verbosity_error()
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

CLASSES: dict[Component, Any] = {
    "unet": diffusers.UNet2DConditionModel,
    "vae": diffusers.AutoencoderKL,
    "text_encoder": transformers.CLIPTextModel,
    "text_encoder_2": transformers.CLIPTextModelWithProjection,
}


def empty_model(component: Component, folder: Path) -> torch.nn.Module:
    """A component's model on the meta device, from the ``config.json`` of its folder.

    Raises:
        WeightsError: it is missing or damaged, or diffusers or transformers cannot build a model of it.
    """
    kind, config = CLASSES[component], read_config(folder / "config.json", COMPONENTS[component])
    try:
        with torch.device("meta"):
            if component in ("unet", "vae"):
                model: torch.nn.Module = kind.from_config(config)
            else:
                model = kind._from_config(transformers.CLIPTextConfig.from_dict(config.get("text_config") or config))
    except Exception as error:  # torch and both libraries each have errors of their own for a bad configuration
        raise WeightsError(
            f"{folder / 'config.json'}: describes a {component} that cannot be built: {first_line(error)}.",
            "save the whole pipeline again, or take its original config.json",
        ) from error
    return model


def own_names(module: torch.nn.Module, component: Component) -> dict[str, str]:
    """Name in a ``Checkpoint`` -> name in the module, for every tensor that files hold."""
    return {f"{component}.{left_out(module, component)}{name}": name for name in module.state_dict()}


def left_out(module: torch.nn.Module, component: str) -> str:
    """What stands before a text encoder's names in files, and in its module only with some versions of transformers."""
    return "text_model." if component == "text_encoder" and not hasattr(module, "text_model") else ""


def model_shapes(component: Component, folder: Path) -> dict[str, Shape]:
    """The shape of every tensor that a component's configuration asks for, by its name in a ``Checkpoint``.

    Raises:
        WeightsError: as ``empty_model``.
    """
    model = empty_model(component, folder)
    state = model.state_dict()
    return {name: tuple(state[own].shape) for name, own in own_names(model, component).items()}
