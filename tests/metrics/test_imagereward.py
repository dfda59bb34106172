"""ImageReward on random weights in the published layout, against its arithmetic written out from the papers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from fake_metrics import of_metric, rendered
from hypothesis import given, settings
from hypothesis import strategies as st
from official_imagereward import (
    VOCABULARY,
    WORDS,
    Layout,
    draw_weights,
    official_score,
    write_published,
    write_vocabulary,
)
from PIL import Image, ImageDraw
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from bench.machine import pick_device
from bench.metrics import Inputs, LoadedRewardModel, NoScoreError, Place, registry_of
from bench.metrics.catalogue import CATALOGUE
from bench.metrics.imagereward import BATCH, ImageRewardModel, imagereward, imagereward_model
from bench.score import score
from bench.score.batches import by_row

SMALL = Layout()
SHAPE = SMALL.vision()
WEIGHTS = draw_weights(SMALL)
LONG = "the painting of an ocean with clouds, birds and a cat at night, low depth of field effect. " * 6
PROMPTS = (
    "a cat with birds",
    "",
    LONG,
    "Unbelievable DOGS!",
    "世界 猫 …",
    "שלום cats",
    "ΟΔΟΣ αβγ",
    "[ENC] don't [SEP] xyz",
    "a\tcat\nand  the  \U0001f600 dog",
)
TERMS = (
    *VOCABULARY[5:25],
    *(word for word in WORDS if not word.startswith("##")),
    *[
        "Éé",
        "İ",
        "ẞ",
        "Œ",
        "ΣΑΣ",
        "Ωδ",
        "ÄÖ",
        "\xa0",
        "\u200b",
        "́",
        "\t",
        "\n",
        "世",
        "猫",
        "ן",
        "ж",
        "😀",
        "[CLS]",
        "[ENC]",
        "[DEC]",
        "[MASK]",
        "[enc]",
        "##",
        "'",
        "…",
    ],
)


@pytest.fixture(scope="module")
def place_of_weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imagereward")
    write_published(folder, SMALL, WEIGHTS)
    write_vocabulary(folder)
    return folder


def load_from(folder: Path, place: Place | None = None) -> ImageRewardModel:
    return ImageRewardModel(folder, folder / "vocab.txt", place or Place(), SHAPE)


@pytest.fixture(scope="module")
def loaded(place_of_weights) -> ImageRewardModel:
    torch.set_num_threads(1)
    return load_from(place_of_weights)


class OfficialTokenizer:
    """transformers' tokenizer in plain Python, lower-casing letter by letter, as release 4 did and 5 does not."""

    def __init__(self, vocabulary: Path) -> None:
        self.tokenizer = BertTokenizerLegacy(str(vocabulary))
        self.tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
        self.special = re.compile(r"(\[(?:CLS|SEP|PAD|UNK|MASK|DEC|ENC)\])")

    def __call__(self, prompt: str) -> list[int]:
        parts = self.special.split(prompt)
        lowered = [part if at % 2 else "".join(map(str.lower, part)) for at, part in enumerate(parts)]
        return list(self.tokenizer("".join(lowered), truncation=True, max_length=35).input_ids)


@pytest.fixture(scope="module")
def official_ids(place_of_weights) -> OfficialTokenizer:
    return OfficialTokenizer(place_of_weights / "vocab.txt")


def draw_scene(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Waves of colour with shapes on them, and for modes with alpha a transparent part with colours below it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 30) + 1) * np.cos(y / rng.uniform(3, 30)) for _ in range(4)]
    levels = ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)
    image = Image.fromarray(levels[..., :3].copy())
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 4, height // 4, width // 2, height // 2), fill=(250, 30, 60))
    draw.line((0, 0, width, height), fill=(10, 240, 20), width=3)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(levels[..., 3].copy()))
    return image.quantize(16) if mode == "P" else image.convert(mode)


def official_pixels(side_px: int) -> Callable[[Image.Image], torch.Tensor]:
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resize = Resize(side_px, interpolation=InterpolationMode.BICUBIC)
    in_rgb = partial(Image.Image.convert, mode="RGB")
    return Compose([resize, CenterCrop(side_px), in_rgb, ToTensor(), Normalize(mean, deviation)])


def standardised(rewards: torch.Tensor) -> torch.Tensor:
    return imagereward(
        Inputs(("",) * len(rewards), rewards.new_empty(0, 3, 0, 0), None, None, None, 1.0, None, rewards)
    )


# --- the score -----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_equals_the_arithmetic_of_the_papers(loaded, official_ids, prompt: str) -> None:
    images = [draw_scene(48, 40, seed=1), draw_scene(30, 90, "L", seed=2), draw_scene(64, 64, "RGBA", seed=3)]
    found = standardised(loaded.score(torch.stack([loaded.preprocess(image) for image in images]), [prompt] * 3))
    for image, value in zip(images, found.tolist(), strict=True):
        wanted = official_score(WEIGHTS, SMALL, official_ids(prompt), official_pixels(SMALL.image_px)(image))
        assert value == pytest.approx(wanted, abs=1e-5)


def test_picture_and_prompt_both_move_the_score(loaded) -> None:
    pixels = torch.stack([loaded.preprocess(draw_scene(48, 40, seed=seed)) for seed in (1, 2)])
    one, other_image = loaded.score(pixels, ["a cat", "a cat"]).tolist()
    other_prompt = float(loaded.score(pixels[:1], ["the birds"])[0])
    assert min(abs(one - other_image), abs(one - other_prompt)) > 1e-3


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8))
def test_the_reward_is_standardised_with_the_published_constants(rewards: list[float]) -> None:
    wanted = (np.array(rewards) - 0.16717362830052426) / 1.0333394966054072
    found = standardised(torch.tensor(rewards))
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - wanted).max() <= 1e-5


def test_a_metric_without_its_reward_says_so() -> None:
    with pytest.raises(ValueError, match="reward model"):
        imagereward(Inputs(("a",), torch.empty(0, 3, 0, 0), None, None, None, 1.0, None))


# --- company -------------------------------------------------------------------------------

CROWD = [(seed, PROMPTS[seed % len(PROMPTS)]) for seed in range(32)]
PIXELS = [official_pixels(SMALL.image_px)(draw_scene(40, 32, seed=seed)) for seed, _ in CROWD]


def in_batches(encoder: ImageRewardModel, rows: Sequence[tuple[int, str]]) -> dict[tuple[int, str], float]:
    """The scores as the engine makes them: always ``BATCH`` rows, the last batch filled up."""

    def run(batch: list[tuple[int, str]]) -> torch.Tensor:
        assert len(batch) == BATCH
        return encoder.score(torch.stack([PIXELS[seed] for seed, _ in batch]), [prompt for _, prompt in batch])

    parts = [by_row(run, list(rows[start : start + BATCH]), BATCH) for start in range(0, len(rows), BATCH)]
    return {row: float(value) for row, value in zip(rows, [value for part in parts for value in part], strict=True)}


@pytest.fixture(scope="module")
def crowd_scores(loaded) -> dict[tuple[int, str], float]:
    return in_batches(loaded, CROWD)


@pytest.mark.parametrize("at", [0, 1, 2, 17, 31])
def test_alone_is_bit_identical_to_among_31_others(loaded, crowd_scores, at: int) -> None:
    assert in_batches(loaded, [CROWD[at]])[CROWD[at]] == crowd_scores[CROWD[at]]


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(32)))
def test_any_order_gives_the_same_bits(loaded, crowd_scores, order: list[int]) -> None:
    assert in_batches(loaded, [CROWD[at] for at in order]) == crowd_scores


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_company_moves_no_score_anywhere_by_more_than_it_is_held_to(place_of_weights, dtype) -> None:
    """On whatever device there is: by 1e-4, and in float32 on a CPU by nothing."""
    device = pick_device("auto")
    encoder = load_from(place_of_weights, Place(device, dtype=dtype))
    bound = 0.0 if (device, dtype) == ("cpu", "float32") else 1e-4
    together, backwards = in_batches(encoder, CROWD), in_batches(encoder, CROWD[::-1])
    for row in CROWD:
        assert abs(backwards[row] - together[row]) <= bound
        assert abs(in_batches(encoder, [row])[row] - together[row]) <= bound


# --- half precision ------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_near_and_ends_in_float32(loaded, place_of_weights, dtype, tolerance: float) -> None:
    half = load_from(place_of_weights, Place(dtype=dtype))
    pixels = torch.stack([loaded.preprocess(draw_scene(40, 32, seed=seed)) for seed in range(4)])
    exact, found = (encoder.score(pixels, PROMPTS[:4]) for encoder in (loaded, half))
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).abs().max()) < tolerance
    parameters = {name: value.dtype for name, value in half._network.named_parameters()}
    assert {value for name, value in parameters.items() if name.startswith("mlp.")} == {torch.float32}
    assert {value for name, value in parameters.items() if name.startswith("blip.")} == {getattr(torch, dtype)}


# --- pixels --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
@pytest.mark.parametrize("size", [(83, 121), (102, 71), (32, 32), (20, 7), (33, 32), (1, 1)])
def test_pixels_are_those_of_the_official_transform(loaded, mode: str, size: tuple[int, int]) -> None:
    image = draw_scene(*size, mode)
    before = (image.mode, image.tobytes())
    assert torch.equal(loaded.preprocess(image), official_pixels(SMALL.image_px)(image))
    assert (image.mode, image.tobytes()) == before


def test_rgb_comes_after_the_resize(loaded) -> None:
    image = draw_scene(70, 61, "RGBA")
    assert not torch.equal(loaded.preprocess(image), loaded.preprocess(image.convert("RGB")))


def test_an_image_too_long_has_no_score(loaded) -> None:
    with pytest.raises(NoScoreError, match="300000 x 1 pixels"):
        loaded.preprocess(Image.new("L", (300_000, 1)))


# --- text ----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TERMS + PROMPTS), max_size=50), st.sampled_from(["", " "]))
def test_tokens_are_those_of_the_official_tokenizer(loaded, official_ids, terms: list[str], between: str) -> None:
    prompt = between.join(terms)
    encoded = loaded._tokenizer.encode(prompt)
    length = sum(encoded.attention_mask)
    assert encoded.ids[:length] == official_ids(prompt)
    assert encoded.ids[length:] == [0] * (35 - length)


@pytest.mark.parametrize(("words", "cut"), [(0, False), (33, False), (34, True), (5000, True)])
def test_a_prompt_of_more_than_35_tokens_is_cut(loaded, official_ids, words: int, cut: bool) -> None:
    prompt = "cat " * words
    assert loaded.truncated(["a dog", prompt]) == [False, cut]
    encoded = loaded._tokenizer.encode(prompt)
    assert len(encoded.ids) == 35
    assert encoded.tokens[min(words, 33) + 1] == "[SEP]"


def test_words_after_the_cut_change_nothing(loaded) -> None:
    pixels = loaded.preprocess(draw_scene(40, 32)).expand(3, -1, -1, -1)
    whole, longer, other = loaded.score(pixels, ["cat " * 33, "cat " * 33 + "dog", "cat " * 32 + "dog"]).tolist()
    assert whole == longer
    assert whole != other


# --- in the engine -------------------------------------------------------------------------


def test_a_run_is_scored_from_a_folder_of_weights(tmp_path, monkeypatch, official_ids) -> None:
    for name in imagereward_model.weights:  # random weights have other hashes than the published ones
        files = [msgspec.structs.replace(file, sha256=None, size_bytes=None) for file in CATALOGUE[name].files]
        monkeypatch.setitem(CATALOGUE, name, msgspec.structs.replace(CATALOGUE[name], files=tuple(files)))
        folder = tmp_path / "weights" / CATALOGUE[name].repository
        write_published(folder, SMALL, WEIGHTS) if name == "imagereward" else write_vocabulary(folder)
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))
    monkeypatch.setattr("bench.metrics.blip.VISION", SHAPE)
    registry = registry_of(imagereward, imagereward_model)
    with rendered(tmp_path / "run", metrics=("imagereward",), prompts=3) as run:
        prompts = {prompt.id: prompt.text for prompt in run.info.suite.prompts}
        assert score(run, weights_dir=tmp_path / "weights", registry=registry) == 3 * 3 * 2
        images = {(item.variant, item.prompt_id, item.sample): item.image for item in run.renders()}
        for item in of_metric(run, "imagereward"):
            image = Image.open(run.path / images[item.variant, item.prompt_id, item.sample])
            ids = official_ids(prompts[item.prompt_id])
            wanted = official_score(WEIGHTS, SMALL, ids, official_pixels(SMALL.image_px)(image))
            assert item.value == pytest.approx(wanted, abs=1e-5)
            assert item.prompt_cut == (len(ids) == 35 and len(prompts[item.prompt_id]) > 35)


def test_it_is_a_reward_model_and_names_its_weights(loaded) -> None:
    assert isinstance(loaded, LoadedRewardModel)
    assert set(imagereward_model.weights) <= set(CATALOGUE)
    assert imagereward.facts.encoder == imagereward_model.name
    assert imagereward.facts.trained_on == ("imagereward-db",)


def test_declaring_it_needs_no_torch() -> None:
    code = (
        "import sys, bench.metrics.imagereward; print([m for m in ('torch', 'tokenizers', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
