"""ImageReward's published files with seeded random weights, and its score written out from the papers.

The names and shapes are those of the published ``ImageReward.pt``, written by hand; so is the arithmetic, in float64,
with no layer, mask or attention of torch, timm or transformers in it. Sources: A. Dosovitskiy et al., arXiv
2010.11929 (pre-norm ViT); J. Devlin et al., arXiv 1810.04805 (post-norm BERT); J. Li et al., arXiv 2201.12086
(cross-attention after self-attention); J. Xu et al., arXiv 2304.05977 (the first token, five linear layers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

WORDS = [
    "a",
    "the",
    "of",
    "with",
    "cat",
    "dog",
    "day",
    "night",
    "ocean",
    "clouds",
    "birds",
    "painting",
    "low",
    "depth",
    "field",
    "effect",
    "un",
    "##believ",
    "##able",
    "##s",
    "##ing",
]
LETTERS = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()] + list("ßœαβγδεοσς世界猫שלוםжя…–")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY += list(dict.fromkeys(LETTERS + WORDS[1:] + [f"##{letter}" for letter in LETTERS]))
ADDED = 2


@dataclass(frozen=True)
class Layout:
    """Sizes of a network in the published layout; the MLP has the same hidden sizes whatever these are."""

    image_px: int = 32
    patch_px: int = 16
    vision_width: int = 32
    vision_depth: int = 2
    vision_heads: int = 4
    width: int = 24
    feed: int = 40
    depth: int = 2
    heads: int = 3
    positions: int = 48
    tokens: int = len(VOCABULARY) + ADDED

    def vision(self) -> dict[str, int]:
        """Those of the vision transformer, by timm's names."""
        sizes = {"img_size": self.image_px, "patch_size": self.patch_px, "embed_dim": self.vision_width}
        return sizes | {"depth": self.vision_depth, "num_heads": self.vision_heads}


PUBLISHED = Layout(224, 16, 1024, 24, 16, 768, 3072, 12, 12, 512, 30524)
MLP = {0: (1024, 0), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
"""Place among ``mlp.layers``: outputs and inputs, 0 for the text's width. The dropouts stand at 1, 3 and 5."""


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision_shapes(at: Layout) -> dict[str, tuple[int, ...]]:
    width, patches = at.vision_width, (at.image_px // at.patch_px) ** 2
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "pos_embed": (1, patches + 1, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, at.patch_px, at.patch_px), "patch_embed.proj.bias": (width,)}
    for number in range(at.vision_depth):
        block = f"blocks.{number}"
        shapes |= _norm(f"{block}.norm1", width) | _linear(f"{block}.attn.qkv", 3 * width, width)
        shapes |= _linear(f"{block}.attn.proj", width, width) | _norm(f"{block}.norm2", width)
        shapes |= _linear(f"{block}.mlp.fc1", 4 * width, width) | _linear(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | _norm("norm", width)


def text_shapes(at: Layout) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (at.tokens, at.width)}
    shapes |= {"embeddings.position_embeddings.weight": (at.positions, at.width)}
    shapes |= _norm("embeddings.LayerNorm", at.width)
    for number in range(at.depth):
        layer = f"encoder.layer.{number}"
        for attention, source in (("attention", at.width), ("crossattention", at.vision_width)):
            shapes |= _linear(f"{layer}.{attention}.self.query", at.width, at.width)
            shapes |= _linear(f"{layer}.{attention}.self.key", at.width, source)
            shapes |= _linear(f"{layer}.{attention}.self.value", at.width, source)
            shapes |= _linear(f"{layer}.{attention}.output.dense", at.width, at.width)
            shapes |= _norm(f"{layer}.{attention}.output.LayerNorm", at.width)
        shapes |= _linear(f"{layer}.intermediate.dense", at.feed, at.width)
        shapes |= _linear(f"{layer}.output.dense", at.width, at.feed) | _norm(f"{layer}.output.LayerNorm", at.width)
    return shapes


def published_shapes(at: Layout) -> dict[str, tuple[int, ...]]:
    """Every key of the published file but ``position_ids``, which is no float."""
    shapes = {f"blip.visual_encoder.{key}": shape for key, shape in vision_shapes(at).items()}
    shapes |= {f"blip.text_encoder.{key}": shape for key, shape in text_shapes(at).items()}
    shapes |= _linear("blip.vision_proj", 256, at.vision_width) | _linear("blip.text_proj", 256, at.width)
    for number, (outputs, inputs) in MLP.items():
        shapes |= _linear(f"mlp.layers.{number}", outputs, inputs or at.width)
    return shapes


def draw_weights(at: Layout, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the signal's size from layer to layer, so that every part of the network is heard.

    Embeddings are as small as trained ones, so that a wrong epsilon of the first norms shows.
    """
    source = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for key, shape in published_shapes(at).items():
        drawn = torch.randn(shape, generator=source)
        is_embedding, is_matrix = "embed" in key or "token" in key, len(shape) > 1
        scale = 0.02 if is_embedding else 1 / math.sqrt(math.prod(shape[1:])) if is_matrix else 0.2
        gain = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
        weights[key] = drawn.mul_(scale).add_(gain)
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(at.positions).unsqueeze(0)
    return weights


def med_config(at: Layout) -> dict[str, object]:
    """As published; its ``encoder_width`` is the small BLIP's, and is not the vision transformer's."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": at.width,
        "initializer_range": 0.02,
        "intermediate_size": at.feed,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": at.positions,
        "model_type": "bert",
        "num_attention_heads": at.heads,
        "num_hidden_layers": at.depth,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": at.tokens,
        "encoder_width": 768,
        "add_cross_attention": True,
    }


def write_published(folder: Path, at: Layout, weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(med_config(at)), encoding="utf-8")


def write_vocabulary(folder: Path, tokens: Sequence[str] = VOCABULARY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


# --- the score, written out ----------------------------------------------------------------


class Reader:
    """The weights by name, in float64, and the three operations that everything below is made of."""

    def __init__(self, weights: dict[str, Tensor], prefix: str) -> None:
        self.weights, self.prefix = weights, prefix

    def get(self, name: str) -> Tensor:
        return self.weights[f"{self.prefix}{name}"].double()

    def linear(self, x: Tensor, name: str) -> Tensor:
        return torch.einsum("...i,oi->...o", x, self.get(f"{name}.weight")) + self.get(f"{name}.bias")

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.get(f"{name}.weight") + self.get(f"{name}.bias")


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(queries, width) over (keys, width): softmax(q k / sqrt(d)) v, head by head."""
    mixed = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        scores = torch.exp(q @ k.T / math.sqrt(q.shape[-1]))
        mixed.append(scores / scores.sum(-1, keepdim=True) @ v)
    return torch.cat(mixed, -1)


def see(weights: dict[str, Tensor], at: Layout, pixels: Tensor) -> Tensor:
    """One image (3, h, w) -> (patches + 1, vision_width)."""
    net, size = Reader(weights, "blip.visual_encoder."), at.patch_px
    patches = pixels.double().unfold(1, size, size).unfold(2, size, size)  # (3, rows, columns, size, size)
    x = torch.einsum("crkij,ocij->rko", patches, net.get("patch_embed.proj.weight")).flatten(0, 1)
    x = torch.cat([net.get("cls_token")[0], x + net.get("patch_embed.proj.bias")]) + net.get("pos_embed")[0]
    for number in range(at.vision_depth):
        block = f"blocks.{number}"
        query, key, value = net.linear(net.norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, -1)
        x = x + net.linear(attend(query, key, value, at.vision_heads), f"{block}.attn.proj")
        hidden = gelu(net.linear(net.norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
        x = x + net.linear(hidden, f"{block}.mlp.fc2")
    return net.norm(x, "norm", 1e-6)


def read(weights: dict[str, Tensor], at: Layout, ids: Sequence[int], image: Tensor) -> Tensor:
    """Token ids, without padding: what nobody attends to is left out -> the first token, (width,)."""
    net = Reader(weights, "blip.text_encoder.")
    x = net.get("embeddings.word_embeddings.weight")[list(ids)]
    x = x + net.get("embeddings.position_embeddings.weight")[: len(ids)]
    x = net.norm(x, "embeddings.LayerNorm", 1e-12)
    for number in range(at.depth):
        layer = f"encoder.layer.{number}"
        for name, seen in (("attention", None), ("crossattention", image)):
            part = f"{layer}.{name}"
            source = x if seen is None else seen
            query, key, value = (
                net.linear(what, f"{part}.self.{role}")
                for what, role in ((x, "query"), (source, "key"), (source, "value"))
            )
            mixed = net.linear(attend(query, key, value, at.heads), f"{part}.output.dense")
            x = net.norm(mixed + x, f"{part}.output.LayerNorm", 1e-12)
        fed = net.linear(gelu(net.linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
        x = net.norm(fed + x, f"{layer}.output.LayerNorm", 1e-12)
    return x[0]


def official_score(weights: dict[str, Tensor], at: Layout, ids: Sequence[int], pixels: Tensor) -> float:
    """The standardised reward of one preprocessed image and the token ids of one prompt."""
    net = Reader(weights, "mlp.layers.")
    x = read(weights, at, ids, see(weights, at, pixels))
    for number in MLP:
        x = net.linear(x, str(number))
    return (float(x) - 0.16717362830052426) / 1.0333394966054072
