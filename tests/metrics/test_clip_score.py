"""CLIPScore on openai's ViT-L/14: the official number, through the engine, on pictures and prompts that tell."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from clip_panel import CASES, LONG, all_pairs, judged, plain_ids, seen, transformers_clip, transformers_features
from official_layouts import SMALL_L14, random_clip, write_openai
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bench.errors import WeightsError
from bench.metrics import Encoder, Inputs, Place, registry_of
from bench.metrics.openai_clip import clip_score, load_openai_clip, openai_vit_l14
from bench.metrics.weights import read_tensors


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Ours, by the engine, from the published file; and transformers' on the same weights."""
    place, state = tmp_path_factory.mktemp("clip"), random_clip(SMALL_L14, 5)
    file = write_openai(place, state)
    small = Encoder("openai-vit-l14", lambda place: load_openai_clip(read_tensors(file), place, file, SMALL_L14))
    found = judged(place / "run", all_pairs(), ["clip-l14"], registry_of(clip_score, small))["clip-l14"]
    return found, transformers_clip(state, SMALL_L14)


def official(model, prompt_id, ids=plain_ids, crop=None) -> float:
    width, height, mode, prompt = prompt_id
    image = seen(width, height, mode)
    pixels = CLIPImageProcessorPil()(image.convert("RGB"), return_tensors="pt").pixel_values[0]
    picture, text = transformers_features(model, pixels if crop is None else crop(pixels), ids(prompt))
    return 100 * max(float(picture @ text), 0.0)


def test_it_is_the_official_number(scores) -> None:
    found, model = scores
    expected = [official(model, prompt_id) for prompt_id in CASES]
    np.testing.assert_allclose([item.value for item in found], expected, rtol=0, atol=1e-3)
    assert np.ptp(expected) > 1  # weights on which every picture scored the same would show nothing


def test_it_says_which_prompts_were_cut(scores) -> None:
    assert [place for place, item in enumerate(scores[0]) if item.prompt_cut] == list(LONG)


def test_cleaning_the_text_as_openai_does_would_give_other_numbers(scores) -> None:
    _, model = scores
    assert abs(official(model, CASES[1], open_clip.tokenize) - official(model, CASES[1])) > 0.01
    assert official(model, CASES[0], open_clip.tokenize) == pytest.approx(official(model, CASES[0]), abs=1e-9)


def test_dropping_the_end_token_or_moving_the_crop_would_give_other_numbers(scores) -> None:
    _, model = scores
    cut = LONG[0]

    def without_end(prompt: str) -> torch.Tensor:
        ids = plain_ids(prompt).clone()
        ids[0, -1] = ids[0, 2]
        return ids

    assert abs(official(model, CASES[cut], without_end) - official(model, CASES[cut])) > 0.01
    moved = official(model, CASES[1], crop=lambda pixels: pixels.roll(1, dims=1))
    assert abs(moved - official(model, CASES[1])) > 1e-3


def test_a_negative_cosine_is_0_for_that_picture_alone() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    texts = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    inputs = Inputs(("a", "b", "c"), torch.empty(0), None, images, texts, 100.0, None)
    torch.testing.assert_close(clip_score(inputs), torch.tensor([0.0, 100.0, 60.0]))


def test_its_encoder_asks_for_the_catalogued_file(tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors is not in"):
        openai_vit_l14.load(Place(weights_dir=tmp_path))
