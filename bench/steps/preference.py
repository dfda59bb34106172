"""SPO's step-aware preference model, a CLIP whose image encoder knows the timestep: the network, and strict loading.

A CLIP of transformers' layout (PickScore's ViT-H/14), into each block of whose image encoder the timestep comes by
adaptive layer norms: the embedded time gives a shift, a scale and a gate for attention, the same for the MLP, and a
last shift and scale for the pooled class token. Source: Z. Liang et al., Aesthetic Post-Training Diffusion Models from
Generic Preferences with Step-by-step Preference Optimization, arXiv 2406.04314, and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from bench.errors import WeightsError
from bench.lora.audit import find_non_finite
from bench.metrics.declare import Place
from bench.metrics.encoders import END, MEAN, STD, TORCH_DTYPES, fill_model, token_ids, transformers_tokens
from bench.metrics.pickscore import read_clip_config
from bench.metrics.weights import FETCH_AGAIN, read_tensors
from bench.suite.tokens import CONTEXT

WHAT = "SPO's step-aware preference model"
KEPT_PROMPTS = 64
"""What was made of so many prompts is kept: those of a batch are asked for at each of its steps."""
SINUSOID = 256
MAX_PERIOD = 10_000.0
WRAPPER = "model."
"""What stands before every key of the published files; the trainer's own have nothing there."""
VIT_H14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "eos_token_id": 2,
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}
"""PickScore's, which both published files have; a ``config.json`` beside the file is read instead."""


class Modulated(nn.Module):
    """The CLIP with its timestep: only ``embed_images`` differs from transformers' own.

    Args:
        config: of a CLIP in transformers' layout.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.clip = CLIPModel(config)
        width = config.vision_config.hidden_size
        # Under these names, so that the state dict of ``clip`` has the keys of the published file.
        self.clip.t_embedder = nn.Module()
        self.clip.t_embedder.mlp = nn.Sequential(nn.Linear(SINUSOID, width), nn.SiLU(), nn.Linear(width, width))
        for layer in self.clip.vision_model.encoder.layers:
            layer.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.clip.vision_model.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def embed_images(self, pixels: Tensor, timesteps: Tensor) -> Tensor:
        """Normalised pixels (n, 3, side, side) and timesteps (n,) -> features (n, d) of any length."""
        vision: Any = self.clip.vision_model
        time = self.clip.t_embedder.mlp(sinusoid(timesteps.to(pixels.dtype)).to(pixels.dtype))
        x = vision.pre_layrnorm(vision.embeddings(pixels))
        for layer in vision.encoder.layers:
            parts = layer.adaLN_modulation(time).unsqueeze(1).chunk(6, dim=-1)
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
            attended, _ = layer.self_attn(hidden_states=layer.layer_norm1(x) * (1 + scale) + shift, attention_mask=None)
            x = x + gate * attended
            x = x + mlp_gate * layer.mlp(layer.layer_norm2(x) * (1 + mlp_scale) + mlp_shift)
        shift, scale = vision.adaLN_modulation(time).chunk(2, dim=-1)
        features: Tensor = self.clip.visual_projection(vision.post_layernorm(x[:, 0]) * (1 + scale) + shift)
        return features

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (n, 77) -> features (n, d) of any length."""
        features: Tensor = self.clip.get_text_features(input_ids=ids).pooler_output
        return features


def sinusoid(timesteps: Tensor) -> Tensor:
    """Cosines, then sines, of each timestep (n,) at 128 frequencies from 1 down to 1/10,000; float32 (n, 256)."""
    half = SINUSOID // 2
    powers = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float().unsqueeze(1) * torch.exp(-math.log(MAX_PERIOD) * powers)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def preprocess(pictures: Tensor, side_px: int) -> Tensor:
    """Decoded pictures as SPO's sampler gives them to the model.

    The short side to ``side_px`` by torch's bicubic filter without antialiasing, before anything is clamped; the
    middle square, its margin rounded half to even; only then [-1, 1] becomes [0, 1], clamped, and is normalised.

    Args:
        pictures: (n, 3, height, width) as a VAE decodes them, about [-1, 1], not clamped.
        side_px: of the square.

    Returns:
        float32 (n, 3, side_px, side_px).
    """
    height, width = pictures.shape[2:]
    scale = side_px / min(height, width)
    size = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = functional.interpolate(pictures.float(), size, mode="bicubic", align_corners=False, antialias=False)
    top, left = (round((length - side_px) / 2) for length in size)
    square = resized[:, :, top : top + side_px, left : left + side_px]
    mean, std = (torch.tensor(values, device=square.device)[:, None, None] for values in (MEAN, STD))
    return ((square / 2 + 0.5).clamp(0, 1) - mean) / std


def tensors_of(file: Path, what: str) -> MutableMapping[str, Tensor]:
    """The tensors of a weight file by name, all of them finite.

    Raises:
        WeightsError: it is damaged, holds anything but tensors by name, or a value is NaN or infinite.
    """
    state = read_tensors(file)
    if not isinstance(state, MutableMapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file}: not the weights of {what}: it does not hold tensors by name.", FETCH_AGAIN)
    if bad := find_non_finite(state):
        raise WeightsError(f"{file}: {len(bad)} tensors hold NaN or infinity, such as {next(iter(bad))}.", FETCH_AGAIN)
    return state


class StepAwareModel:
    """The model in memory, as a step metric on decoded pictures."""

    batch = 16

    def __init__(self, network: Modulated, logit_scale: float, side_px: int, place: Place) -> None:
        self._network, self._logit_scale, self._side_px, self._place = network, logit_scale, side_px, place
        self._tokenize: Callable[[str], list[int]] = transformers_tokens()
        self._embedded = lru_cache(KEPT_PROMPTS)(self._embed)

    @torch.inference_mode()
    def _embed(self, prompt: str) -> Tensor:
        """Unit vector, float32 (1, d)."""
        ids = token_ids(self._tokenize, [prompt], END).to(self._place.device)
        return functional.normalize(self._network.embed_tokens(ids).float(), dim=1)

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Of each prompt, whether it has more than 77 tokens, start and end counted."""
        return [len(self._tokenize(prompt)) > CONTEXT - 2 for prompt in prompts]

    @torch.inference_mode()
    def score(self, pictures: Tensor, timesteps: Tensor, prompts: Sequence[str]) -> Tensor:
        """exp(logit_scale) cos(image at its timestep, text), float32 (n,); see ``LoadedStepMetric``."""
        device, dtype = self._place.device, TORCH_DTYPES[self._place.dtype]
        pixels = preprocess(pictures.to(device), self._side_px).to(dtype)
        images = functional.normalize(self._network.embed_images(pixels, timesteps.to(device)).float(), dim=1)
        return self._logit_scale * (images * torch.cat([*map(self._embedded, prompts)])).sum(dim=1)


def load_step_aware(file: Path, place: Place) -> StepAwareModel:
    """The model of a published file, or of the trainer's own; of the sizes of the ``config.json`` beside it, if any.

    Raises:
        WeightsError: a key is missing, unknown, of another shape or not finite, or ``config.json`` is damaged.
    """
    beside = file.with_name("config.json")
    config = read_clip_config(beside) if beside.is_file() else CLIPConfig(**VIT_H14)
    with torch.device("meta"):
        network = Modulated(config)
    state = tensors_of(file, WHAT)
    if all(key.startswith(WRAPPER) for key in state):
        state = {key.removeprefix(WRAPPER): value for key, value in state.items()}
    for name in [name for name in state if name.endswith(".embeddings.position_ids")]:
        ids = state.pop(name)
        if not torch.equal(ids.flatten(), torch.arange(ids.numel(), dtype=ids.dtype)):
            raise WeightsError(f"{file}: {name} is not 0, 1, 2, ..., so it is not {WHAT}.", FETCH_AGAIN)
    for half in (network.clip.text_model, network.clip.vision_model):
        ids = half.embeddings.position_ids  # which no file has to fill; on the device "meta" it is empty
        half.embeddings.position_ids = torch.arange(ids.shape[1], device=place.device).unsqueeze(0)
    logit_scale = fill_model(network.clip, state, place, file, WHAT)
    return StepAwareModel(network, logit_scale, config.vision_config.image_size, place)
