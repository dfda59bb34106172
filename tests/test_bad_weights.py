"""LoRA files and checkpoints that cannot be what they are named as, refused before anything is rendered."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tiny
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file
from suites import write_suite

from bench.mini.weights import pipeline_folder

# --- LoRA files ----------------------------------------------------------------------------


def renamed(old, new):
    return {name.replace(old, new): tensor for name, tensor in tiny.lora_tensors(1).items()}


def without(end):
    return {name: tensor for name, tensor in tiny.lora_tensors(1).items() if not name.endswith(end)}


def of_other_widths():
    return {
        name: np.concatenate([tensor] * 2, axis=1 if "lora_A" in name else 0)
        for name, tensor in renamed("", "").items()
    }


LORAS = {
    "of another model's blocks": (
        lambda: renamed("blocks.0", "blocks.7"),
        ["112 of 112 keys", "fit nothing in the checkpoint", "blocks.7"],
    ),
    "of another model's widths": (of_other_widths, ["56 of 56 modules", "a LoRA for another model"]),
    "of a whole model": (
        lambda: {"conv_in.weight": np.zeros((4, 4, 3, 3), np.float32)},
        ["1 of 1 keys", "layout", "conv_in.weight"],
    ),
    "of another layout": (lambda: renamed("unet.", "lora_unet_"), ["112 of 112 keys", "lora_unet_down_blocks.0"]),
    "with nothing in it": (dict, ["holds no tensors"]),
    "stored as whole numbers": (
        lambda: {name: tensor.astype(np.int8) for name, tensor in tiny.lora_tensors(1).items()},
        ["112 of 112 tensors are stored as whole numbers", "(int8)", "save the LoRA in float16"],
    ),
    "with embeddings beside it": (
        lambda: tiny.lora_tensors(1) | {"bundle_emb.cat.clip_l": np.ones((1, 8), np.float32)},
        ["bundle_emb.cat.clip_l", 'leave_out = ["bundle_emb"]'],
    ),
    "with one matrix of two": (lambda: without("lora_B.weight"), ["56 of 56 modules", "has down and lacks up"]),
    "with ranks that differ": (
        lambda: {name: tensor[:4] if "lora_A" in name else tensor for name, tensor in tiny.lora_tensors(1).items()},
        ["do not multiply"],
    ),
}


def with_lora(home):
    write_suite(home, '"mini:spo"', '"own.safetensors"')


@pytest.mark.parametrize("prompt_id", LORAS)
def test_a_lora(prompt_id, refuses, home):
    make, words = LORAS[prompt_id]
    save_file(make(), home / "own.safetensors")
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors", *words)


CUTS = {
    "empty": lambda data: b"",
    "cut in its length": lambda data: data[:5],
    "cut in its header": lambda data: data[:300],
    "cut in its weights": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "longer than it says": lambda data: data + b"\0",
    "a web page": lambda data: b"<!DOCTYPE html><html>Log in to download</html>",
    "a pickle": lambda data: b"\x80\x02}q\x00." + b"x" * 100,
}


@pytest.mark.parametrize("prompt_id", CUTS)
def test_a_lora_file_that_is(prompt_id, refuses, home):
    tiny.write_lora(home / "own.safetensors", 1)
    (home / "own.safetensors").write_bytes(CUTS[prompt_id]((home / "own.safetensors").read_bytes()))
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors: is damaged, cut short, or not a .safetensors file")


def test_a_lora_that_is_not_there(refuses, home):
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors: no such LoRA file", "mini:dpo, mini:spo")
    write_suite(home, '"mini:spo"', '"mini:sop"')
    refuses(3, ["run", "own.toml", "-o", "out"], "mini:sop", "dpo, spo")


# --- checkpoints ---------------------------------------------------------------------------


def copy_checkpoint(home):
    """The embedded pipeline as a folder ``model``, its files links, and a suite that names it."""
    shutil.copytree(pipeline_folder(), home / "model", copy_function=os.symlink)
    write_suite(home, '[variants.spo]\ncheckpoint = "mini"', '[variants.spo]\ncheckpoint = "model"')
    return home / "model"


def rewrite(path, data):
    path.unlink()
    path.write_bytes(data)


def cut(path):
    data = path.read_bytes()
    rewrite(path, data[: len(data) // 2])


def pickle_only(folder):
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")


CHECKPOINTS = {
    "without model_index.json": (lambda model: (model / "model_index.json").unlink(), ["model_index.json is missing"]),
    "with a broken index": (lambda model: rewrite(model / "model_index.json", b"{"), ["model_index.json"]),
    "of a list": (lambda model: rewrite(model / "model_index.json", b"[]"), ["model_index.json"]),
    "of another family": (
        lambda model: rewrite(model / "model_index.json", b'{"_class_name": "FluxPipeline"}'),
        ["holds a FluxPipeline", "StableDiffusionXLPipeline"],
    ),
    "with a cut UNet": (
        lambda model: cut(model / "unet" / "diffusion_pytorch_model.safetensors"),
        ["diffusion_pytorch_model.safetensors: is damaged, cut short"],
    ),
    "with a cut text encoder": (
        lambda model: cut(model / "text_encoder_2" / "model.safetensors"),
        ["model.safetensors: is damaged, cut short"],
    ),
    "without a VAE": (lambda model: shutil.rmtree(model / "vae"), ["vae", "holds no .safetensors weights for vae"]),
    "without a tokenizer": (
        lambda model: shutil.rmtree(model / "tokenizer"),
        ["tokenizer: holds no tokenizer", "tokenizer.json", "merges.txt"],
    ),
    "with a tokenizer that has no words": (
        lambda model: (model / "tokenizer_2" / "tokenizer.json").unlink(),
        ["tokenizer_2: holds no tokenizer"],
    ),
    "without its second text encoder": (
        lambda model: shutil.rmtree(model / "text_encoder_2"),
        ["text_encoder_2", "holds no .safetensors weights for text_encoder_2"],
    ),
    "of pickles": (
        lambda model: pickle_only(model / "unet"),
        ["pickled weights are not read", "convert it: python -c", "weights_only=True"],
    ),
}


@pytest.mark.parametrize("prompt_id", CHECKPOINTS)
def test_a_checkpoint_folder(prompt_id, refuses, home):
    damage, words = CHECKPOINTS[prompt_id]
    damage(copy_checkpoint(home))
    refuses(3, ["run", "own.toml", "-o", "out"], home / "model", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./gone", ["./gone: no such folder"]),
        ("mimi", ["mimi: no such folder", "did you mean 'mini'"]),
        ("gone.safetensors", ["gone.safetensors: no such folder or .safetensors file"]),
        ("bad.safetensors", ["bad.safetensors: is damaged, cut short, or not a .safetensors file"]),
        ("own.safetensors", ["own.safetensors: looks like a LoRA, not a checkpoint", "loras = ["]),
        ("old.ckpt", ["old.ckpt: is a pickle", "convert it: python -c", "weights_only=True"]),
        ("random:sdlx", ["random:sdlx", "did you mean 'random:sdxl'"]),
        ("owner/name:../x.safetensors", ["owner/name:../x.safetensors", "without '..'"]),
    ],
)
def test_a_checkpoint_that_is_no_folder(name, words, refuses, home):
    (home / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (home / "bad.safetensors").write_bytes(b"\x80\x02}q\x00.")
    tiny.write_lora(home / "own.safetensors", 1)
    for field in ("checkpoint", 'checkpoint = "mini"\nvae', 'checkpoint = "mini"\nunet'):
        write_suite(home, 'checkpoint = "mini"', f'{field} = "{name}"')
        refuses(3, ["run", "own.toml", "-o", "out"], *words)


def test_a_hub_id_that_cannot_be_downloaded(refuses, home, monkeypatch):
    def offline(repository, **_):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, file, **_: offline(repository))
    write_suite(home, 'checkpoint = "mini"', 'checkpoint = "nobody/no-such-model"')
    refuses(3, ["run", "own.toml", "-o", "out"], "nobody/no-such-model", "could not be downloaded", "--weights-dir")
    write_suite(home, '"mini:spo"', '"nobody/no-such-lora:x.safetensors"')
    refuses(3, ["run", "own.toml", "-o", "out"], "nobody/no-such-lora:x.safetensors", "no network")


def change(path, **fields):
    rewrite(path, json.dumps({**json.loads(path.read_text("utf-8")), **fields}).encode())


CONFIGS = {
    "no JSON": (
        lambda model: rewrite(model / "unet" / "config.json", b"{"),
        ["config.json: is not such a configuration: Expecting"],
    ),
    "other widths": (
        lambda model: change(model / "vae" / "config.json", block_out_channels=[8, 8, 8, 8]),
        ["vae: ", "of another shape"],
    ),
}


@pytest.mark.parametrize("prompt_id", CONFIGS)
def test_a_checkpoint_whose_weights_and_configuration_differ(prompt_id, refuses, home):
    damage, words = CONFIGS[prompt_id]
    damage(copy_checkpoint(home))
    refuses(3, ["run", "own.toml", "-o", "out"], home / "model", *words)
