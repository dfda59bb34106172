"""ImageReward's files: the published layout is loaded strictly, and what is not of it is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import torch
from official_imagereward import (
    ADDED,
    LETTERS,
    PUBLISHED,
    VOCABULARY,
    Layout,
    draw_weights,
    published_shapes,
    write_published,
    write_vocabulary,
)
from tokenizers import BertWordPieceTokenizer

from bench.errors import WeightsError
from bench.metrics import Place
from bench.metrics.blip import NOT_NEEDED, VISION, RewardNetwork, read_text_shape
from bench.metrics.imagereward import ImageRewardModel

SMALL = Layout()
SHAPE = SMALL.vision()
WEIGHTS = draw_weights(SMALL)


def load_from(folder: Path) -> ImageRewardModel:
    return ImageRewardModel(folder, folder / "vocab.txt", Place(), SHAPE)


def written(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    write_published(folder, SMALL, weights)
    write_vocabulary(folder)
    return folder


@pytest.mark.parametrize("key", sorted(set(WEIGHTS) - NOT_NEEDED)[::9])
def test_a_missing_key_is_refused(tmp_path, key: str) -> None:
    folder = written(tmp_path, {name: value for name, value in WEIGHTS.items() if name != key})
    with pytest.raises(WeightsError, match=f"ImageReward.pt: .*1 missing \\({re.escape(key)}\\)"):
        load_from(folder)


def test_what_the_score_does_not_read_may_be_left_out(tmp_path) -> None:
    spare = {key for key in WEIGHTS if key.startswith(("blip.vision_proj", "blip.text_proj")) or "position_ids" in key}
    assert len(spare) == 5
    whole = load_from(written(tmp_path / "whole", dict(WEIGHTS)))
    part = load_from(written(tmp_path / "part", {key: WEIGHTS[key] for key in WEIGHTS if key not in spare}))
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(part.score(pixels, ["a cat"]), whole.score(pixels, ["a cat"]))


def test_unknown_and_misshapen_keys_are_refused_together(tmp_path) -> None:
    wrong = {**WEIGHTS, "mlp.layers.4.bias": torch.zeros(3), "blip.itm_head.bias": torch.zeros(2)}
    with pytest.raises(
        WeightsError,
        match=r"1 unknown \(blip.itm_head.bias\); 1 of another shape \(mlp.layers.4.bias \(3,\), not \(64,",
    ):
        load_from(written(tmp_path, wrong))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ImageReward.pt", b"", "ImageReward.pt"),
        ("ImageReward.pt", b"half of a file", "ImageReward.pt"),
        ("med_config.json", b"{", "not ImageReward's med_config.json"),
        ("med_config.json", b'{"vocab_size": 9}', "missing field hidden_size"),
        ("vocab.txt", b"cat\ndog\n", "vocab.txt: not BERT's vocabulary"),
        ("vocab.txt", "\n".join(VOCABULARY[:-1]).encode(), f"vocab.txt: holds {len(VOCABULARY) - 1} tokens"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name: str, content: bytes, message: str) -> None:
    folder = written(tmp_path, WEIGHTS)
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_from(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("add_cross_attention", False, "add_cross_attention is false"), ("hidden_act", "relu", "'relu', not 'gelu'")],
)
def test_another_kind_of_network_is_refused(tmp_path, field: str, value: object, message: str) -> None:
    config = written(tmp_path, WEIGHTS) / "med_config.json"
    config.write_bytes(msgspec.json.encode({**msgspec.json.decode(config.read_bytes()), field: value}))
    with pytest.raises(WeightsError, match=message):
        load_from(tmp_path)


def test_the_published_sizes_are_the_default(tmp_path) -> None:
    write_published(tmp_path, PUBLISHED, {})
    with torch.device("meta"):
        network = RewardNetwork(VISION, read_text_shape(tmp_path / "med_config.json"))
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    wanted = published_shapes(PUBLISHED)
    assert shapes == {key: wanted[key] for key in wanted if key not in NOT_NEEDED}


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {"state_dict": {}}])
def test_something_else_in_the_file_is_refused(tmp_path, content: object) -> None:
    folder = written(tmp_path, WEIGHTS)
    torch.save(content, folder / "ImageReward.pt")
    with pytest.raises(WeightsError, match="not the weights of ImageReward"):
        load_from(folder)


def test_the_vocabulary_ends_with_the_two_added_tokens(tmp_path) -> None:
    encoder = load_from(written(tmp_path, WEIGHTS))
    plain = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    assert plain.get_vocab_size() == len(VOCABULARY) == SMALL.tokens - ADDED
    assert set(LETTERS) <= set(VOCABULARY)
    added = [encoder._tokenizer.token_to_id(token) for token in ("[DEC]", "[ENC]")]
    assert added == [len(VOCABULARY), len(VOCABULARY) + 1]
