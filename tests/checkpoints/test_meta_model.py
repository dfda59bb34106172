"""Shapes of the shipped families, against the models that diffusers and transformers build of their configurations."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from write_shapes import shapes_text

from bench.checkpoints.families import COMPONENTS, FAMILIES, component_shapes, config_folder, family_tensors
from bench.checkpoints.meta_model import model_shapes
from bench.errors import WeightsError
from bench.mini import weights


@pytest.mark.parametrize("family", FAMILIES)
def test_the_committed_shapes_are_those_that_the_libraries_build(family: str) -> None:
    committed = (config_folder(family) / "shapes.json").read_text("utf-8")
    assert committed == shapes_text(family), "python tests/checkpoints/write_shapes.py writes them anew"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_configuration_asks_for_the_tensors_that_its_file_holds(component: Any) -> None:
    folder = weights.FOLDER / "pipeline" / component
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, "numpy") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    prefix = "text_encoder.text_model." if component == "text_encoder" else f"{component}."
    wanted = {name if name.startswith(prefix) else prefix + name.removeprefix("text_model."): shape
              for name, shape in stored.items()} if component == "text_encoder" else {
              f"{component}.{name}": shape for name, shape in stored.items()}  # fmt: skip
    assert model_shapes(component, folder) == wanted


def test_a_unet_that_takes_guidance_as_lcms_does_has_one_more_tensor(tmp_path: Path) -> None:
    shutil.copytree(config_folder("tiny") / "unet", tmp_path / "unet")
    config = json.loads((tmp_path / "unet" / "config.json").read_text("utf-8"))
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"time_cond_proj_dim": 24}), "utf-8")
    found = component_shapes("unet", tmp_path / "unet")
    plain = component_shapes("unet", config_folder("tiny") / "unet")
    assert found.keys() - plain.keys() == {"unet.time_embedding.cond_proj.weight"}
    assert found["unet.time_embedding.cond_proj.weight"] == (32, 24)


def test_numbers_of_tensors_and_of_parameters_are_the_known_ones() -> None:
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for family in ("sdxl", "sd15"):
        for name, tensor in family_tensors(family).items():
            key = f"{family}.{name.split('.')[0]}"
            tensors[key] += 1
            parameters[key] += math.prod(tensor.shape)
    # As published: https://huggingface.co/docs/diffusers, and the sizes of the released files.
    assert {key: (tensors[key], parameters[key]) for key in tensors} == {
        "sdxl.unet": (1680, 2_567_463_684),
        "sdxl.vae": (248, 83_653_863),
        "sdxl.text_encoder": (196, 123_060_480),
        "sdxl.text_encoder_2": (517, 694_659_840),
        "sd15.unet": (686, 859_520_964),
        "sd15.vae": (248, 83_653_863),
        "sd15.text_encoder": (196, 123_060_480),
    }


@pytest.mark.parametrize(
    ("component", "change"),
    [
        ("unet", {"act_fn": None}),
        ("unet", {"block_out_channels": [32, 64]}),
        ("text_encoder", {"hidden_act": "wide"}),
    ],
)
def test_a_configuration_of_which_no_model_can_be_built_is_refused(
    component: Any, change: dict[str, Any], tmp_path: Path
) -> None:
    config = json.loads((config_folder("tiny") / component / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(WeightsError, match=rf"config\.json: describes a {component} that cannot be built") as caught:
        model_shapes(component, tmp_path)
    assert caught.value.exit_code == 3
