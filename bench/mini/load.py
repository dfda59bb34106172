"""Loads the family's judges, step-aware model and instrument from the shipped, checked weights."""

from __future__ import annotations

from typing import TypeVar

from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from bench.mini.towers import Instrument, Judge
from bench.mini.weights import pipeline_folder, weight_file

Network = TypeVar("Network", bound=nn.Module)


def tokenizer() -> CLIPTokenizer:
    """The family's tokenizer."""
    return CLIPTokenizer.from_pretrained(pipeline_folder() / "tokenizer", local_files_only=True)


def load_judge(name: str, device: str = "cpu", *, timestep: bool = False) -> tuple[Judge, CLIPTokenizer]:
    """A judge (``mini-clip``, ``mini-preference``) or the ``step-aware`` model, frozen, float32, with its tokenizer."""
    words = tokenizer()
    return _filled(Judge(words, timestep), f"judges/{name}.safetensors", device), words


def load_instrument(device: str = "cpu") -> Instrument:
    """The held-out estimator of craft and attributes, frozen, float32."""
    return _filled(Instrument(), "judges/instrument.safetensors", device)


def _filled(model: Network, name: str, device: str) -> Network:
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in load_file(weight_file(name)).items()
    }
    model.load_state_dict(state)
    return model.requires_grad_(False).eval().to(device)
