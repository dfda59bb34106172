"""Names and shapes worked out from configurations, against the models that diffusers and transformers build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.checkpoints.families import FAMILIES, component_shapes, config_folder, family_tensors
from bench.errors import WeightsError
from bench.mini import weights

CASES = [
    (family, component)
    for family in ("sdxl", "sd15", "tiny", "mini")
    for component in ("unet", "vae", "text_encoder", "text_encoder_2")
    if (family, component) != ("sd15", "text_encoder_2")
]


def folder_of(family: str) -> Path:
    return weights.FOLDER / "pipeline" if family == "mini" else config_folder(family)


def built(component: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    import diffusers
    import torch
    import transformers

    with torch.device("meta"):
        if component == "unet":
            model: Any = diffusers.UNet2DConditionModel.from_config(config)
        elif component == "vae":
            model = diffusers.AutoencoderKL.from_config(config)
        else:
            kind = getattr(transformers, config["architectures"][0])
            model = kind(transformers.CLIPTextConfig(**config))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if component == "text_encoder":  # transformers 5.6 took the wrapper away; files of both ages are about
        return {f"text_model.{name.removeprefix('text_model.')}": shape for name, shape in shapes.items()}
    return shapes


@pytest.mark.parametrize(("family", "component"), CASES)
def test_as_the_libraries_build_it(family: str, component: str) -> None:
    config = json.loads((folder_of(family) / component / "config.json").read_text("utf-8"))
    assert component_shapes(component, config) == built(component, config)


def test_conditioned_on_guidance_as_lcm_is() -> None:
    config = json.loads((config_folder("tiny") / "unet" / "config.json").read_text("utf-8"))
    config["time_cond_proj_dim"] = 24
    assert component_shapes("unet", config) == built("unet", config)


def test_numbers_of_tensors_and_of_parameters_are_the_known_ones() -> None:
    counts = {}
    for family in FAMILIES[:2]:
        for name, tensor in family_tensors(family).items():
            size = 1
            for length in tensor.shape:
                size *= length
            key = f"{family}.{name.split('.')[0]}"
            number, parameters = counts.get(key, (0, 0))
            counts[key] = (number + 1, parameters + size)
    # As published: https://huggingface.co/docs/diffusers, and the sizes of the released files.
    assert counts == {
        "sdxl.unet": (1680, 2_567_463_684),
        "sdxl.vae": (248, 83_653_863),
        "sdxl.text_encoder": (196, 123_060_480),
        "sdxl.text_encoder_2": (517, 694_659_840),
        "sd15.unet": (686, 859_520_964),
        "sd15.vae": (248, 83_653_863),
        "sd15.text_encoder": (196, 123_060_480),
    }


@pytest.mark.parametrize(
    ("component", "change", "words"),
    [
        ("unet", {"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 3}, "a SimpleCrossAttnDownBlock2D"),
        ("unet", {"addition_embed_type": "text_image"}, "addition_embed_type = 'text_image'"),
        ("unet", {"block_out_channels": None}, "that cannot be understood"),
        ("unet", {"reverse_transformer_layers_per_block": [[1], [2], [3]]}, "that cannot be understood"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
        ("text_encoder", {"hidden_size": "wide"}, "that cannot be understood"),
    ],
)
def test_another_architecture_is_refused(component: str, change: dict[str, Any], words: str) -> None:
    config = json.loads((config_folder("tiny") / component / "config.json").read_text("utf-8"))
    with pytest.raises(WeightsError, match=words):
        component_shapes(component, config | change)
