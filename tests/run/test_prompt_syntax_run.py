"""The embedded family drawn with prompts in A1111's syntax, end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.metrics.registry import installed
from bench.score.plan import plan_scores
from bench.store import load_run
from bench.suite import load_suite

SUITE = """\
schema = 2
name = "weights"
prompts = ["own.jsonl"]
metrics = ["mini-clip", "saturation"]
[settings]
width = 64
height = 64
steps = 2
guidance_scale = 3.0
sampler = "ddim"
batch = 3
prompt_syntax = "SYNTAX"
embeddings = "emb"
[variants.base]
checkpoint = "mini"
[variants.spo]
checkpoint = "mini"
loras = [{ path = "mini:spo", weight = 1.0 }]
[measure]
rounds = 0
"""
PROMPTS = """\
{"id": "tent", "prompt": "a (yellow:1.4) tent by the sea, [clouds]", "negative": "(a man:1.2) BREAK a boat"}
{"id": "long", "prompt": "clear dawn over the dunes BREAK the moon BREAK a red tent, embedding:whale"}
{"id": "woman", "prompt": "portrait of a woman with red hair"}
"""


def write(folder: Path, syntax: str, seed: int = 0) -> Path:
    (folder / "emb").mkdir(parents=True, exist_ok=True)
    (folder / "own.jsonl").write_text(PROMPTS, encoding="utf-8")
    torch.manual_seed(seed)
    rows = {"clip_l": torch.randn(2, 64) * 0.05, "clip_g": torch.randn(2, 128) * 0.05}
    save_file(rows, folder / "emb" / "whale.safetensors")
    path = folder / "own.toml"
    text = SUITE.replace("SYNTAX", syntax)
    path.write_text(text.replace('embeddings = "emb"\n', "") if syntax == "plain" else text, encoding="utf-8")
    return path


def pixels(run: Path) -> dict[tuple[str, str], Any]:
    return {(one.variant, one.prompt_id): one.pixels_sha256 for one in load_run(run).renders}


@pytest.mark.parametrize("syntax", ["a1111", "comfyui"])
def test_prompts_of_another_program_are_drawn_and_scored(syntax: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    suite, run = write(tmp_path, syntax), tmp_path / "run"
    answer = cli("render", suite, "-o", run, "--device", "cpu")
    assert answer.code == 0
    assert "Prompts use the embeddings whale." in answer.err
    loaded = load_run(run)
    (used,) = loaded.info.suite.settings.embeddings
    assert used.name == "whale"
    assert used.sha256 == load_suite(str(suite)).settings.embeddings[0].sha256
    mini_clip = installed().metrics["mini-clip"]
    _, jobs = plan_scores(loaded, [mini_clip])
    words = {job.render.prompt_id: job.prompt for job in jobs}
    assert words["tent"] == (
        "a yellow tent by the sea, clouds" if syntax == "a1111" else "a yellow tent by the sea, [clouds]"
    )
    assert "whale" not in words["long"]
    assert cli("score", run).code == 0
    assert cli("render", write(tmp_path / "plain", "plain"), "-o", tmp_path / "other", "--device", "cpu").code == 0
    mine, plain = pixels(run), pixels(tmp_path / "other")
    assert mine["base", "tent"] != plain["base", "tent"]
    assert mine["base", "long"] != plain["base", "long"]


def test_another_embedding_of_that_name_is_another_protocol(tmp_path: Path, cli: Callable[..., Any]) -> None:
    suite, run = write(tmp_path, "a1111"), tmp_path / "run"
    assert cli("render", suite, "-o", run, "--device", "cpu", "--variants", "base").code == 0
    write(tmp_path, "a1111", seed=1)
    answer = cli("render", suite, "-o", run, "--device", "cpu")
    assert answer.code == 4
    assert "settings.embeddings is {'whale': " in answer.err
