"""``score_over_encoders`` at full size: what scoring costs beyond the forwards of the encoders."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.metrics import LoadedRewardModel, Place
from bench.run import RunOptions, run_stage
from bench.score import score
from bench.store import RunFolder

from .figure import Figure, held_ratio
from .full_bench import Bench, timed
from .random_judges import PANEL


def score_over_encoders(bench_: Bench) -> Figure:
    """Wall of ``score`` with the whole panel over the bare forwards of its encoders on ready pixels and prompts.

    Images are read from PNG. The same batches on both sides, the last one padded; encoders are loaded.
    """
    size, suite = bench_.size, bench_.suite
    path = bench_.place / "scored"
    run_stage("render", suite, path, RunOptions(device=size.device))
    with RunFolder.reopen(path) as folder:
        files = [folder.path / (item.image or "") for item in folder.renders()]
        prompts = {prompt.id: prompt.text for prompt in suite.prompts}
        texts = [prompts[item.prompt_id] for item in folder.renders()]
    bare = [bare_forwards(bench_, files, texts) for _ in range(size.turns)]
    whole = [timed(size, partial(score_all, bench_, path, turn)) for turn in range(size.turns)]
    return held_ratio("score_over_encoders", whole, bare, "<=", 1.25)


def score_all(bench_: Bench, path: Path, turn: int) -> None:
    """Every score of the panel, though there may be some already: from a copy of the journals without them."""
    copy = shutil.copytree(path, bench_.place / f"scored-{turn}")
    with RunFolder.reopen(copy) as folder:
        score(
            folder,
            metrics=PANEL,
            device=bench_.size.device,
            weights_dir=bench_.weights,
            registry=bench_.registry,
        )
        if any(item.value is None for item in folder.scores()):
            raise SystemExit(f"No score: {next(item.reason for item in folder.scores() if item.value is None)}")


@torch.inference_mode()
def bare_forwards(bench_: Bench, files: Sequence[Path], texts: Sequence[str]) -> float:
    """Seconds of the encoders' forwards alone: each distinct prompt once, each image once a view."""
    size, seconds = bench_.size, 0.0
    for name, encoder in bench_.registry.encoders.items():
        judge: Any = encoder.load(Place(size.device, bench_.weights))
        metrics = [metric for metric in bench_.registry.metrics.values() if metric.facts.encoder == name]
        images = [Image.open(file).convert("RGB") for file in files]
        rows = [judge.preprocess(image, metrics[0].preprocessing) for image in images]
        joint = isinstance(judge, LoadedRewardModel)
        prompts = list(dict.fromkeys(texts))

        def forward(judge: Any = judge, rows: list[Any] = rows, joint: bool = joint, own: list[str] = prompts) -> None:
            for start in range(0, len(rows), judge.batch):
                pixels = torch.stack(padded(rows[start : start + judge.batch], judge.batch)).to(size.device)
                if joint:
                    judge.score(pixels, padded(list(texts[start : start + judge.batch]), judge.batch))
                else:
                    judge.embed_images(pixels)
            for start in range(0, 0 if joint else len(own), judge.batch):
                judge.embed_texts(padded(own[start : start + judge.batch], judge.batch))

        forward()
        seconds += timed(size, forward)
    return seconds


def padded(rows: list[Any], to: int) -> list[Any]:
    """Rows with the last one repeated, to a full batch."""
    return rows + [rows[-1]] * (to - len(rows))
