"""A good suite to start from, for tests that change one thing in it."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
schema = 2
name = "own"
prompts = ["own.jsonl"]
samples = 2
seed = 7
metrics = ["mini-aesthetic", "saturation"]

[settings]
width = 64
height = 96
steps = 20
guidance_scale = 5
sampler = "ddim"
batch = 3
eta = 0.5

[variants.base]
checkpoint = "mini"

[variants.spo]
checkpoint = "mini"
loras = [{ path = "mini:spo", weight = 0.5 }]

[limits]
mini-aesthetic = "0.1sd"
end_to_end = "5% floor 20ms"
peak_allocated = "3%"

[measure]
rounds = 3
images = 4
"""
PROMPTS = '{"id":"a","prompt":"a fox","tags":["animal"]}\n{"id":"b","prompt":"a pier","negative":"blur"}\n'
METRICS = ("mini-aesthetic", "mini-clip", "saturation")


def write_suite(folder: Path, old: str = "", new: str = "") -> Path:
    """Writes the good suite and its prompts, with the first ``old`` replaced by ``new``; returns its file."""
    assert old in GOOD
    (folder / "own.jsonl").write_text(PROMPTS, encoding="utf-8")
    path = folder / "own.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    return path
