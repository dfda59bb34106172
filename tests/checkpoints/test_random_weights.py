"""Random weights: the same everywhere, of the true shapes, and of a size that a pass survives."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from bench.checkpoints.random_weights import open_random

PROJECTION = "unet.down_blocks.2.attentions.0.transformer_blocks.0.ff.net.0.proj.weight"


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_the_same_in_another_process_and_another_for_another_name() -> None:
    tiny = open_random("tiny")
    code = (
        "import hashlib; from bench.checkpoints.random_weights import open_random\n"
        f"print(hashlib.sha256(open_random('tiny').read({PROJECTION!r}).numpy().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(tiny.read(PROJECTION)) == digest(tiny.read(PROJECTION))
    other = PROJECTION.replace("attentions.0", "attentions.1")
    assert tiny.tensors[other] == tiny.tensors[PROJECTION]
    assert not torch.equal(tiny.read(other), tiny.read(PROJECTION))


@pytest.mark.parametrize("family", ["sdxl", "sd15", "tiny"])
def test_as_large_as_it_says(family: str) -> None:
    checkpoint = open_random(family)
    assert checkpoint.files == ()
    for name in ("unet.conv_in.weight", "unet.conv_in.bias", "vae.quant_conv.weight", PROJECTION):
        tensor = checkpoint.read(name)
        assert (tuple(tensor.shape), str(tensor.dtype)) == (checkpoint.tensors[name].shape, "torch.float16")


def test_signals_keep_their_size() -> None:
    tensor = open_random("sdxl").read(PROJECTION).float()
    inputs = tensor.shape[1]
    assert float(tensor.std()) == pytest.approx(inputs**-0.5, rel=0.01)
    assert abs(float(tensor.mean())) < 0.01 * inputs**-0.5
    assert float(tensor.abs().max()) <= 2 * (3 / 7 / inputs) ** 0.5 * 1.001
    tiny = open_random("tiny")
    assert set(tiny.read("unet.conv_norm_out.weight").tolist()) == {1.0}
    assert set(tiny.read("unet.conv_norm_out.bias").tolist()) == {0.0}


def test_longer_tensors_are_drawn_in_pieces_that_do_not_repeat() -> None:
    tensor = open_random("sdxl").read("text_encoder.text_model.embeddings.token_embedding.weight")
    rows = tensor.view(torch.int16)
    assert len(torch.unique(rows[:, :8], dim=0)) == rows.shape[0]
