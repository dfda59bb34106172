"""LAION's aesthetic predictors: the official rating, the constants of heads, and heads that are no such thing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from clip_panel import CASES, all_pairs, draw, judged, open_clip_clip, seen, transformers_clip
from official_layouts import AESTHETIC_LAYERS, SMALL_L14, random_clip, random_head, write_head, write_openai
from test_preprocessing import openai_official

from bench.errors import WeightsError
from bench.metrics import Encoder, Inputs, Place, registry_of
from bench.metrics.aesthetic import aesthetic_v1, aesthetic_v2, load_v1, load_v2
from bench.metrics.openai_clip import load_openai_clip
from bench.metrics.weights import read_tensors

NAMES = ("aesthetic-v1", "aesthetic-v2")
METRICS = dict(zip(NAMES, (aesthetic_v1, aesthetic_v2), strict=True))
LOADERS = dict(zip(NAMES, (load_v1, load_v2), strict=True))


def collapsed(head: dict[str, torch.Tensor]) -> tuple[np.ndarray, float]:
    """The head as w . e + b, in float64: linear layers with nothing between them are one."""
    stems = sorted({key.rsplit(".", 1)[0] + "." if "." in key else "" for key in head})
    weight, bias = np.eye(768), np.zeros(768)
    for stem in stems:
        matrix = head[f"{stem}weight"].double().numpy()
        weight, bias = matrix @ weight, matrix @ bias + head[f"{stem}bias"].double().numpy()
    return weight[0], float(bias[0])


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A folder of weights with both heads, the encoder's file and state, and the engine's scores of every case."""
    place, state = tmp_path_factory.mktemp("aesthetic"), random_clip(SMALL_L14, 6)
    file = write_openai(place, state)
    heads = {name: random_head(name, 7) for name in NAMES}
    for name, head in heads.items():
        write_head(place, name, head)
    small = Encoder("openai-vit-l14", lambda at: load_openai_clip(read_tensors(file), at, file, SMALL_L14))
    return place, state, heads, registry_of(aesthetic_v1, aesthetic_v2, small)


@pytest.fixture(autouse=True)
def any_bytes(monkeypatch) -> None:
    """The published heads' hash and size are pinned; these are drawn, so that only where they lie is looked up."""
    from bench.metrics import aesthetic
    from bench.metrics.catalogue import CATALOGUE

    def found(name, weights_dir):
        entry = CATALOGUE[name]
        return weights_dir / entry.repository / entry.files[0].name

    monkeypatch.setattr(aesthetic, "find_weights", found)


def test_they_are_the_official_ratings(panel, tmp_path) -> None:
    place, state, heads, registry = panel
    found = judged(tmp_path, all_pairs(), NAMES, registry, weights_dir=place)
    model = transformers_clip(state, SMALL_L14)
    for name in NAMES:
        weight, bias = collapsed(heads[name])
        expected = [float(weight @ unit(model, prompt_id)) + bias for prompt_id in CASES]
        np.testing.assert_allclose([item.value for item in found[name]], expected, rtol=0, atol=1e-4)
        assert np.ptp(expected) > 0.1
        assert not any(item.prompt_cut for item in found[name])


def unit(model, prompt_id) -> np.ndarray:
    width, height, mode, _ = prompt_id
    with torch.inference_mode():
        features = model.get_image_features(pixel_values=openai_official(seen(width, height, mode))[None])
    row = features.pooler_output[0].double().numpy()
    return row / np.linalg.norm(row)


def test_the_exact_gelu_would_give_other_ratings(panel) -> None:
    _, state, heads, _ = panel
    pixels = openai_official(draw(512, 512))[None]
    weight, bias = collapsed(heads["aesthetic-v1"])
    ratings = []
    for quick in (True, False):
        with torch.inference_mode():
            row = open_clip_clip(state, dataclasses.replace(SMALL_L14, quick_gelu=quick)).encode_image(pixels)[0]
        row = row.double().numpy()
        ratings.append(float(weight @ (row / np.linalg.norm(row))) + bias)
    assert abs(ratings[0] - ratings[1]) > 5e-4  # five times what the official rating is held to


@pytest.mark.parametrize("name", NAMES)
def test_at_no_embedding_at_all_a_head_gives_its_constant(panel, name: str) -> None:
    place, _, heads, _ = panel
    head = LOADERS[name](Place(weights_dir=place))
    zero = Inputs(("x",), torch.empty(0), None, torch.zeros(1, 768), None, 1.0, head)
    assert float(METRICS[name](zero)) == pytest.approx(collapsed(heads[name])[1], abs=1e-5)


def published_like() -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Drawn layers that collapse to the second predictor's published |w|, bias and rating of equal numbers; and w."""
    norm, bias, rating_of_equal = 17.995625, 5.236646, 4.883285
    head = {key: value.double() for key, value in random_head("aesthetic-v2", 11).items()}
    equal, drawn = np.full(768, 768**-0.5), np.random.default_rng(0).normal(size=768)
    drawn -= (drawn @ equal) * equal
    along = rating_of_equal - bias
    wanted = along * equal + np.sqrt(norm**2 - along**2) * drawn / np.linalg.norm(drawn)
    after = np.eye(1024)
    for number in (2, 4, 6, 7):
        after = head[f"layers.{number}.weight"].numpy() @ after
    first = head["layers.0.weight"].numpy()  # shares its memory with the head
    first += np.outer(after[0], wanted - after[0] @ first) / (after[0] @ after[0])
    head["layers.7.bias"] += bias - collapsed(head)[1]
    return {key: value.float() for key, value in head.items()}, wanted


def test_a_head_with_the_published_constants_rates_as_published(tmp_path) -> None:
    head, weight = published_like()
    write_head(tmp_path, "aesthetic-v2", head)
    rows = [np.zeros(768), np.full(768, 768**-0.5), weight / 17.995625]
    embeds = torch.tensor(np.stack(rows), dtype=torch.float32)
    loaded = load_v2(Place(weights_dir=tmp_path))
    ratings = aesthetic_v2(Inputs(("x",) * 3, torch.empty(0), None, embeds, None, 1.0, loaded))
    np.testing.assert_allclose(ratings.numpy(), [5.236646, 4.883285, 5.236646 + 17.995625], rtol=0, atol=1e-4)


def test_an_embedding_that_is_not_of_unit_norm_is_refused(panel, tmp_path) -> None:
    class Unnormalised:
        batch, logit_scale = 2, 1.0

        def preprocess(self, image, preprocessing):
            return torch.zeros(3, 2, 2)

        def embed_images(self, pixels):
            return torch.full((len(pixels), 768), 0.5)

        def truncated(self, prompts):
            return [False] * len(prompts)

    place, *_ = panel
    registry = registry_of(aesthetic_v1, aesthetic_v2, Encoder("openai-vit-l14", lambda at: Unnormalised()))
    found = judged(tmp_path, all_pairs()[:2], NAMES, registry, weights_dir=place)
    reasons = {item.reason for items in found.values() for item in items}
    assert reasons == {"the encoder gave an embedding of L2 norm 13.86, not 1"}


def broken(head: dict[str, torch.Tensor], how: str) -> object:
    first = sorted(head)[0]
    if how == "missing":
        return {key: value for key, value in head.items() if key != first}
    if how == "unknown":
        return {**head, "layers.9.weight": torch.zeros(1)}
    if how == "narrow":
        return {key: value[..., :512] if value.shape[-1] == 768 else value for key, value in head.items()}
    return [1, 2, 3]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["missing", "unknown", "narrow", "list"])
def test_another_head_is_refused(tmp_path, name: str, how: str) -> None:
    file = write_head(tmp_path, name, broken(random_head(name, 1), how))
    with pytest.raises(WeightsError, match="not this aesthetic predictor: ") as caught:
        LOADERS[name](Place(weights_dir=tmp_path))
    assert str(file) in str(caught.value)


def test_a_head_of_another_width_names_both(tmp_path) -> None:
    write_head(tmp_path, "aesthetic-v2", broken(random_head("aesthetic-v2", 1), "narrow"))
    with pytest.raises(WeightsError, match=r"layers.0.weight has shape \(1024, 512\), not \(1024, 768\)"):
        load_v2(Place(weights_dir=tmp_path))


def test_the_layers_are_those_of_the_published_file(panel) -> None:
    place, *_ = panel
    shapes = [tuple(weight.shape) for weight, _ in load_v2(Place(weights_dir=place))]
    assert shapes == list(AESTHETIC_LAYERS.values())
