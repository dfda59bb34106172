"""Diffusers folders: what they hold by one set of names, and what does not pass for one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from single_files import draw, small_sd15, write

from bench.checkpoints.diffusers_folder import open_folder
from bench.checkpoints.families import config_folder, family_tensors
from bench.errors import WeightsError
from bench.mini import weights

NAMES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small SD 1.5 pipeline, as diffusers saves it."""
    folder = small_sd15(tmp_path / "model")
    for component, name in NAMES.items():
        write(folder / component / f"{name}.safetensors", part(folder, component))
    return folder


def part(folder: Path, component: str) -> dict[str, torch.Tensor]:
    prefix = f"{component}."
    tensors = draw(folder)
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


def test_every_tensor_by_its_name(folder: Path) -> None:
    found, expected = open_folder(folder, "x"), draw(folder)
    assert set(found.tensors) == set(expected)
    assert all(torch.equal(found.read(name), value) for name, value in expected.items())
    assert [component for component, _ in found.files] == ["unet", "vae", "text_encoder"]
    assert found.facts.dtypes == {"unet": "float16", "vae": "float16", "text_encoder": "float16"}
    assert (found.facts.family, found.facts.layout) == ("sd15", "diffusers")


def test_text_encoders_of_both_ages_have_the_same_names(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = part(folder, "text_encoder")
    write(path, {name.removeprefix("text_model."): value for name, value in tensors.items()})
    short = open_folder(folder, "x").tensors
    idle = {"text_model.embeddings.position_ids": torch.arange(77)[None], "text_projection.weight": torch.zeros(2, 2)}
    write(path, tensors | idle)
    assert open_folder(folder, "x").tensors == short
    assert "text_encoder.text_model.final_layer_norm.bias" in short


def test_a_vae_saved_by_an_old_diffusers(folder: Path) -> None:
    expected = open_folder(folder, "x")
    tensors = part(folder, "vae")
    renamed = {}
    for name, value in tensors.items():
        for new, old in OLD.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        renamed[name] = value
    assert len(set(renamed) - set(tensors)) == 16
    write(folder / "vae" / "diffusion_pytorch_model.safetensors", renamed)
    found = open_folder(folder, "x")
    assert found.tensors == expected.tensors
    name = "vae.encoder.mid_block.attentions.0.to_k.weight"
    assert torch.equal(found.read(name), tensors[name.removeprefix("vae.")])


def test_shards(folder: Path) -> None:
    expected = open_folder(folder, "x").tensors
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = sorted(part(folder, "unet").items())
    whole.unlink()
    for number in range(3):
        write(
            whole.with_name(f"diffusion_pytorch_model-0000{number + 1}-of-00003.safetensors"), dict(tensors[number::3])
        )
    found = open_folder(folder, "x")
    assert found.tensors == expected
    assert torch.equal(found.read("unet.conv_in.bias"), dict(tensors)["conv_in.bias"])
    whole.with_name("diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds 2 of 3 shards of unet"):
        open_folder(folder, "x")


def index(folder: Path, name: str, files: dict[str, dict[str, torch.Tensor]]) -> None:
    """An index of shards, and those."""
    for file, tensors in files.items():
        write(folder / file, tensors)
    places = {key: file for file, tensors in files.items() for key in tensors}
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def halves(tensors: dict[str, torch.Tensor], name: str = "new-0000{}-of-00002.safetensors") -> dict[str, Any]:
    items = sorted(tensors.items())
    return {name.format(number + 1): dict(items[number::2]) for number in range(2)}


@pytest.mark.parametrize("half", ["", ".fp16"])
def test_diffusers_follows_an_index_of_shards_and_so_do_we(folder: Path, half: str) -> None:
    from diffusers import UNet2DConditionModel

    stale = folder / "unet" / "diffusion_pytorch_model.safetensors"
    stale.rename(stale.with_name(f"diffusion_pytorch_model{half}.safetensors"))
    new = {name: 2 * value for name, value in part(folder, "unet").items()}
    index(folder / "unet", f"diffusion_pytorch_model.safetensors.index{half}.json", halves(new))
    write(folder / "unet" / "diffusion_pytorch_model-00001-of-00003.safetensors", {"x": torch.zeros(1)})
    options = {"variant": "fp16"} if half else {}
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"an older pickle")
    theirs = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float16, **options).state_dict()
    if half:
        (folder / "unet" / "diffusion_pytorch_model-00001-of-00003.safetensors").unlink()
    found = open_folder(folder, "x")
    assert {path.name for component, path in found.files if component == "unet"} == set(halves(new))
    assert all(torch.equal(found.read(f"unet.{name}"), value) for name, value in theirs.items())


def test_transformers_takes_a_single_file_before_an_index_and_so_do_we(folder: Path) -> None:
    from transformers import CLIPTextModel

    place = folder / "text_encoder"
    new = {name: 2 * value for name, value in part(folder, "text_encoder").items()}
    index(place, "model.safetensors.index.json", halves(new))
    theirs = CLIPTextModel.from_pretrained(place).state_dict()
    name = "text_model.final_layer_norm.bias"
    found = open_folder(folder, "x")
    single = part(folder, "text_encoder")[name]
    assert torch.equal(found.read(f"text_encoder.{name}"), single)
    assert any(torch.equal(value, single.float()) for key, value in theirs.items() if key.endswith("layer_norm.bias"))
    (place / "model.safetensors").unlink()
    assert torch.equal(open_folder(folder, "x").read(f"text_encoder.{name}"), new[name])


def test_a_shard_that_an_index_names_must_be_there(folder: Path) -> None:
    place = folder / "unet"
    index(place, "diffusion_pytorch_model.safetensors.index.json", halves(part(folder, "unet")))
    (place / "new-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"unet: lacks new-00002-of-00002\.safetensors, which its index names"):
        open_folder(folder, "x")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}',
                                  '{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}',
                                  '{"weight_map": {"a": "x.bin"}}', '{"weight_map": ["x.safetensors"]}'])  # fmt: skip
def test_an_index_that_is_none(folder: Path, text: str) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"index\.json: is not an index of shards: "):
        open_folder(folder, "x")


def test_two_sets_of_weights_that_nobody_can_choose_between(folder: Path) -> None:
    shutil.copyfile(folder / UNET, folder / "unet" / "model.safetensors")
    with pytest.raises(WeightsError, match=r"holds two sets of weights: diffusion_pytorch_model.*, model\.safetensors"):
        open_folder(folder, "x")


def test_half_precision_copies_are_taken_where_there_is_nothing_else(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = path.with_name("diffusion_pytorch_model.fp16.safetensors")
    shutil.copyfile(path, half)
    assert ("unet", path) in open_folder(folder, "x").files
    path.unlink()
    assert ("unet", half) in open_folder(folder, "x").files


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ({}, ("epsilon", False)),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, ("v_prediction", True)),
    ],
)
def test_prediction(folder: Path, noise: dict[str, object], expected: tuple[str, bool]) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **noise)
    facts = open_folder(folder, "x").facts
    assert (facts.prediction, facts.zero_terminal_snr) == expected


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: openrail++\ntags:\n- a\n---\n# Model", "openrail++"),
        ("---\ntags: []\nlicense: 'apache-2.0'\n---", "apache-2.0"),
        ("---\nlicense:\n- mit\n---", None),
        ("license: mit", None),
        ("", None),
    ],
)
def test_licence_of_the_model_card(folder: Path, card: str, licence: str | None) -> None:
    assert open_folder(folder, "x").facts.licence is None
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert open_folder(folder, "x").facts.licence == licence


def test_a_folder_of_a_known_family_is_checked_without_torch(tmp_path: Path) -> None:
    shutil.copytree(config_folder("tiny"), tmp_path / "model")
    for component, name in (*NAMES.items(), ("text_encoder_2", "model")):
        write(tmp_path / "model" / component / f"{name}.safetensors", part(tmp_path / "model", component))
    code = (
        "import sys; from pathlib import Path; from bench.checkpoints.diffusers_folder import open_folder\n"
        "print(len(open_folder(Path(sys.argv[1]), 'x').tensors), {'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{len(family_tensors('tiny'))} set()"


@pytest.mark.parametrize("wrap", ["_orig_mod.{}", "module.{}", "module._orig_mod.{}"])
def test_names_of_a_network_that_was_wrapped_when_it_was_saved(folder: Path, wrap: str) -> None:
    expected, tensors = open_folder(folder, "x").tensors, part(folder, "unet")
    write(folder / UNET, {wrap.format(name): value for name, value in tensors.items()})
    found = open_folder(folder, "x")
    assert found.tensors == expected
    assert torch.equal(found.read("unet.conv_in.bias"), tensors["conv_in.bias"])


def test_an_empty_negative_prompt_is_the_suites_too(tmp_path: Path) -> None:
    shutil.copytree(weights.pipeline_folder(), tmp_path / "mini")
    assert open_folder(tmp_path / "mini", "x").facts.left_aside == ()
    change(tmp_path / "mini" / "model_index.json", force_zeros_for_empty_prompt=False)
    assert open_folder(tmp_path / "mini", "x").facts.left_aside == ("force_zeros_for_empty_prompt = false",)


def test_the_shipped_family() -> None:
    found = open_folder(weights.pipeline_folder(), "mini")
    assert (found.facts.family, len(found.tensors)) == ("sdxl", 290 + 168 + 36 + 37)


UNET = Path("unet", "diffusion_pytorch_model.safetensors")
SCHEDULER = Path("scheduler", "scheduler_config.json")
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "is not a diffusers folder"),
    "another pipeline": (
        lambda folder: change(folder / "model_index.json", _class_name="StableDiffusion3Pipeline"),
        "holds a StableDiffusion3Pipeline; hotart-bench renders",
    ),
    "SD 2": (lambda folder: change(folder / "unet" / "config.json", cross_attention_dim=1024), "Stable Diffusion 2"),
    "a pickle": (
        lambda folder: (folder / UNET).rename((folder / UNET).with_suffix(".bin")),
        r"holds no \.safetensors weights for unet; pickled weights are not read",
    ),
    "a cut file": (lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1]), "cut short"),
    "no configuration": (lambda folder: (folder / "vae" / "config.json").unlink(), r"config\.json: is missing"),
    "a configuration that is a list": (lambda folder: (folder / "vae" / "config.json").write_text("[]"), "no.* object"),
    "an extra key": (
        lambda folder: write(folder / UNET, part(folder, "unet") | {"extra.weight": torch.zeros(1)}),
        r"unet: holds 1 that have no place \(unet 1\), such as unet\.extra\.weight",
    ),
    "other widths": (
        lambda folder: change(folder / "vae" / "config.json", block_out_channels=[16, 32, 32, 48]),
        "of another shape",
    ),
    "another class": (
        lambda folder: change(folder / "vae" / "config.json", _class_name="AutoencoderTiny"),
        r"vae/config\.json: a vae with the class AutoencoderTiny is not of the SD 1\.5 or SDXL kind",
    ),
    "other blocks": (
        lambda folder: change(folder / "unet" / "config.json", down_block_types=["SimpleCrossAttnDownBlock2D"] * 4),
        "a unet with a SimpleCrossAttnDownBlock2D is not of",
    ),
    "other inputs": (
        lambda folder: change(folder / "unet" / "config.json", addition_embed_type="text_image"),
        "addition_embed_type = 'text_image'",
    ),
    "widths of no model": (
        lambda folder: change(folder / "unet" / "config.json", block_out_channels=None),
        "block_out_channels: expected array, got null",
    ),
    "whole numbers": (
        lambda folder: write(folder / UNET, part(folder, "unet") | {"conv_in.bias": torch.zeros(32).to(torch.int8)}),
        r"unet: holds whole numbers where weights belong: 1 tensors, such as unet\.conv_in\.bias, .* stored as int8",
    ),
    "another kind of noise": (
        lambda folder: change(folder / SCHEDULER, _class_name="EDMEulerScheduler"),
        "is of EDMEulerScheduler: a model with EDM's noise",
    ),
    "no scheduler": (lambda folder: (folder / SCHEDULER).unlink(), r"scheduler_config\.json: is missing"),
    "another prediction": (
        lambda folder: change(folder / SCHEDULER, prediction_type="sample"),
        "prediction_type is 'sample'; known are epsilon and v_prediction",
    ),
}


@pytest.mark.parametrize("prompt_id", BROKEN)
def test_what_is_not_such_a_folder(prompt_id: str, folder: Path) -> None:
    damage, words = BROKEN[prompt_id]
    damage(folder)
    with pytest.raises(WeightsError, match=words) as caught:
        open_folder(folder, "x")
    assert caught.value.exit_code == 3
