"""PickScore: the official number from the published folder, safetensors or bin, and folders that are no such thing."""

from __future__ import annotations

import math

import numpy as np
import open_clip
import pytest
import torch
from clip_panel import CASES, LONG, all_pairs, judged, open_clip_clip, open_clip_features, plain_ids, seen
from official_layouts import PICKSCORE_FOLDER, SMALL_H14, random_clip, write_pickscore
from safetensors.torch import load_file, save_file
from test_preprocessing import transformers_official

from bench.errors import WeightsError
from bench.metrics import Inputs, Place, registry_of
from bench.metrics.pickscore import pickscore, pickscore_vit_h14

REGISTRY = registry_of(pickscore, pickscore_vit_h14)


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch) -> None:
    """Each test writes files of its own under the published names."""
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))


@pytest.fixture(scope="module")
def state():
    return random_clip(SMALL_H14, 8)


def official(model, prompt_id, ids=plain_ids) -> float:
    width, height, mode, prompt = prompt_id
    pixels = transformers_official(seen(width, height, mode))
    picture, text = open_clip_features(model, pixels, ids(prompt))
    return 100 * float(picture @ text)


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_it_is_the_official_number_from_either_file(tmp_path, state, pickled: bool) -> None:
    write_pickscore(tmp_path, state, SMALL_H14, pickled=pickled)
    prompts = CASES[:3] if pickled else CASES  # the tensors are the same
    pairs = all_pairs()[: len(prompts)]
    found = judged(tmp_path / "run", pairs, ["pickscore"], REGISTRY, weights_dir=tmp_path)["pickscore"]
    model = open_clip_clip(state, SMALL_H14)
    expected = [official(model, prompt) for prompt in prompts]
    np.testing.assert_allclose([item.value for item in found], expected, rtol=0, atol=1e-3)
    assert np.ptp(expected) > 1
    assert [place for place, item in enumerate(found) if item.prompt_cut] == [at for at in LONG if at < len(prompts)]
    assert abs(official(model, CASES[1], open_clip.tokenize) - expected[1]) > 0.01  # openai's cleaning would show


def test_the_scale_is_the_exponential_of_the_files(tmp_path, state) -> None:
    scaled = {**state, "logit_scale": torch.tensor(math.log(26.0))}
    write_pickscore(tmp_path, scaled, SMALL_H14)
    encoder = pickscore_vit_h14.load(Place(weights_dir=tmp_path))
    assert encoder.logit_scale == pytest.approx(26.0, rel=1e-6)
    embeds = torch.tensor([[0.6, 0.8]])
    inputs = Inputs(("x",), torch.empty(0), None, embeds, torch.tensor([[1.0, 0.0]]), encoder.logit_scale, None)
    assert float(pickscore(inputs)) == pytest.approx(0.6 * 26.0, rel=1e-6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"not the weights of PickScore's CLIP: of its keys, 1 missing \(logit_scale\)"),
        ("unknown", r"1 unknown \(extra\)"),
        ("shape", r"1 of another shape \(visual_projection.weight \(48, 32\), not \(48, 64\)\)"),
    ],
)
def test_other_weights_are_refused_key_by_key(tmp_path, state, how: str, message: str) -> None:
    file = write_pickscore(tmp_path, state, SMALL_H14) / "model.safetensors"
    weights = {key: value.clone() for key, value in load_file(file).items()}
    if how == "missing":
        del weights["logit_scale"]
    elif how == "unknown":
        weights["extra"] = torch.zeros(1)
    else:
        weights["visual_projection.weight"] = weights["visual_projection.weight"][:, :32].contiguous()
    file.unlink()  # the loaded tensors may still lie in it
    save_file(weights, file)
    with pytest.raises(WeightsError, match=message):
        pickscore_vit_h14.load(Place(weights_dir=tmp_path))


def test_a_bin_that_holds_no_tensors_by_name_is_a_sentence(tmp_path, state) -> None:
    file = write_pickscore(tmp_path, state, SMALL_H14, pickled=True) / "pytorch_model.bin"
    torch.save([torch.zeros(2)], file)
    with pytest.raises(WeightsError, match=r"pytorch_model.bin: not the weights of PickScore's CLIP: it holds a list"):
        pickscore_vit_h14.load(Place(weights_dir=tmp_path))


def test_a_file_cut_short_is_a_sentence(tmp_path, state) -> None:
    file = write_pickscore(tmp_path, state, SMALL_H14) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model.safetensors: is not a whole \.safetensors file"):
        pickscore_vit_h14.load(Place(weights_dir=tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", r"is not a whole \.json file"), ("[1]", "cannot be read as the configuration of a CLIP")],
)
def test_a_damaged_configuration_is_a_sentence(tmp_path, state, content: str, message: str) -> None:
    write_pickscore(tmp_path, state, SMALL_H14)
    (tmp_path / PICKSCORE_FOLDER / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=f"config.json: {message}"):
        pickscore_vit_h14.load(Place(weights_dir=tmp_path))
