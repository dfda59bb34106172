"""Tokenizers made offline, against open_clip's own."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest

from bench.pipeline.build import tokenizers
from bench.suite import list_prompt_sets, prompts_folder, read_prompts

TEXTS = [
    "",
    "a yellow tent by the sea",
    "it's 8K, don't: (masterpiece:1.2)",
    "日本語 café naïve",
    "x " * 200,
    "🙂 \n\t y",
]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return tokenizers("sdxl")


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Every shipped prompt, where neither CLIP's cleaning nor the second tokenizer's ``!`` come in."""
    prompts = [prompt for name in list_prompt_sets() for prompt in read_prompts(prompts_folder() / name)]
    return [*TEXTS, *(prompt.text for prompt in prompts if "!" not in prompt.text and "&" not in prompt.text)]


def ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, padding="max_length", truncation=True).input_ids
    return found


def test_ids_are_open_clips(made: dict[str, Any], prompts: list[str]) -> None:
    assert len(prompts) > 100
    assert ids(made["tokenizer_2"], prompts) == open_clip.get_tokenizer("ViT-bigG-14")(prompts).tolist()


def test_the_first_fills_up_with_the_end(made: dict[str, Any], prompts: list[str]) -> None:
    for first, second in zip(ids(made["tokenizer"], prompts), ids(made["tokenizer_2"], prompts), strict=True):
        end = second.index(49407)
        assert first == second[: end + 1] + [49407] * (76 - end)


def test_facts_as_released(made: dict[str, Any]) -> None:
    assert [len(tokenizer) for tokenizer in made.values()] == [49408, 49408]
    assert [tokenizer.pad_token_id for tokenizer in made.values()] == [49407, 0]
    assert {(t.bos_token_id, t.eos_token_id, t.model_max_length) for t in made.values()} == {(49406, 49407, 77)}
    # Released SDXL folders have the same: the pad token counts as a special one wherever it stands.
    assert [ids(tokenizer, ["wow!"])[0][:4] for tokenizer in made.values()] == [
        [49406, 2781, 256, 49407],
        [49406, 2781, 0, 49407],
    ]
    assert list(tokenizers("sd15")) == ["tokenizer"]
