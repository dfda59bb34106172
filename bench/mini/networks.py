"""The networks that score pictures of the embedded family, and loading them from the shipped, checked weights.

A small CLIP, which is also the preference model, and with a timestep the step-aware preference model of SPO; and the
instrument, a convnet that reads a picture's qualities and attributes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from bench.mini import world
from bench.mini.models import text_config
from bench.mini.weights import pipeline_folder, weight_file

MAX_TOKENS = 32
"""Sequence length of MiniClip's text encoder, start and end token included."""
SINUSOID = 256
MAX_PERIOD = 10_000.0

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Shape:
    """Sizes of a MiniClip. Each width of the stem halves the picture; the last one gives the tokens."""

    stem: tuple[int, ...] = (24, 48, 96, 128)
    width: int = 128
    layers: int = 3
    heads: int = 4
    text_width: int = 96
    text_layers: int = 2
    embed: int = 96


SMALLER = Shape(stem=(12, 24, 48, 64), width=64, layers=2, text_width=64)
SHAPES = {"mini-clip-2": SMALLER, "mini-preference-2": SMALLER}
"""Networks of a shape of their own: those of the second pair of metrics are smaller."""


class Block(nn.Module):
    """Pre-norm transformer block; ``modulation`` is (n, 6 * width) or None."""

    def __init__(self, shape: Shape, timestep: bool) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = _modulation(width) if timestep else None

    def forward(self, x: Tensor, t: Tensor | None) -> Tensor:
        """Tokens (n, l, width) and the embedded timestep (n, width) or None -> tokens."""
        if self.modulation is None or t is None:
            x = x + self._attend(self.norm1(x))
            plain: Tensor = self.fc2(functional.gelu(self.fc1(self.norm2(x))))
            return x + plain
        parts = self.modulation(functional.silu(t)).unsqueeze(1).chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1)
        gated: Tensor = gate2 * self.fc2(functional.gelu(self.fc1(self.norm2(x) * (1 + scale2) + shift2)))
        return x + gated

    def _attend(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return attended


def _modulation(width: int) -> nn.Linear:
    layer = nn.Linear(width, 6 * width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.bias[2 * width : 3 * width] = 1.0  # gate of attention
        layer.bias[5 * width : 6 * width] = 1.0  # gate of the MLP
    return layer


class Vision(nn.Module):
    """Vision transformer: pixels (n, 3, 64, 64) in [0, 1] -> embedding (n, embed), not normalised."""

    def __init__(self, shape: Shape, timestep: bool = False) -> None:
        super().__init__()
        width, patches = shape.width, (world.SIZE_PX // 2 ** len(shape.stem)) ** 2
        self.stem = nn.Sequential(*convolutions(shape.stem), nn.Conv2d(shape.stem[-1], width, 1))
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, patches + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(shape, timestep) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, shape.embed, bias=False)
        self.time = _time_embedding(width) if timestep else None
        self.last = nn.Linear(width, 2 * width) if timestep else None
        if self.last is not None:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, pixels: Tensor, t: Tensor | None = None) -> Tensor:
        """Embed; ``t`` int64 (n,) in 0..999 is read by a step-aware encoder only."""
        x = self.stem(pixels * 2 - 1).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.position
        time = self.time(sinusoid(t).to(x.dtype)) if self.time is not None and t is not None else None
        for block in self.blocks:
            x = block(x, time)
        pooled = self.norm(x[:, 0])
        if self.last is not None and time is not None:
            shift, scale = self.last(functional.silu(time)).chunk(2, -1)
            pooled = pooled * (1 + scale) + shift
        embedding: Tensor = self.project(pooled)
        return embedding


def convolutions(widths: tuple[int, ...]) -> list[nn.Module]:
    """For each width two 3x3 convolutions with batch norm and SiLU; the first one halves the picture."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *widths[:-1]), widths, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.SiLU()]
        layers += [nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU()]
    return layers


def _time_embedding(width: int) -> nn.Sequential:
    first, second = nn.Linear(SINUSOID, width), nn.Linear(width, width)
    for layer in (first, second):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.SiLU(), second)


def sinusoid(t: Tensor) -> Tensor:
    """Sinusoidal embedding of timesteps (n,) -> float32 (n, 256), periods up to 10,000."""
    half = SINUSOID // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, device=t.device) / half)
    angles = t.float().view(-1, 1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class MiniClip(nn.Module):
    """A CLIP in miniature: two encoders into one space, and a learned temperature."""

    def __init__(self, tokenizer: CLIPTokenizer, timestep: bool = False, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.vision = Vision(shape, timestep)
        config = text_config(shape.text_width, shape.text_layers, MAX_TOKENS, tokenizer)
        config.projection_dim = shape.embed
        self.text = CLIPTextModelWithProjection(config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_images(self, pixels: Tensor, t: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 (n, embed), of pixels (n, 3, 64, 64) in [0, 1]."""
        return functional.normalize(self.vision(pixels, t).float(), dim=-1)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Unit vectors, float32 (n, embed), of token ids (n, 32)."""
        return functional.normalize(self.text(ids).text_embeds.float(), dim=-1)

    def score(self, pixels: Tensor, text: Tensor, t: Tensor | None = None) -> Tensor:
        """exp(logit_scale) * cos(image, text), (n,)."""
        return self.logit_scale.exp() * (self.embed_images(pixels, t) * text).sum(-1)


def mini_clip_tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids for a MiniClip, int64 (n, 32), cut with the end token kept."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


class Instrument(nn.Module):
    """The held-out instrument: a small convnet that reads the six qualities and every attribute of a picture.

    It is trained on scenes that no other stage sees, and no training uses it.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*convolutions(widths))
        self.hidden = nn.Linear(widths[-1] * 16, 192)
        self.craft = nn.Linear(192, len(world.CRAFT_WEIGHTS))
        self.kind = nn.Linear(192, len(world.KINDS))
        self.attributes = nn.ModuleDict(
            {
                f"{kind}_{name}": nn.Linear(192, len(values))
                for kind, table in world.KINDS.items()
                for name, values in table.items()
            }
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Pixels (n, 3, 64, 64) in [0, 1] -> qualities (n, 6), logits of the kind, logits by attribute."""
        x = functional.silu(self.hidden(self.trunk(pixels * 2 - 1).flatten(1)))
        return self.craft(x), self.kind(x), {name: head(x) for name, head in self.attributes.items()}


# --- loading -------------------------------------------------------------------------------


def tokenizer() -> CLIPTokenizer:
    """The family's tokenizer."""
    return CLIPTokenizer.from_pretrained(pipeline_folder() / "tokenizer", local_files_only=True)


def load_mini_clip(name: str, device: str = "cpu", *, timestep: bool = False) -> tuple[MiniClip, CLIPTokenizer]:
    """``mini-clip``, ``mini-preference``, one of the second pair (``mini-clip-2``), or the ``step-aware`` model.

    Frozen, float32, with its tokenizer.
    """
    words = tokenizer()
    return _filled(MiniClip(words, timestep, SHAPES.get(name)), name, device), words


def load_instrument(device: str = "cpu") -> Instrument:
    """The held-out instrument, which reads craft and attributes, frozen, float32."""
    return _filled(Instrument(), "instrument", device)


def load_aesthetic(device: str = "cpu") -> dict[str, Tensor]:
    """Weight (96,) and bias (1,) of mini-aesthetic's regressor, float32."""
    return _tensors("mini-aesthetic", device)


def _filled(model: Network, name: str, device: str) -> Network:
    model.load_state_dict(_tensors(name))
    return model.requires_grad_(False).eval().to(device)


def _tensors(name: str, device: str = "cpu") -> dict[str, Tensor]:
    stored: dict[str, Any] = load_file(weight_file(f"networks/{name}.safetensors"), device=device)
    return {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
