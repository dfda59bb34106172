"""ImageReward's network: BLIP's ViT and BERT with cross-attention to the image, and an MLP on the first token.

The vision transformer is timm's. Every parameter has its name in the published file, so that it is loaded strictly,
key by key, and nothing is renamed. Imports torch; ``bench.metrics.imagereward`` imports it late.

Sources: J. Li et al., BLIP, arXiv 2201.12086; J. Xu et al., ImageReward, arXiv 2304.05977, with their code.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from bench import documents
from bench.errors import WeightsError
from bench.metrics.declare import Place
from bench.metrics.encoders import TORCH_DTYPES, check_keys

NOT_NEEDED = frozenset(
    {
        "blip.text_encoder.embeddings.position_ids",  # 0, 1, 2, ...: a buffer of older transformers
        "blip.vision_proj.weight",  # BLIP's contrastive heads, which the score never passes
        "blip.vision_proj.bias",
        "blip.text_proj.weight",
        "blip.text_proj.bias",
    }
)
"""Keys of the published file that the score does not read."""


VISION = {"img_size": 224, "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16}
"""Sizes of the vision transformer, by timm's names for them: ViT-L/16 at 224 pixels."""


class TextShape(msgspec.Struct, frozen=True):
    """What is read of ``med_config.json``; its ``encoder_width`` is not: the official code overrides it too."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str
    add_cross_attention: bool


class Joined(nn.Module):
    """A linear layer, added to what it came from and normalised after: LayerNorm(dense(x) + residual)."""

    def __init__(self, inputs: int, text: TextShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, text.hidden_size)
        self.LayerNorm = nn.LayerNorm(text.hidden_size, eps=text.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(n, length, inputs), (n, length, width) -> (n, length, width)."""
        joined: Tensor = self.LayerNorm(self.dense(x) + residual)
        return joined


class Attention(nn.Module):
    """Attention of a text to itself or, with ``source_width`` of the image's tokens, to an image."""

    def __init__(self, source_width: int, text: TextShape) -> None:
        super().__init__()
        width, self.heads = text.hidden_size, text.num_attention_heads
        widths = {"query": width, "key": source_width, "value": source_width}
        self.self = nn.ModuleDict({role: nn.Linear(inputs, width) for role, inputs in widths.items()})
        self.output = Joined(width, text)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """(n, length, width), (n, places, source_width), bool (n, 1, 1, places), False for padding -> as ``x``."""
        sources = {"query": x, "key": source, "value": source}
        query, key, value = (
            self.self[role](part).unflatten(-1, (self.heads, -1)).transpose(1, 2) for role, part in sources.items()
        )
        # Not written out as two products: in those, MKL's last bits depend on an image's place in the batch.
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended: Tensor = self.output(mixed.transpose(1, 2).flatten(2), x)
        return attended


class Layer(nn.Module):
    """A layer of BERT with attention to the image between self-attention and the two linear layers."""

    def __init__(self, image_width: int, text: TextShape) -> None:
        super().__init__()
        self.attention = Attention(text.hidden_size, text)
        self.crossattention = Attention(image_width, text)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(text.hidden_size, text.intermediate_size)})
        self.output = Joined(text.intermediate_size, text)

    def forward(self, x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """(n, length, width), (n, places, image_width), mask of the text -> (n, length, width)."""
        x = self.crossattention(self.attention(x, x, mask), image, None)
        fed: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return fed


class TextEncoder(nn.Module):
    """BERT with cross-attention."""

    def __init__(self, image_width: int, text: TextShape) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(text.vocab_size, text.hidden_size),
                "position_embeddings": nn.Embedding(text.max_position_embeddings, text.hidden_size),
                "LayerNorm": nn.LayerNorm(text.hidden_size, eps=text.layer_norm_eps),
            }
        )
        layers = (Layer(image_width, text) for _ in range(text.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Token ids and bool mask (n, length), image (n, places, image_width) -> (n, length, hidden_size)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        embedded = self.embeddings["word_embeddings"](ids) + self.embeddings["position_embeddings"](places)
        x: Tensor = self.embeddings["LayerNorm"](embedded)
        for layer in self.encoder["layer"].children():
            x = layer(x, image, mask[:, None, None, :])
        return x


class Blip(nn.Module):
    """An image and a text, read together: the text's first token after attention to all of the image."""

    def __init__(self, vision: dict[str, Any], text: TextShape) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(**vision, num_classes=0, global_pool="")
        self.text_encoder = TextEncoder(vision["embed_dim"], text)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(n, 3, h, w), token ids and bool mask (n, length), False for padding -> (n, hidden_size)."""
        image = self.visual_encoder(pixels.to(self.visual_encoder.cls_token))
        first: Tensor = self.text_encoder(ids, mask, image)[:, 0]
        return first


class RewardNetwork(nn.Module):
    """BLIP, and five linear layers with nothing between them: dropouts in training, the identity here."""

    def __init__(self, vision: dict[str, Any], text: TextShape) -> None:
        super().__init__()
        self.blip = Blip(vision, text)
        layers = nn.Sequential(
            nn.Linear(text.hidden_size, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )
        self.mlp = nn.ModuleDict({"layers": layers})

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """As ``Blip.forward`` -> the raw reward, float32 (n,)."""
        reward: Tensor = self.mlp["layers"](self.blip(pixels, ids, mask).float()).squeeze(1)
        return reward


def read_text_shape(file: Path) -> TextShape:
    """The sizes in ``med_config.json``.

    Raises:
        WeightsError: it is another file, or names a network without cross-attention or with another activation.
    """
    try:
        shape = documents.convert(documents.loads(documents.read_bytes(file).decode()), TextShape)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file}: not ImageReward's med_config.json: {error}.") from error
    if not shape.add_cross_attention:
        raise WeightsError(f"{file}: add_cross_attention is false; the score needs cross-attention.")
    if shape.hidden_act != "gelu":
        raise WeightsError(f"{file}: hidden_act is {shape.hidden_act!r}, not 'gelu'.")
    return shape


def build_network(
    state: MutableMapping[str, Tensor], place: Place, file: Path, vision: dict[str, Any], text: TextShape
) -> RewardNetwork:
    """The network with the weights of the published file: BLIP in the place's dtype, the MLP in float32, frozen.

    Each tensor is cast and let go of in turn, so that half precision is never in memory twice.

    Raises:
        WeightsError: a key is missing, unknown, or of another shape; ``file`` is named.
    """
    with torch.device("meta"):
        network = RewardNetwork(vision, text)
    if isinstance(state, MutableMapping):
        for key in NOT_NEEDED:
            state.pop(key, None)
    check_keys(state, network.state_dict(), file, "ImageReward")
    dtype = TORCH_DTYPES[place.dtype]
    ready = {
        key: state.pop(key).to(place.device, torch.float32 if key.startswith("mlp.") else dtype) for key in list(state)
    }
    network.load_state_dict(ready, assign=True)
    return network.requires_grad_(False).eval()
