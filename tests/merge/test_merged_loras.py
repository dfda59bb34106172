"""The file that ``merge`` writes with a LoRA of each kind in it, against formulas written here in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import tiny_state, write_recipe, write_tiny

from bench.merge.write import merge

Arrays = dict[str, np.ndarray]
Change = Callable[[np.ndarray, Arrays], np.ndarray]
WEIGHT, RANK, ALPHA = 0.7, 4, 2.0
UNET = "model.diffusion_model."
LAYER_G = "conditioner.embedders.1.model.transformer.resblocks.0."
TO_Q = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
MIDDLE = f"{UNET}middle_block.1.transformer_blocks.0."


def matrices(out: int, into: int, *kernel: int) -> dict[str, tuple[int, ...]]:
    ones = tuple(1 for _ in kernel)
    return {"lora_up.weight": (out, RANK, *ones), "lora_down.weight": (RANK, into, *kernel), "alpha": ()}


def product(parts: Arrays) -> np.ndarray:
    up, down = parts["lora_up.weight"], parts["lora_down.weight"]
    return (ALPHA / RANK) * np.tensordot(up.reshape(len(up), RANK), down, 1)


def added(delta: Callable[[Arrays], np.ndarray]) -> Change:
    return lambda weight, parts: weight + WEIGHT * delta(parts)


def dora(weight: np.ndarray, parts: Arrays) -> np.ndarray:
    """The direction of the changed weight at lengths of its own, an input at a time, as lycoris writes them."""
    turned = weight + product(parts)
    lengths = np.linalg.norm(turned, axis=0, keepdims=True)
    return weight + WEIGHT * (turned / lengths * parts["dora_scale"] - weight)


def tucker(parts: Arrays) -> np.ndarray:
    up, down, mid = (parts[f"lora_{name}.weight"] for name in ("up", "down", "mid"))
    return (ALPHA / RANK) * np.einsum("pqhw,op,qi->oihw", mid, up[:, :, 0, 0], down[:, :, 0, 0])


def loha(parts: Arrays) -> np.ndarray:
    return (ALPHA / RANK) * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])


def lokr(parts: Arrays) -> np.ndarray:
    return (ALPHA / RANK) * np.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"])


def into_rows(number: int) -> Change:
    """A third of what open_clip packs into one matrix: queries, keys, values."""

    def change(weight: np.ndarray, parts: Arrays) -> np.ndarray:
        height = len(weight) // 3
        whole = weight.copy()
        whole[number * height : (number + 1) * height] += WEIGHT * product(parts)
        return whole

    return change


KINDS: dict[str, tuple[str, dict[str, tuple[int, ...]], str, Change]] = {
    "LoRA": (f"lora_unet_{TO_Q}", matrices(64, 64), f"{MIDDLE}attn1.to_q.weight", added(product)),
    "LoRA in the other naming": (
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
        matrices(64, 64),
        f"{MIDDLE}attn1.to_q.weight",
        added(product),
    ),
    "DoRA": (
        f"lora_unet_{TO_Q}",
        {**matrices(64, 64), "dora_scale": (1, 64)},
        f"{MIDDLE}attn1.to_q.weight",
        dora,
    ),
    "LoCon": (
        "lora_unet_mid_block_resnets_0_conv1",
        matrices(64, 64, 3, 3),
        f"{UNET}middle_block.0.in_layers.2.weight",
        added(product),
    ),
    "Tucker": (
        "lora_unet_mid_block_resnets_0_conv1",
        {**matrices(64, 64, 1, 1), "lora_mid.weight": (RANK, RANK, 3, 3)},
        f"{UNET}middle_block.0.in_layers.2.weight",
        added(tucker),
    ),
    "LoHa": (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
        {
            **{"hada_w1_a": (64, RANK), "hada_w1_b": (RANK, 96)},
            **{"hada_w2_a": (64, RANK), "hada_w2_b": (RANK, 96), "alpha": ()},
        },
        f"{MIDDLE}attn2.to_k.weight",
        added(loha),
    ),
    "LoKr": (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
        {"lokr_w1": (8, 6), "lokr_w2_a": (8, RANK), "lokr_w2_b": (RANK, 16), "alpha": ()},
        f"{MIDDLE}attn2.to_k.weight",
        added(lokr),
    ),
    "full difference": (
        f"lora_unet_{TO_Q}",
        {"diff": (64, 64)},
        f"{MIDDLE}attn1.to_q.weight",
        added(lambda parts: parts["diff"]),
    ),
    "difference of a bias": (
        "lora_unet_mid_block_resnets_0_conv1",
        {"diff_b": (64,)},
        f"{UNET}middle_block.0.in_layers.2.bias",
        added(lambda parts: parts["diff_b"]),
    ),
    "difference of a norm": (
        "lora_unet_mid_block_resnets_0_norm1",
        {"w_norm": (64,)},
        f"{UNET}middle_block.0.in_layers.0.weight",
        added(lambda parts: parts["w_norm"]),
    ),
    "te1": (
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        matrices(128, 32),
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        added(product),
    ),
    "te2, the second of three packed matrices": (
        "lora_te2_text_model_encoder_layers_0_self_attn_k_proj",
        matrices(64, 64),
        f"{LAYER_G}attn.in_proj_weight",
        into_rows(1),
    ),
    "te2, stored transposed": (
        "lora_te2_text_projection",
        matrices(64, 64),
        "conditioner.embedders.1.model.text_projection",
        added(lambda parts: product(parts).T),
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoint") / "a.safetensors", 1)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(3)
    parts = {role: torch.randn(shape, generator=dice) * 0.2 for role, shape in shapes.items()}
    if "dora_scale" in parts:
        parts["dora_scale"] = parts["dora_scale"].abs() + 0.3
    if "alpha" in parts:
        parts["alpha"] = torch.tensor(ALPHA)
    return parts


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_change_and_nothing_else(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    module, shapes, key, change = KINDS[kind]
    parts = drawn(shapes)
    save_file({f"{module}.{role}": part for role, part in parts.items()}, tmp_path / "lora.safetensors")
    recipe = write_recipe(
        tmp_path / "r.toml",
        f'method = "copy"\nmodels = ["{checkpoint}"]\ndtype = "float32"\n'
        f'loras = [{{ path = "lora.safetensors", weight = {WEIGHT} }}]\n',
    )
    merge(recipe, tmp_path / "out.safetensors", weights_dir=None, progress=lambda *_: None)
    found, before = load_file(tmp_path / "out.safetensors"), tiny_state(1)
    expected = change(before[key].double().numpy(), {role: part.double().numpy() for role, part in parts.items()})
    np.testing.assert_allclose(found[key].double().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert float(np.abs(expected - before[key].double().numpy()).max()) > 1e-3
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], before[name].to(found[name].dtype)) for name in before if name != key)
