"""Endings of keys, as they are met in files."""

from __future__ import annotations

import pytest

from bench.lora.parse import parse_key

UNET = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("key", "module", "role"),
    [
        ("lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in", "down"),
        ("lora_unet_conv_in.lora_mid.weight", "lora_unet_conv_in", "mid"),
        ("lora_unet_conv_in.alpha", "lora_unet_conv_in", "alpha"),
        ("lora_unet_conv_in.dora_scale", "lora_unet_conv_in", "dora_scale"),
        ("lora_unet_conv_in.diff_b", "lora_unet_conv_in", "diff_b"),
        ("lora_unet_conv_in.diff", "lora_unet_conv_in", "diff"),
        ("lycoris_conv_norm_out.w_norm", "lycoris_conv_norm_out", "w_norm"),
        ("lora_te_x.hada_w1_a", "lora_te_x", "hada_w1_a"),
        ("lora_te_x.hada_t2", "lora_te_x", "hada_t2"),
        ("base_model.model.x.lokr_w2_b.default", "base_model.model.x", "lokr_w2_b"),
        ("lora_te_x.lokr_w1", "lora_te_x", "lokr_w1"),
        (f"{UNET}.to_q.lora_A.weight", f"{UNET}.to_q", "down"),
        (f"{UNET}.to_q.lora_B.default.weight", f"{UNET}.to_q", "up"),
        (f"{UNET}.to_q.lora.up.weight", f"{UNET}.to_q", "up"),
        (f"{UNET}.processor.to_out_lora.down.weight", f"{UNET}.processor.to_out", "down"),
        ("text_encoder.x.q_proj.lora_linear_layer.up.weight", "text_encoder.x.q_proj", "up"),
        (f"{UNET}.to_q.lora_magnitude_vector", f"{UNET}.to_q", "magnitude"),
        (f"{UNET}.to_q.lora_magnitude_vector.weight", f"{UNET}.to_q", "magnitude"),
        (f"{UNET}.to_q.lora_magnitude_vector.default.weight", f"{UNET}.to_q", "magnitude"),
    ],
)
def test_a_key_is_a_module_and_a_part(key: str, module: str, role: str) -> None:
    part = parse_key(key)
    assert part is not None
    assert part[:2] == (module, role)


@pytest.mark.parametrize(
    "key",
    [
        "unet.conv_in.weight",
        "lora_unet_x.oft_blocks",
        "lora_unet_x.a1.weight",
        "unet.x.lora_B.bias",
        "lora_unet_x.lora_up",
        "lora_unet_x.hada_w3_a",
        "lora_unet_x.lokr_t1",
        ".alpha",
        "emb_params",
    ],
)
def test_other_keys_are_none(key: str) -> None:
    assert parse_key(key) is None
