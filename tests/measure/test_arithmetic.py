"""The sentence on how a pipeline computes, read from a real UNet and from a CUDA torch made of words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from bench.measure.meters import arithmetic_note
from bench.records import Settings

SETTINGS = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim", dtype="bfloat16")


class Unet(torch.nn.Sequential):
    """Two blocks, and attention processors as diffusers' models name them."""

    attn_processors: ClassVar = {"a": SimpleNamespace(), "b": SimpleNamespace()}


def test_what_was_compiled_is_counted_not_believed() -> None:
    unet = Unet(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    pipe = SimpleNamespace(unet=unet)
    assert arithmetic_note(pipe, SETTINGS, "cpu") == (
        "Arithmetic of the timing processes: bfloat16; attention by SimpleNamespace; not compiled."
    )
    unet[0].compile()
    assert arithmetic_note(pipe, SETTINGS, "cpu").endswith("1 compiled block.")
    unet[1].compile()
    assert arithmetic_note(pipe, SETTINGS, "cpu").endswith("2 compiled blocks.")


def test_on_cuda_it_tells_the_switches_that_choose_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, allowed in {"flash": True, "mem_efficient": True, "cudnn": False, "math": True}.items():
        monkeypatch.setattr(torch.backends.cuda, f"{name}_sdp_enabled", lambda allowed=allowed: allowed)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    cudnn = SimpleNamespace(version=lambda: 91002, benchmark=False, allow_tf32=True)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    note = arithmetic_note(SimpleNamespace(unet=Unet()), SETTINGS, "cuda:0")
    for words in (
        "attention kernels allowed: flash, memory-efficient, plain;",
        "CUDA 12.8;",
        "cuDNN 91002 (autotuning off);",
        "TensorFloat-32 on in convolutions, off in products.",
    ):
        assert words in note
