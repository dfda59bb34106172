"""A CLIP in memory, as a tower: its model, its tokenizer and its geometries, and how models are filled strictly.

Imports torch; the modules that declare towers import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional

from bench.errors import WeightsError
from bench.metrics.clip_text import ClipTokens
from bench.metrics.geometry import Geometry
from bench.metrics.registry import Place
from bench.records import Dtype
from bench.weights.read import FETCH_AGAIN

BATCH = 16
"""Images and prompts of one forward: enough to keep a CPU or GPU busy, and always the same."""
NAMED_KEYS = 3
"""Most keys that an error names."""
TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(eq=False)
class ClipTower:
    """A ``LoadedTower``: a CLIP with the preprocessing and the tokenizer of the metrics on it."""

    encode_image: Callable[[Tensor], Tensor]
    """(batch, 3, side, side) in ``dtype`` -> features (batch, d) of any length."""
    encode_text: Callable[[Tensor], Tensor]
    """Token ids (batch, 77) -> features (batch, d) of any length."""
    tokens: ClipTokens
    geometries: Mapping[str, Geometry]
    """By the name that a metric has for it as its ``view``."""
    side_px: int
    logit_scale: float
    device: str
    dtype: torch.dtype
    batch: int = BATCH

    def preprocess(self, image: Image, view: str) -> Tensor:
        """The picture in one of the tower's geometries, float32 (3, side, side) on the CPU."""
        return self.geometries[view](image, self.side_px)

    @torch.inference_mode()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(batch, 3, side, side) -> unit vectors, float32 (batch, d); the length is taken in float32."""
        return functional.normalize(self.encode_image(pixels.to(self.device, self.dtype)).float(), dim=1)

    @torch.inference_mode()
    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """``batch`` prompts, each as 77 tokens -> unit vectors, float32 (batch, d)."""
        return functional.normalize(self.encode_text(self.tokens.ids(prompts).to(self.device)).float(), dim=1)

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Of each prompt, whether it has more than 77 tokens."""
        return self.tokens.truncated(prompts)


def fill_model(model: nn.Module, state: MutableMapping[str, Tensor], place: Place, file: Path, what: str) -> float:
    """Give a CLIP built on the device "meta" its weights in the place's dtype, frozen; its exp(logit_scale).

    The scale is taken in float32 whatever the dtype: bfloat16 would make 98.9 of 100, and every score with it.
    Each tensor is cast and let go of in turn, so that a file in half precision needs no second room in memory.

    Raises:
        WeightsError: a key is missing, unknown or of another shape; ``file`` and ``what`` it should be are named.
    """
    check_keys(state, model.state_dict(), file, what)
    dtype, logit_scale = TORCH_DTYPES[place.dtype], float(state["logit_scale"].float().exp())
    ready = {key: state.pop(key).to(place.device, dtype) for key in list(state)}
    model.load_state_dict(ready, assign=True)
    model.requires_grad_(False).eval()
    return logit_scale


def check_keys(state: Any, wanted: Mapping[str, Tensor], file: Path, what: str) -> None:
    """Refuse weights that are not exactly those wanted, key by key and shape by shape.

    Raises:
        WeightsError: with how many keys are missing, unknown or of another shape, and the first of each.
    """
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        raise WeightsError(f"{file}: not the weights of {what}: it holds a {kind}, not tensors by name.", FETCH_AGAIN)
    misshapen = [
        f"{key} {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = {
        "missing": [key for key in wanted if key not in state],
        "unknown": [key for key in state if key not in wanted],
        "of another shape": misshapen,
    }
    if found := [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys]:
        raise WeightsError(f"{file}: not the weights of {what}: of its keys, {'; '.join(found)}.", FETCH_AGAIN)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NAMED_KEYS]) + (", ..." if len(keys) > NAMED_KEYS else "")
