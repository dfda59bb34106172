"""The shared encoder: one forward for equal pixels, the same bits in any company, half precision, strict loading."""

from __future__ import annotations

import open_clip
import pytest
import torch
from clip_panel import CASES, draw, encoded, judged
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import SMALL_L14, random_clip, random_head, write_openai

from bench.errors import WeightsError
from bench.machine import pick_device
from bench.metrics import Encoder, Place, registry_of
from bench.metrics.aesthetic import aesthetic_v1, aesthetic_v2
from bench.metrics.encoders import VIT_H14, VIT_L14, ClipShape
from bench.metrics.openai_clip import clip_score, load_openai_clip
from bench.metrics.weights import read_tensors
from bench.suite.tokens import count_tokens

PROMPTS = [prompt for *_, prompt in CASES]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_openai(tmp_path_factory.mktemp("openai"), random_clip(SMALL_L14, 3))


@pytest.fixture(scope="module")
def encoder(file):
    return load_openai_clip(read_tensors(file), Place(), file, SMALL_L14)


@pytest.fixture(scope="module")
def embedded(encoder):
    """Sixteen pictures and prompts in one order, and what the encoder makes of them."""
    sizes = [(400 + 16 * n, 700 - 24 * n) for n in range(encoder.batch)]
    pixels = torch.stack([encoder.preprocess(draw(*size), "torchvision") for size in sizes])
    prompts = [f"{number} {PROMPTS[number % len(PROMPTS)]}" for number in range(encoder.batch)]
    return pixels, prompts, encoder.embed_images(pixels), encoder.embed_texts(prompts)


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(16)), st.integers(1, 16))
def test_an_embedding_has_the_same_bits_in_any_place_and_company(encoder, embedded, order, kept: int) -> None:
    pixels, prompts, images, texts = embedded
    chosen = order[:kept] + [order[kept - 1]] * (16 - kept)  # a last batch, padded as the engine does
    assert torch.equal(encoder.embed_images(pixels[chosen])[:kept], images[chosen[:kept]])
    assert torch.equal(encoder.embed_texts([prompts[at] for at in chosen])[:kept], texts[chosen[:kept]])


def test_embeddings_are_float32_of_unit_norm(embedded) -> None:
    for embeds in embedded[2:]:
        assert (embeds.shape, embeds.dtype) == ((16, 768), torch.float32)
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(16), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_company_moves_no_score_anywhere_by_more_than_it_is_held_to(file, embedded, dtype: str) -> None:
    """On whatever device there is: CLIPScore by 1e-3, a rating by 1e-4, and in float32 on a CPU by nothing."""
    device = pick_device("auto")
    encoder = load_openai_clip(read_tensors(file), Place(device, dtype=dtype), file, SMALL_L14)
    pixels, prompts, *_ = embedded

    rating = random_head("aesthetic-v1", 0)["weight"][0]

    def scores(order: list[int]) -> torch.Tensor:
        images = encoder.embed_images(pixels[order]).cpu()
        texts = encoder.embed_texts([prompts[at] for at in order]).cpu()
        return torch.stack([100 * (images * texts).sum(dim=1) / 1e-3, images @ rating / 1e-4])

    together = scores(list(range(16)))
    bound = 0.0 if (device, dtype) == ("cpu", "float32") else 1.0
    for at in (0, 7, 15):
        assert float((scores([at] * 16) - together[:, at : at + 1]).abs().max()) <= bound
    assert float((scores(list(range(16))[::-1]).flip(1) - together).abs().max()) <= bound


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.02), ("float16", 0.003)])
def test_half_precision_stays_near_and_is_normalised_in_float32(file, embedded, dtype: str, bound: float) -> None:
    half = load_openai_clip(read_tensors(file), Place(dtype=dtype), file, SMALL_L14)
    pixels, prompts, images, texts = embedded
    for found, expected in ((half.embed_images(pixels), images), (half.embed_texts(prompts), texts)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(16), atol=1e-6, rtol=0)
        error = 1 - (found * expected).sum(dim=1)
        assert 0 < float(error.abs().max()) < bound
    assert half.logit_scale == pytest.approx(100.0, rel=1e-6)


def counting(encoder, seen: list[int]):
    """The encoder, and how many distinct pictures each forward was given."""

    class Counting:
        batch, logit_scale = encoder.batch, encoder.logit_scale
        preprocess, embed_texts, truncated = encoder.preprocess, encoder.embed_texts, encoder.truncated

        def embed_images(self, pixels):
            seen.append(len(pixels.flatten(1).unique(dim=0)))
            return encoder.embed_images(pixels)

    return Counting()


@pytest.mark.parametrize(("size", "distinct"), [((512, 512), 1), ((513, 385), 1), ((832, 1216), 2)])
def test_three_metrics_share_one_forward_where_their_crops_agree(
    tmp_path, monkeypatch, encoder, size, distinct
) -> None:
    seen: list[int] = []
    heads = {"aesthetic-v1": random_head("aesthetic-v1", 0), "aesthetic-v2": random_head("aesthetic-v2", 0)}
    files = {name: tmp_path / f"{name}.pth" for name in heads}
    for name, head in heads.items():
        torch.save(head, files[name])
    monkeypatch.setattr("bench.metrics.aesthetic.find_weights", lambda name, place: files[name])
    registry = registry_of(
        aesthetic_v1, aesthetic_v2, clip_score, Encoder("openai-vit-l14", lambda place: counting(encoder, seen))
    )
    names = ["aesthetic-v1", "aesthetic-v2", "clip-l14"]
    found = judged(tmp_path / "run", [(encoded(draw(*size)), "a disc")], names, registry)
    assert seen == [distinct]
    assert all(items[0].value is not None for items in found.values())


def test_the_prompts_that_do_not_fit_are_told(encoder) -> None:
    assert encoder.truncated(PROMPTS) == [count_tokens(prompt) > 77 for prompt in PROMPTS]
    assert encoder.truncated(["cat " * 5000, "cat"]) == [True, False]


@pytest.mark.parametrize("how", ["missing", "unknown"])
def test_a_file_of_another_model_is_refused_key_by_key(file, how: str) -> None:
    state = read_tensors(file)
    if how == "missing":
        del state["visual.proj"]
    else:
        state["visual.head.weight"] = torch.zeros(2)
    named = "visual.proj" if how == "missing" else "visual.head.weight"
    with pytest.raises(WeightsError, match=rf"not the weights of openai's CLIP ViT-L/14: .* 1 {how} \({named}\)"):
        load_openai_clip(state, Place(), file, SMALL_L14)


@pytest.mark.parametrize(("ours", "name"), [(VIT_L14, "ViT-L-14-quickgelu"), (VIT_H14, "ViT-H-14")])
def test_the_shapes_are_those_of_open_clips_configurations(ours: ClipShape, name: str) -> None:
    published = open_clip.get_model_config(name)
    vision, text = published["vision_cfg"], published["text_cfg"]
    assert ours == ClipShape(
        embed_dim=published["embed_dim"],
        vision_width=vision["width"],
        vision_layers=vision["layers"],
        head_width=vision.get("head_width", 64),
        text_width=text["width"],
        text_heads=text["heads"],
        text_layers=text["layers"],
        quick_gelu=published.get("quick_gelu", False),
        patch_px=vision["patch_size"],
        side_px=vision["image_size"],
    )


def test_the_default_shape_is_the_published_one(file) -> None:
    with pytest.raises(WeightsError, match=r"missing .*positional_embedding \(77, 64\), not \(77, 768\)"):
        load_openai_clip(read_tensors(file), Place(), file)
