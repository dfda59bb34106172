"""SPO's step-aware preference model and LPO's latent reward models, seeded and tiny, in their published layouts.

The numbers are the same bits everywhere: sha256("seed|name") -> Philox4x64-10 -> the top 24 bits -> one float32
product. So the scores of the official code on these files hold as golden values (``golden_scores.json``).
Official code: RockeyCoss/SPO 27a86428, Kwai-Kolors/LPO 9c2e8b81.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

WIDTH, LAYERS, TEXT_WIDTH, TEXT_LAYERS, EMBED = 64, 3, 48, 2, 32
VOCABULARY, SIDE_PX, PATCH_PX = 49408, 224, 32
SPM_FILE = "sdxl_step-aware_preference_model.bin"
Arrays = dict[str, np.ndarray]


def uniform(seed: int, name: str, shape: tuple[int, ...], std: float = 1.0, mean: float = 0.0) -> np.ndarray:
    count = int(np.prod(shape)) if shape else 1
    key = int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw((count + 1) // 2)
    x = (raw.astype("<u8", copy=False).view("<u4")[:count] >> np.uint32(8)).astype(np.float32)
    x *= np.float32(2.0**-24)
    x -= np.float32(0.5)
    x *= np.float32(std * math.sqrt(12.0))
    x += np.float32(mean)
    return x.reshape(shape)


def bell(seed: int, name: str, shape: tuple[int, ...], std: float = 1.0) -> np.ndarray:
    """The sum of four uniforms: close to a normal, exact on every machine."""
    x = uniform(seed, f"{name}|0", shape, std / 2)
    for number in (1, 2, 3):
        x += uniform(seed, f"{name}|{number}", shape, std / 2)
    return x


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.ascontiguousarray(one)).reshape(one.shape) for key, one in arrays.items()}


# What CLIPs are made of.


def norm(found: Arrays, seed: int, name: str, width: int) -> None:
    found[f"{name}.weight"] = uniform(seed, f"{name}.weight", (width,), 0.1, 1.0)
    found[f"{name}.bias"] = uniform(seed, f"{name}.bias", (width,), 0.05)


def linear(found: Arrays, seed: int, name: str, out: int, into: int, gain: float, bias: float = 0.05) -> None:
    found[f"{name}.weight"] = uniform(seed, f"{name}.weight", (out, into), gain * into**-0.5)
    found[f"{name}.bias"] = uniform(seed, f"{name}.bias", (out,), bias)


def layers(found: Arrays, seed: int, prefix: str, count: int, width: int) -> None:
    for number in range(count):
        layer = f"{prefix}.encoder.layers.{number}"
        norm(found, seed, f"{layer}.layer_norm1", width)
        norm(found, seed, f"{layer}.layer_norm2", width)
        for part, gain in (("q", 1.5), ("k", 1.5), ("v", 1.0)):
            linear(found, seed, f"{layer}.self_attn.{part}_proj", width, width, gain)
        linear(found, seed, f"{layer}.self_attn.out_proj", width, width, 0.8)
        linear(found, seed, f"{layer}.mlp.fc1", 4 * width, width, 1.2, 0.3)
        linear(found, seed, f"{layer}.mlp.fc2", width, 4 * width, 0.8)


def text_model(found: Arrays, seed: int, width: int, count: int) -> None:
    places = {"token": VOCABULARY, "position": 77}
    for what, std in (("token", 1.0), ("position", 0.3)):
        name = f"text_model.embeddings.{what}_embedding.weight"
        found[name] = uniform(seed, f"text_model.{what}", (places[what], width), std)
    layers(found, seed, "text_model", count, width)
    norm(found, seed, "text_model.final_layer_norm", width)


# SPO's model.


def clip_state(seed: int = 2001) -> Arrays:
    found: Arrays = {}
    text_model(found, seed, TEXT_WIDTH, TEXT_LAYERS)
    eyes, patches = "vision_model", (SIDE_PX // PATCH_PX) ** 2
    found[f"{eyes}.embeddings.class_embedding"] = uniform(seed, "class_embedding", (WIDTH,))
    found[f"{eyes}.embeddings.patch_embedding.weight"] = uniform(
        seed, "patch_embedding", (WIDTH, 3, PATCH_PX, PATCH_PX), 3.0 * (3 * PATCH_PX * PATCH_PX) ** -0.5
    )
    position = uniform(seed, "vision.position", (patches + 1, WIDTH), 0.3)
    found[f"{eyes}.embeddings.position_embedding.weight"] = position
    norm(found, seed, f"{eyes}.pre_layrnorm", WIDTH)
    layers(found, seed, eyes, LAYERS, WIDTH)
    norm(found, seed, f"{eyes}.post_layernorm", WIDTH)
    found["visual_projection.weight"] = uniform(seed, "visual_projection", (EMBED, WIDTH), WIDTH**-0.5)
    found["text_projection.weight"] = uniform(seed, "text_projection", (EMBED, TEXT_WIDTH), TEXT_WIDTH**-0.5)
    found["logit_scale"] = np.array(np.float32(4.6051702))
    shared = uniform(seed, "shared direction", (EMBED,))  # cosines near 0.2, as a real CLIP's
    for half, last in (("text", "text_model.final_layer_norm"), ("visual", "vision_model.post_layernorm")):
        found[f"{half}_projection.weight"][:, 0] = shared
        found[f"{last}.weight"][0], found[f"{last}.bias"][0] = np.float32(0.15), np.float32(0.6)
    return found


def time_state(seed: int = 2002) -> Arrays:
    """What a trained step-aware model adds: gates near 1, shifts and scales near 0, all moving with the timestep."""
    found: Arrays = {}
    linear(found, seed, "t_embedder.mlp.0", WIDTH, 256, 1.5)
    linear(found, seed, "t_embedder.mlp.2", WIDTH, WIDTH, 1.5)
    for number in range(LAYERS):
        layer = f"vision_model.encoder.layers.{number}.adaLN_modulation.1"
        linear(found, seed, layer, 6 * WIDTH, WIDTH, 0.3, 0.15)
        found[f"{layer}.bias"][2 * WIDTH : 3 * WIDTH] += np.float32(1)
        found[f"{layer}.bias"][5 * WIDTH :] += np.float32(1)
    linear(found, seed, "vision_model.adaLN_modulation.1", 2 * WIDTH, WIDTH, 0.2, 0.1)
    return found


def clip_config() -> dict[str, Any]:
    text = {"hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH, "num_hidden_layers": TEXT_LAYERS}
    vision = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    shared = {"num_attention_heads": 4, "hidden_act": "gelu", "projection_dim": EMBED}
    return {
        "model_type": "clip",
        "projection_dim": EMBED,
        "text_config": {**text, **shared, "vocab_size": VOCABULARY, "eos_token_id": 2},
        "vision_config": {**vision, **shared, "image_size": SIDE_PX, "patch_size": PATCH_PX},
    }


def spm_state() -> Arrays:
    """The flat state dict of the published wrapper."""
    return {f"model.{key}": value for key, value in {**clip_state(), **time_state()}.items()}


def write_spm(folder: Path, state: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Path:
    """``config.json`` and the pickled state dict; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or clip_config()))
    torch.save(tensors(spm_state()) if state is None else state, folder / SPM_FILE)
    return folder / SPM_FILE


# LPO's models.

UNET = {
    "sample_size": 128,
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "_class_name": "UNet2DConditionModel",
}
UNETS: dict[str, dict[str, Any]] = {
    "sdxl": {
        **UNET,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [32, 64, 96],
        "attention_head_dim": [2, 4, 6],
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 80,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 48 + 6 * 16,
    },
    "sd15": {
        **UNET,
        "sample_size": 64,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [32, 64, 96, 96],
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    },
}
SEEDS = {"sdxl": 3001, "sd15": 3051}


def unet_state(config: dict[str, Any], seed: int) -> Arrays:
    with torch.device("meta"):
        shapes = {key: tuple(one.shape) for key, one in UNet2DConditionModel.from_config(config).state_dict().items()}
    return {key: unet_tensor(key, shape, seed) for key, shape in shapes.items()}


def unet_tensor(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if len(shape) == 1 and "norm" in key and key.endswith("weight"):
        return uniform(seed, key, shape, 0.1, 1.0)
    if key.endswith("bias"):
        return uniform(seed, key, shape, 0.3 if "time_emb_proj" in key or "norm" in key else 0.1)
    gains = (
        (1.5, (".to_q.", ".to_k.")),
        (1.6, ("attn2.to_out", "attn2.to_v")),
        (1.5, ("time_emb_proj", "time_embedding", "add_embedding")),
        (0.8, ("conv2", "proj_out")),
    )
    gain = next((gain for gain, parts in gains if any(part in key for part in parts)), 1.0)
    return uniform(seed, key, shape, gain * int(np.prod(shape[1:])) ** -0.5)


def text_config(width: int, act: str) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": act,
        "vocab_size": VOCABULARY,
        "projection_dim": width,
        "eos_token_id": 2,
    }


def write_part(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor], file: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / file)


def write_lrm(folder: Path, kind: str) -> Path:
    """``unet``, the text encoders and ``state_dict.pt``; the folder."""
    seed, config = SEEDS[kind], UNETS[kind]
    write_part(folder / "unet", config, tensors(unet_state(config, seed)), "diffusion_pytorch_model.safetensors")
    first: Arrays = {}
    text_model(first, seed + 1, 32, 3)
    write_part(folder / "text_encoder", text_config(32, "quick_gelu"), tensors(first), "model.safetensors")
    width, embed = sum(config["block_out_channels"]) + config["block_out_channels"][-1], 48 if kind == "sdxl" else 32
    if kind == "sdxl":
        second: Arrays = {}
        text_model(second, seed + 2, 48, 3)
        second["text_projection.weight"] = uniform(seed + 2, "text_projection", (48, 48), 48**-0.5)
        write_part(folder / "text_encoder_2", text_config(48, "gelu"), tensors(second), "model.safetensors")
    heads = {"visual_projection": {"weight": uniform(seed, "visual_projection", (embed, width), width**-0.5)}}
    if kind == "sd15":
        heads["text_projection"] = {"weight": uniform(seed, "text_projection", (embed, 32), 32**-0.5)}
    state: dict[str, Any] = {name: tensors(head) for name, head in heads.items()}
    torch.save({**state, "logit_scale": torch.tensor(4.25)}, folder / "state_dict.pt")
    return folder


# Pictures as a VAE decodes them, and noisy latents.


def tile(seed: int, name: str, channels: int, height: int, width: int, cell: int) -> np.ndarray:
    cells = uniform(seed, name, (channels, -(-height // cell), -(-width // cell)))
    return np.repeat(np.repeat(cells, cell, 1), cell, 2)[:, :height, :width].astype(np.float32)


def ramp(count: int) -> np.ndarray:
    return (np.arange(count, dtype=np.float32) * np.float32(2.0) / np.float32(count - 1) - np.float32(1)).astype(
        np.float32
    )


def picture(name: str) -> np.ndarray:
    """float32 (3, height, width), about [-1, 1]."""
    if name == "noise_320x320":
        return np.clip(bell(71, "noise", (3, 320, 320), 0.5), -1, 1).astype(np.float32)
    if name == "gradient_512x512":
        x, y = ramp(512)[None, None, :], ramp(512)[None, :, None]
        zero = np.zeros((1, 512, 512), np.float32)
        return np.concatenate([zero + x, zero + y, zero + np.float32(-0.5) * (x + y)], 0).astype(np.float32)
    assert name == "landscape_300x465"
    x = np.float32(0.45) * tile(73, "land.cells", 3, 300, 465, 30) + np.float32(0.35) * bell(
        73, "land.fine", (3, 300, 465)
    )
    x[:, :, :60] += np.float32(0.5)  # the sides differ, so that a crop at another place is seen
    x[:, :, -60:] -= np.float32(0.5)
    return np.clip(x, -1, 1).astype(np.float32)


def latent() -> np.ndarray:
    """float32 (4, 16, 16)."""
    return bell(81, "gauss", (4, 16, 16))
