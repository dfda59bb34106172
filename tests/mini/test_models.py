"""The family's vocabulary and the shapes of its pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from bench.mini import models, weights, world
from bench.mini.networks import MAX_TOKENS as CLIP_TOKENS
from bench.mini.networks import tokenizer as load_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return load_tokenizer()


def every_caption() -> list[str]:
    return [
        world.caption(kind, content, template)
        for kind in world.KINDS
        for content in world.combinations(kind)
        for template in range(3)
    ]


def test_every_word_of_the_grammar_is_one_token(tokenizer: CLIPTokenizer) -> None:
    words = {word for text in every_caption() for word in text.replace(",", " ").split()}
    words |= {word for pair in world.CRAFT_WORDS.values() for word in pair}
    assert len(words) > 60
    for word in sorted(words):
        ids = tokenizer(word).input_ids
        assert len(ids) == 3, word
        assert tokenizer.decode(ids[1:-1]).strip() == word


def test_captions_fit_the_pipeline_and_captions_with_craft_words_mini_clip(tokenizer: CLIPTokenizer) -> None:
    lengths = [len(ids) for ids in tokenizer(every_caption()).input_ids]
    assert max(lengths) <= models.MAX_TOKENS
    assert max(lengths) + 2 * 2 <= CLIP_TOKENS  # two craft words, each after a comma


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_encoded_without_an_unknown_token(text: str) -> None:
    tokenizer = load_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert not special & set(ids)
    assert all(0 <= index < len(tokenizer) for index in ids)
    if text.isascii() and text.isprintable():
        assert tokenizer.decode(ids).replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize("text", ["", "Grüße", "写真, テント", "🏕️🌙", "a\x00b", "e\u0301"])
def test_text_of_any_script_fills_the_length_it_is_given(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text, padding="max_length", truncation=True, max_length=models.MAX_TOKENS).input_ids
    assert len(ids) == models.MAX_TOKENS
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id


def test_shipped_vocabulary_is_the_one_that_the_recipe_writes(tmp_path: Path) -> None:
    written = models.write_tokenizer(tmp_path / "tokenizer")
    shipped = load_tokenizer()
    assert written.get_vocab() == shipped.get_vocab()
    texts = ["A red TENT by the sea", "blurry, grainy", "Grüße 🏕️", "unheard-of words"]
    assert written(texts).input_ids == shipped(texts).input_ids
    assert shipped.model_max_length == models.MAX_TOKENS


def test_both_shipped_tokenizers_are_one() -> None:
    first, second = (weights.pipeline_folder() / name / "tokenizer.json" for name in ("tokenizer", "tokenizer_2"))
    assert json.loads(first.read_text("utf-8")) == json.loads(second.read_text("utf-8"))


def test_vae_maps_a_picture_to_latents_and_back() -> None:
    vae = models.build_vae().eval()
    with torch.no_grad():
        latents = vae.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean
        assert latents.shape == (2, models.LATENT_CHANNELS, 64 // models.VAE_FACTOR, 64 // models.VAE_FACTOR)
        assert vae.decode(latents).sample.shape == (2, 3, 64, 64)


def test_untrained_parts_make_a_pipeline_that_draws(tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    parts = (models.build_vae(), models.build_unet(), models.build_text_encoders(tokenizer), tokenizer)
    pipe = models.build_pipeline(*parts)
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        image = pipe("a red tent", height=64, width=64, num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 64, 64, 3)
    assert np.isfinite(image).all()


def test_noise_schedule_is_sdxls() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    scheduler = models.build_scheduler()
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=1e-4)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == list(range(951, 0, -50))


def test_time_ids_are_a_full_uncropped_picture() -> None:
    assert models.time_ids(2).tolist() == [[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * 2
