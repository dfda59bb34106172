"""The family's metrics: their facts, their encoders, and each formula anew."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bench.metrics import Inputs, Place
from bench.metrics.declare import Metric
from bench.metrics.registry import installed
from bench.mini import draw, metrics, weights, world
from bench.mini.metrics import (
    MiniEncoder,
    load_aesthetic,
    mini_aesthetic,
    mini_clip,
    mini_clip_2,
    mini_preference,
    mini_preference_2,
)
from bench.mini.networks import load_instrument, load_mini_clip
from bench.score.batches import by_row

ENCODERS = ("mini-clip", "mini-preference", "mini-clip-2", "mini-preference-2")
NAMES = ("mini-aesthetic", *ENCODERS)


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> MiniEncoder:
    torch.set_num_threads(1)
    return MiniEncoder(request.param, "cpu")


def pictures(n: int) -> list[Image.Image]:
    scenes = world.sample("landscape", n, np.random.default_rng(0))
    return [Image.fromarray(image) for image in draw.draw(scenes).transpose(0, 2, 3, 1)]


def inputs(images: Tensor, texts: Tensor | None, scale: float = 1.0, head: object = None) -> Inputs:
    return Inputs(("a prompt",) * len(images), torch.zeros(0, 3, 64, 64), None, images, texts, scale, head)


# --- facts ---------------------------------------------------------------------------------


def test_metrics_are_found_by_their_entry_point() -> None:
    registry = installed()
    assert not registry.problems
    assert set(NAMES) <= set(registry.metrics)
    assert set(ENCODERS) <= set(registry.encoders)
    assert registry.metrics["mini-aesthetic"].facts.encoder == "mini-clip"
    assert all(registry.metrics[name].facts.encoder == name for name in ENCODERS)


@pytest.mark.parametrize(
    ("metric", "category", "trained_on"),
    [
        (mini_clip, "alignment", ("mini-scenes",)),
        (mini_aesthetic, "aesthetic", ("mini-ratings",)),
        (mini_preference, "preference", ("mini-raters",)),
        (mini_clip_2, "alignment", ("mini-scenes-2",)),
        (mini_preference_2, "preference", ("mini-raters-2",)),
    ],
)
def test_facts_are_stated(metric: object, category: str, trained_on: tuple[str, ...]) -> None:
    facts = metric.facts  # type: ignore[attr-defined]
    assert (facts.category, facts.trained_on, facts.higher_is_better) == (category, trained_on, True)
    assert all((facts.version, facts.summary, facts.unit, facts.training_data, facts.licence, facts.reference))


@pytest.mark.parametrize(("first", "second"), [(mini_clip, mini_clip_2), (mini_preference, mini_preference_2)])
def test_the_second_pair_computes_as_the_first_on_networks_of_its_own(first: Metric, second: Metric) -> None:
    images, texts = units(4, 5), units(4, 6)
    assert torch.equal(second(inputs(images, texts, scale=9.0)), first(inputs(images, texts, scale=9.0)))
    one, two = (
        load_file(weights.weight_file(f"networks/{metric.facts.encoder}.safetensors")) for metric in (first, second)
    )
    assert sum(value.numel() for value in two.values()) < sum(value.numel() for value in one.values()) / 2
    for field in ("name", "summary", "encoder", "trained_on", "training_data"):
        assert getattr(first.facts, field) != getattr(second.facts, field)


def test_only_the_metrics_that_need_a_prompt_read_it() -> None:
    assert all(metric.needs_text for metric in (mini_clip, mini_preference, mini_clip_2, mini_preference_2))
    assert not mini_aesthetic.needs_text


# --- encoders --------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_in_float32(encoder: MiniEncoder) -> None:
    images = encoder.embed_images(torch.stack([encoder.preprocess(image) for image in pictures(3)]))
    texts = encoder.embed_texts(["a red tent", "Grüße 🏕️", "tent " * 100])
    for embeds in (images, texts):
        assert (embeds.shape, embeds.dtype) == ((3, 96), torch.float32)
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", ENCODERS)
def test_temperature_is_the_exponential_of_the_stored_one(name: str) -> None:
    stored = float(load_file(weights.weight_file(f"networks/{name}.safetensors"))["logit_scale"])
    assert MiniEncoder(name, "cpu").logit_scale == pytest.approx(np.exp(stored), rel=1e-5)


def test_picture_of_the_right_size_is_taken_pixel_by_pixel(encoder: MiniEncoder) -> None:
    image = pictures(1)[0]
    found = encoder.preprocess(image)
    assert (found.shape, found.dtype) == ((3, 64, 64), torch.float32)
    np.testing.assert_array_equal(found.numpy(), np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_picture_of_another_mode_is_read_as_rgb(encoder: MiniEncoder, mode: str) -> None:
    image = pictures(1)[0].convert(mode)
    np.testing.assert_array_equal(encoder.preprocess(image), encoder.preprocess(image.convert("RGB")))


def test_picture_of_another_size_is_resized(encoder: MiniEncoder) -> None:
    large = Image.new("RGB", (200, 100), (255, 128, 0))
    found = encoder.preprocess(large)
    assert found.shape == (3, 64, 64)
    np.testing.assert_allclose(found[:, 32, 32], [1.0, 128 / 255, 0.0])


def test_results_are_the_same_bits_alone_and_among_others(encoder: MiniEncoder) -> None:
    """Through the padding that ``score`` uses: one batch shape, whatever there is to score."""
    rows = [encoder.preprocess(image) for image in pictures(5)]
    prompts = [f"a {colour} tent" for colour in ("red", "blue", "yellow", "white")] + ["写真"]

    def embed(kind: str) -> object:
        return (lambda r: encoder.embed_images(torch.stack(r))) if kind == "image" else encoder.embed_texts

    for kind, given in (("image", rows), ("text", prompts)):
        together = by_row(embed(kind), given, encoder.batch)  # type: ignore[arg-type]
        backwards = by_row(embed(kind), given[::-1], encoder.batch)[::-1]  # type: ignore[arg-type]
        alone = [by_row(embed(kind), [row], encoder.batch)[0] for row in given]  # type: ignore[arg-type]
        for one, two, three in zip(together, backwards, alone, strict=True):
            assert isinstance(one, Tensor)
            assert torch.equal(one, two)  # type: ignore[arg-type]
            assert torch.equal(one, three)  # type: ignore[arg-type]


# --- formulas ------------------------------------------------------------------------------


def units(n: int, seed: int) -> Tensor:
    drawn = torch.randn(n, 96, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_clip_score_is_100_times_the_cosine_but_never_negative() -> None:
    images, texts = units(6, 0), units(6, 1)
    texts[0], texts[1] = images[0], -images[1]
    expected = [100 * max(float(np.dot(a, b)), 0.0) for a, b in zip(images.numpy(), texts.numpy(), strict=True)]
    np.testing.assert_allclose(mini_clip(inputs(images, texts)).numpy(), expected, atol=1e-4)
    assert expected[0] == pytest.approx(100, abs=1e-4)
    assert expected[1] == 0


def test_preference_is_the_scaled_cosine() -> None:
    images, texts = units(6, 2), units(6, 3)
    expected = [31.5 * float(np.dot(a, b)) for a, b in zip(images.numpy(), texts.numpy(), strict=True)]
    np.testing.assert_allclose(mini_preference(inputs(images, texts, scale=31.5)).numpy(), expected, atol=1e-4)


def test_aesthetic_is_an_affine_regressor_with_the_shipped_head() -> None:
    head, images = load_aesthetic(Place()), units(6, 4)
    stored = load_file(weights.weight_file("networks/mini-aesthetic.safetensors"))
    w, b = (stored[name].double().numpy() for name in ("weight", "bias"))
    assert (w.shape, b.shape) == ((96,), (1,))
    expected = [float(np.dot(e, w) + b[0]) for e in images.double().numpy()]
    np.testing.assert_allclose(mini_aesthetic(inputs(images, None, head=head)).numpy(), expected, atol=1e-5)


def test_declared_encoders_load_the_networks_of_their_names() -> None:
    for name, declared in (
        ("mini-clip", metrics.mini_clip_encoder),
        ("mini-preference", metrics.mini_preference_encoder),
        ("mini-clip-2", metrics.mini_clip_2_encoder),
        ("mini-preference-2", metrics.mini_preference_2_encoder),
    ):
        assert declared.name == name
        network, _ = load_mini_clip(name)
        pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(declared.load(Place()).embed_images(pixels), network.embed_images(pixels))


# --- loading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load",
    [
        partial(load_mini_clip, "mini-clip"),
        partial(load_mini_clip, "mini-preference"),
        partial(load_mini_clip, "mini-clip-2"),
        partial(load_mini_clip, "mini-preference-2"),
        partial(load_mini_clip, "step-aware", timestep=True),
        load_instrument,
    ],
)
def test_what_is_loaded_is_frozen_in_float32_and_finite(load: object) -> None:
    loaded = load()  # type: ignore[operator]
    network = loaded[0] if isinstance(loaded, tuple) else loaded
    assert not network.training
    for value in network.state_dict().values():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert bool(value.isfinite().all())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_prompts_longer_than_the_encoder_reads_are_reported() -> None:
    encoder = MiniEncoder("mini-clip", "cpu")
    words = ["tent"] * 40
    found = [encoder.truncated([" ".join(words[:count])])[0] for count in range(1, 41)]
    lengths = [len(encoder._tokenizer(" ".join(words[:count])).input_ids) for count in range(1, 41)]
    assert found == [length > 32 for length in lengths]
    assert {True, False} == set(found)
