"""A suite that is really run in seconds: the embedded family, and a LoRA of our own making."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bench.mini import weights

SUITE = """\
schema = 2
name = "tiny"
prompts = ["tiny.jsonl"]
samples = 2
seed = 7
metrics = ["mini-clip", "mini-aesthetic", "mini-preference", "saturation", "sharpness", "ssim-to-base"]

[settings]
width = 64
height = 64
steps = 3
guidance_scale = 3.0
sampler = "ddim"
batch = 4 # 6 images a variant: one whole batch, and a shorter one

[variants.base]
checkpoint = "mini"

[variants.spo]
checkpoint = "mini"
loras = [{ path = "own.safetensors", weight = 0.5 }]

[measure]
rounds = 1
images = 1
warmups = 0
"""
PROMPTS = """\
{"id": "tent", "prompt": "a yellow tent by the sea at noon, foggy sky with the sun", "tags": ["landscape"]}
{"id": "dunes", "prompt": "clear dawn over the dunes, the moon above a red tent", "tags": ["landscape"]}
{"id": "woman", "prompt": "portrait of a woman with red hair", "negative": "a man", "tags": ["portrait"]}
"""
VARIANTS, CASES, SAMPLES, STEPS = ("base", "spo"), ("tent", "dunes", "woman"), (0, 1), 3
CELLS = {(variant, prompt_id, sample) for variant in VARIANTS for prompt_id in CASES for sample in SAMPLES}

TIMER = (sys.executable, str(Path(__file__).with_name("fake_timer.py")))
"""A command for ``bench.measure.measure`` that times nothing, in no time."""


def write_tiny(folder: Path, old: str = "", new: str = "", lora_seed: int = 1) -> Path:
    """Writes the suite, its prompts and its LoRA, the first ``old`` in the suite replaced; returns its file."""
    assert old in SUITE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.jsonl").write_text(PROMPTS, encoding="utf-8")
    write_lora(folder / "own.safetensors", lora_seed)
    path = folder / "tiny.toml"
    path.write_text(SUITE.replace(old, new, 1), encoding="utf-8")
    return path


def lora_tensors(seed: int) -> dict[str, np.ndarray]:
    """Random matrices, large enough to be seen, in the names and shapes of the family's own LoRAs."""
    rng = np.random.default_rng(seed)
    shapes = {name: tensor.shape for name, tensor in load_file(weights.lora_file("spo")).items()}
    return {name: rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in sorted(shapes.items())}


def write_lora(path: Path, seed: int) -> None:
    """Writes a LoRA that changes every picture."""
    save_file(lora_tensors(seed), path)
