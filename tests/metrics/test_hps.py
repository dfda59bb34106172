"""HPSv2 and v2.1: the official number from a checkpoint, and what each difference from the official code would do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from clip_panel import CASES, LONG, all_pairs, judged, plain_ids, seen, transformers_clip, transformers_features
from official_layouts import SMALL_H14, random_clip, write_hps
from open_clip import tokenize
from test_preprocessing import hps_official, transformers_official

from bench.errors import WeightsError
from bench.metrics import Encoder, Inputs, Place, registry_of
from bench.metrics.hps import hpsv2, hpsv2_vit_h14, hpsv21, hpsv21_vit_h14, load_hps
from bench.metrics.weights import find_weights, read_tensors


def small(name: str) -> Encoder:
    """The encoder of a metric, of a small shape, found where the real one is."""

    def load(place: Place):
        file = find_weights(name, place.weights_dir)
        return load_hps(read_tensors(file), place, file, SMALL_H14)

    return Encoder(f"{name}-vit-h14", load, (name,))


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch) -> None:
    """Each test writes files of its own under the published names."""
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Both metrics by the engine, and transformers' CLIP on what the half-precision checkpoints hold."""
    place, models = tmp_path_factory.mktemp("hps"), {}
    for seed, name in enumerate(("hpsv2", "hpsv2.1")):
        state = random_clip(SMALL_H14, seed)
        write_hps(place, state, name)
        held = {key: value.half().float() for key, value in state.items()}
        models[name] = transformers_clip(held, SMALL_H14)
    registry = registry_of(hpsv2, hpsv21, small("hpsv2"), small("hpsv2.1"))
    return judged(place / "run", all_pairs(), list(models), registry, weights_dir=place), models


def official(model, prompt_id, preprocessing=hps_official, ids=tokenize) -> float:
    width, height, mode, prompt = prompt_id
    picture, text = transformers_features(model, preprocessing(seen(width, height, mode)), ids(prompt))
    return 100 * float(picture @ text)


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1"])
def test_it_is_the_official_number(scored, name: str) -> None:
    found, models = scored
    expected = [official(models[name], prompt_id) for prompt_id in CASES]
    np.testing.assert_allclose([item.value for item in found[name]], expected, rtol=0, atol=1e-3)
    assert np.ptp(expected) > 1
    assert [place for place, item in enumerate(found[name]) if item.prompt_cut] == list(LONG)


def test_cropping_or_cleaning_the_text_less_would_give_other_numbers(scored) -> None:
    model = scored[1]["hpsv2"]
    assert abs(official(model, CASES[1], preprocessing=transformers_official) - official(model, CASES[1])) > 0.1
    for prompt_id in (CASES[1], CASES[2]):  # mojibake, HTML entities
        assert abs(official(model, prompt_id, ids=plain_ids) - official(model, prompt_id)) > 0.01


def test_there_is_no_logit_scale_and_nothing_is_clamped() -> None:
    images, texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    inputs = Inputs(("a", "b"), torch.empty(0), None, images, texts, 77.0, None)
    for metric in (hpsv2, hpsv21):
        torch.testing.assert_close(metric(inputs), torch.tensor([-100.0, 60.0]))


def test_the_two_have_weights_and_columns_of_their_own() -> None:
    assert hpsv2.facts.name != hpsv21.facts.name
    assert (hpsv2.facts.encoder, hpsv21.facts.encoder) == (hpsv2_vit_h14.name, hpsv21_vit_h14.name)
    assert (hpsv2_vit_h14.weights, hpsv21_vit_h14.weights) == (("hpsv2",), ("hpsv2.1",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "not a checkpoint of HPSv2: it has no 'state_dict'"),
        ([1], "not a checkpoint of HPSv2"),
        ({"state_dict": {}}, r"not the weights of HPSv2's ViT-H/14: of its keys, \d+ missing"),
    ],
)
def test_another_checkpoint_is_refused(tmp_path, content: object, message: str) -> None:
    file = tmp_path / "HPS_v2_compressed.pt"
    torch.save(content, file)
    with pytest.raises(WeightsError, match=message):
        hpsv2_vit_h14.load(Place(weights_dir=tmp_path))


def test_weights_of_another_size_are_refused(tmp_path) -> None:
    wider = dataclasses.replace(SMALL_H14, embed_dim=32)
    file = write_hps(tmp_path, random_clip(wider, 0), "hpsv2")
    with pytest.raises(WeightsError, match=r"2 of another shape .*\(64, 32\), not \(64, 48\)"):
        load_hps(read_tensors(file), Place(), file, SMALL_H14)
