"""The networks: an untrained step-aware encoder is the plain one, and each part against its formula."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from bench.mini import world
from bench.mini.networks import Block, Instrument, MiniClip, Shape, mini_clip_tokens, sinusoid, tokenizer

SMALL = Shape(stem=(8, 16, 16, 24), width=32, layers=2, heads=2, text_width=32, text_layers=1, embed=16)


@functools.cache
def networks() -> tuple[MiniClip, MiniClip]:
    """A plain MiniClip, and an untrained step-aware one that starts from it."""
    torch.manual_seed(0)
    words = tokenizer()
    plain, aware = MiniClip(words, shape=SMALL), MiniClip(words, timestep=True, shape=SMALL)
    missing, unexpected = aware.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".modulation." in name or ".time." in name or ".last." in name for name in missing)
    return plain.eval(), aware.eval()


def pictures(n: int, seed: int) -> Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


# --- the timestep --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=3), st.integers(0, 2**31))
def test_untrained_step_aware_encoder_is_the_plain_one_at_every_timestep(times: list[int], seed: int) -> None:
    plain, aware = networks()
    x = pictures(len(times), seed)
    with torch.no_grad():
        assert torch.equal(aware.embed_images(x, torch.tensor(times)), plain.embed_images(x))
        assert torch.equal(aware.embed_images(x), plain.embed_images(x))


def test_full_sized_untrained_step_aware_encoder_is_the_plain_one() -> None:
    torch.manual_seed(1)
    words = tokenizer()
    plain, aware = MiniClip(words).eval(), MiniClip(words, timestep=True).eval()
    aware.load_state_dict(plain.state_dict(), strict=False)
    x, t = pictures(2, 0), torch.tensor([1, 951])
    with torch.no_grad():
        assert torch.equal(aware.embed_images(x, t), plain.embed_images(x))


def test_step_aware_encoder_learns_of_the_timestep() -> None:
    torch.manual_seed(2)
    aware = MiniClip(tokenizer(), timestep=True, shape=SMALL)
    x, t = pictures(2, 0), torch.tensor([10, 900])
    optimizer = torch.optim.SGD(aware.parameters(), lr=1.0)
    aware.embed_images(x, t)[:, 0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        early, late = (aware.embed_images(x[:1], torch.tensor([when])) for when in (10, 900))
    assert not torch.equal(early, late)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999))
def test_sinusoid_is_128_cosines_and_128_sines_of_periods_up_to_ten_thousand(t: int) -> None:
    frequencies = 10_000.0 ** -(np.arange(128) / 128)
    expected = np.concatenate([np.cos(t * frequencies), np.sin(t * frequencies)])
    found = sinusoid(torch.tensor([t]))
    assert (found.shape, found.dtype) == ((1, 256), torch.float32)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-3)  # float32 angles of up to 999 radians


# --- the block -----------------------------------------------------------------------------


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return scaled * layer.weight + layer.bias


def attention(block: Block, x: Tensor) -> Tensor:
    """Softmax attention head by head, without torch's kernel."""
    width = x.shape[-1] // block.heads
    q, k, v = functional.linear(x, block.qkv.weight, block.qkv.bias).chunk(3, -1)
    heads = []
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        weights = torch.softmax(q[..., part] @ k[..., part].mT / math.sqrt(width), -1)
        heads.append(weights @ v[..., part])
    return functional.linear(torch.cat(heads, -1), block.out.weight, block.out.bias)


def mlp(block: Block, x: Tensor) -> Tensor:
    inner = functional.linear(x, block.fc1.weight, block.fc1.bias)
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return functional.linear(gelu, block.fc2.weight, block.fc2.bias)


@torch.no_grad()
def test_plain_block_is_a_pre_norm_transformer_block() -> None:
    torch.manual_seed(3)
    block, x = Block(SMALL, timestep=False), torch.randn(2, 5, 32)
    y = x + attention(block, norm(x, block.norm1))
    y = y + mlp(block, norm(y, block.norm2))
    torch.testing.assert_close(block(x, None), y, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_modulated_block_is_adaptive_layer_norm() -> None:
    """DiT, arXiv 2212.09748, section 3.2: shift, scale and gate for attention, then for the MLP."""
    torch.manual_seed(4)
    block, x, t = Block(SMALL, timestep=True), torch.randn(2, 5, 32), torch.randn(2, 32)
    assert block.modulation is not None
    block.modulation.weight.normal_(std=0.2)
    block.modulation.bias.normal_()
    signal = t / (1 + torch.exp(-t))
    parts = (signal @ block.modulation.weight.T + block.modulation.bias).view(2, 6, 1, 32).unbind(1)
    shift1, scale1, gate1, shift2, scale2, gate2 = parts
    y = x + gate1 * attention(block, norm(x, block.norm1) * (1 + scale1) + shift1)
    y = y + gate2 * mlp(block, norm(y, block.norm2) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, t), y, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("half", ["attention", "mlp", "both"])
def test_gate_at_zero_shuts_its_half_of_the_block(half: str) -> None:
    torch.manual_seed(5)
    block, x, t = Block(SMALL, timestep=True), torch.randn(1, 5, 32), torch.randn(1, 32)
    assert block.modulation is not None
    gates = {"attention": [slice(64, 96)], "mlp": [slice(160, 192)], "both": [slice(64, 96), slice(160, 192)]}
    for gate in gates[half]:
        assert bool((block.modulation.bias[gate] == 1).all())
        block.modulation.bias[gate] = 0
    if half == "both":
        expected = x
    elif half == "mlp":
        expected = x + attention(block, norm(x, block.norm1))
    else:
        expected = x + mlp(block, norm(x, block.norm2))
    torch.testing.assert_close(block(x, t), expected, rtol=1e-5, atol=1e-5)


# --- the clip -----------------------------------------------------------------------------


@torch.no_grad()
def test_embeddings_are_unit_vectors_and_the_score_is_their_scaled_cosine() -> None:
    clip, _ = networks()
    captions = ["a red tent", "close portrait, short brown hair", ""]
    x = pictures(3, 1)
    images, texts = clip.embed_images(x), clip.embed_tokens(mini_clip_tokens(tokenizer(), captions))
    for embeds in (images, texts):
        assert (embeds.shape, embeds.dtype) == ((3, 16), torch.float32)
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    cosine = functional.cosine_similarity(
        clip.vision(x), clip.text(mini_clip_tokens(tokenizer(), captions)).text_embeds
    )
    torch.testing.assert_close(clip.score(x, texts), cosine / 0.07, rtol=1e-5, atol=1e-5)


def test_long_captions_are_cut_with_the_end_token_kept() -> None:
    words = tokenizer()
    ids = mini_clip_tokens(words, ["a red tent", "tent " * 100, ""])
    assert (ids.shape, ids.dtype) == ((3, 32), torch.int64)
    assert ids[:, 0].tolist() == [words.bos_token_id] * 3
    assert ids[:, -1].tolist() == [words.eos_token_id] * 3
    tent = words("tent").input_ids[1]
    assert ids[1, 1:-1].tolist() == [tent] * 30
    assert ids[2].tolist() == [words.bos_token_id] + [words.eos_token_id] * 31


@torch.no_grad()
def test_instrument_reads_the_qualities_the_kind_and_every_attribute() -> None:
    torch.manual_seed(6)
    craft, kind, attributes = Instrument(widths=(4, 4, 4, 4)).eval()(pictures(2, 2))
    assert craft.shape == (2, 6)
    assert kind.shape == (2, 2)
    expected = {
        f"{name}_{attribute}": (2, len(values))
        for name, table in world.KINDS.items()
        for attribute, values in table.items()
    }
    assert {name: tuple(logits.shape) for name, logits in attributes.items()} == expected
