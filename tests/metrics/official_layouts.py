"""The metrics' published files with seeded random weights, of any size: names and shapes written out by hand.

One CLIP can be written in open_clip's layout and in transformers', so that each library is the oracle for an
adapter built on the other. Head files hold what the published ones hold.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.metrics.encoders import ClipShape

VOCABULARY, CONTEXT = 49408, 77
OPENAI_FILE = "timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors"
PICKSCORE_FOLDER = "yuvalkirstain/PickScore_v1"
HPS_FILES = {"hpsv2": "xswu/HPSv2/HPS_v2_compressed.pt", "hpsv2.1": "xswu/HPSv2/HPS_v2.1_compressed.pt"}
AESTHETIC_FILES = {
    "aesthetic-v1": "LAION-AI/aesthetic-predictor/sa_0_4_vit_l_14_linear.pth",
    "aesthetic-v2": "christophschuhmann/improved-aesthetic-predictor/sac+logos+ava1-l14-linearMSE.pth",
}
AESTHETIC_LAYERS = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}

SMALL_L14 = ClipShape(768, 64, 2, 16, 64, 4, 2, quick_gelu=True, patch_px=28)
SMALL_H14 = ClipShape(48, 64, 2, 16, 64, 4, 2, quick_gelu=False, patch_px=28)
"""The published preprocessing of 224 pixels and the published width of what heads read, and little between them."""


def open_clip_shapes(shape: ClipShape) -> dict[str, tuple[int, ...]]:
    """Every key of a CLIP in open_clip's layout."""
    patches = (shape.side_px // shape.patch_px) ** 2
    width, text = shape.vision_width, shape.text_width
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (CONTEXT, text),
        "text_projection": (text, shape.embed_dim),
        "token_embedding.weight": (VOCABULARY, text),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (patches + 1, width),
        "visual.proj": (width, shape.embed_dim),
        "visual.conv1.weight": (width, 3, shape.patch_px, shape.patch_px),
    }
    for name, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for stem, size, layers in (("visual.", width, shape.vision_layers), ("", text, shape.text_layers)):
        for layer in range(layers):
            shapes |= _block_shapes(f"{stem}transformer.resblocks.{layer}.", size)
    return shapes


def _block_shapes(at: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{at}ln_1.weight": (width,),
        f"{at}ln_1.bias": (width,),
        f"{at}attn.in_proj_weight": (3 * width, width),
        f"{at}attn.in_proj_bias": (3 * width,),
        f"{at}attn.out_proj.weight": (width, width),
        f"{at}attn.out_proj.bias": (width,),
        f"{at}ln_2.weight": (width,),
        f"{at}ln_2.bias": (width,),
        f"{at}mlp.c_fc.weight": (4 * width, width),
        f"{at}mlp.c_fc.bias": (4 * width,),
        f"{at}mlp.c_proj.weight": (width, 4 * width),
        f"{at}mlp.c_proj.bias": (width,),
    }


def random_clip(shape: ClipShape, seed: int) -> dict[str, Tensor]:
    """Weights of such a size that every part of the model shows in what comes out, the logit scale being 100."""
    draw = torch.Generator().manual_seed(seed)
    state = {key: _random(key, size, draw) for key, size in open_clip_shapes(shape).items()}
    state["logit_scale"] = torch.tensor(math.log(100.0))
    return state


def _random(key: str, size: tuple[int, ...], draw: torch.Generator) -> Tensor:
    noise = torch.randn(size, generator=draw)
    if ".ln_" in f".{key}" and key.endswith("weight"):
        return 1.0 + 0.2 * noise
    if key in ("text_projection", "visual.proj"):
        return noise / math.sqrt(size[0])
    if len(size) < 2 or "embedding" in key:
        return 0.3 * noise
    return 1.5 * noise / math.sqrt(math.prod(size[1:]))


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same CLIP by transformers' names."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        stem = "vision_model" if key.startswith("visual.") else "text_model"
        rest = key.removeprefix("visual.")
        if key in ("visual.proj", "text_projection"):
            name = "visual_projection" if key == "visual.proj" else key
            renamed[f"{name}.weight"] = value.T.contiguous()
        elif key == "logit_scale":
            renamed[key] = value
        elif rest.startswith("transformer.resblocks."):
            layer, part = rest.removeprefix("transformer.resblocks.").split(".", 1)
            renamed |= _layer_to_transformers(f"{stem}.encoder.layers.{layer}.", part, value)
        else:
            renamed[f"{stem}.{OUTER_NAMES[rest]}"] = value
    return renamed


OUTER_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # misspelt in transformers
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def _layer_to_transformers(at: str, part: str, value: Tensor) -> dict[str, Tensor]:
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        thirds = value.chunk(3)
        return {f"{at}self_attn.{n}_proj.{kind}": v.clone() for n, v in zip("qkv", thirds, strict=True)}
    names = {"attn.": "self_attn.", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "c_fc": "fc1", "c_proj": "fc2"}
    for old, new in names.items():
        part = part.replace(old, new)
    return {at + part: value}


def transformers_config(shape: ClipShape) -> dict[str, Any]:
    """``config.json`` as old files have it: with the end token that later releases found to be wrong."""
    act = "quick_gelu" if shape.quick_gelu else "gelu"
    vision = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_width // shape.head_width,
        "image_size": shape.side_px,
        "patch_size": shape.patch_px,
    }
    text = {
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.text_heads,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    shared = {"projection_dim": shape.embed_dim, "hidden_act": act}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": shape.embed_dim,
        "text_config": {**text, **shared, "model_type": "clip_text_model"},
        "vision_config": {**vision, **shared, "model_type": "clip_vision_model"},
    }


def write_openai(place: Path, state: dict[str, Tensor]) -> Path:
    """openai's ViT-L/14 as open_clip takes it."""
    return _saved(place / OPENAI_FILE, state)


def write_hps(place: Path, state: dict[str, Tensor], name: str) -> Path:
    """A checkpoint of HPSv2: half precision under ``state_dict``."""
    return _saved(place / HPS_FILES[name], {"state_dict": {key: value.half() for key, value in state.items()}})


def write_pickscore(place: Path, state: dict[str, Tensor], shape: ClipShape, *, pickled: bool = False) -> Path:
    """PickScore's folder; pickled, also with the position ids that old files hold."""
    folder = place / PICKSCORE_FOLDER
    weights = to_transformers(state)
    if pickled:
        patches = (shape.side_px // shape.patch_px) ** 2
        weights["text_model.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
        weights["vision_model.embeddings.position_ids"] = torch.arange(patches + 1)[None]
    _saved(folder / ("pytorch_model.bin" if pickled else "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(transformers_config(shape)), encoding="utf-8")
    return folder


def random_head(name: str, seed: int) -> dict[str, Tensor]:
    """A head whose ratings lie about 5, spread as the published ones' do."""
    draw = torch.Generator().manual_seed(seed)
    if name == "aesthetic-v1":
        return {"weight": torch.randn(1, 768, generator=draw), "bias": torch.tensor([3.5])}
    head: dict[str, Tensor] = {}
    for number, size in AESTHETIC_LAYERS.items():
        head[f"layers.{number}.weight"] = torch.randn(size, generator=draw) * 1.6 / math.sqrt(size[1])
        head[f"layers.{number}.bias"] = torch.randn(size[:1], generator=draw)
    return head


def write_head(place: Path, name: str, head: dict[str, Tensor]) -> Path:
    """The file of an aesthetic predictor."""
    return _saved(place / AESTHETIC_FILES[name], head)


def _saved(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)
    return file
