"""Runs of N painted images, and a resumption from the half: ``large_work N FOLDER`` prints what they took."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import bench.render
from bench.pipeline.switch import base_of
from bench.records import Audit, CheckpointFacts, PlannedImage, Prompt, RunOptions, Settings, Suite, Variant
from bench.render.images import Drawn
from bench.run import run_stage

from .peak import peak_bytes

BATCH = 20
ENOUGH = 1_000
"""Images over which a time is taken: one short run ends before the processor has found its pace."""
SIDE = 64


class Enough(Exception):
    """The renderer has been asked for as much as is of interest."""


def suite_of(images: int) -> Suite:
    """Two variants, half of the images each."""
    return Suite(
        schema=2,
        name="painted",
        prompt_files=("painted.jsonl",),
        prompts=tuple(Prompt(id=f"case-{number:05d}", text=f"painting {number}") for number in range(images // 4)),
        samples=2,
        seed=0,
        metrics=(),
        settings=Settings(width=SIDE, height=SIDE, steps=1, guidance_scale=1.0, sampler="ddim", batch=BATCH),
        variants=(Variant(name="base", checkpoint="mini"), Variant(name="other", checkpoint="mini")),
    )


def paint(on_batch: Callable[[], None]) -> None:
    """Put a picture tinted by the seed in the place of a model's, and call ``on_batch`` for each batch asked for."""
    ramp = np.indices((SIDE, SIDE)).sum(axis=0)[..., None] * np.ones(3)

    def launch(pipe: Any, settings: Settings, images: Sequence[PlannedImage], encoded: Any) -> Any:
        on_batch()
        return SimpleNamespace(images=tuple(images))

    def settle(launched: Any, settings: Settings) -> tuple[Drawn, ...]:
        return tuple(Drawn((ramp + planned.seed % 97).astype(np.uint8), "float32", None) for planned in launched.images)

    pipe = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    audit = Audit(checkpoint=CheckpointFacts(layout="diffusers", family="sdxl"), dtype="float32")
    bench.render.switch_variant = lambda _, variant, *__, **___: (
        SimpleNamespace(base=base_of(variant), pipe=pipe, checkpoint=None),
        audit,
    )
    bench.render.encode_prompts = lambda *_: {}
    bench.render.launch, bench.render.settle = launch, settle


def main(images: int, place: Path) -> None:
    """Paint a whole run, again where it is short; then half of another one, and time its resumption."""
    suite = suite_of(images)
    walls = [wall_s(suite, place / "whole")]
    peak = peak_bytes()
    walls += [wall_s(suite, place / f"whole-{number}") for number in range(1, ENOUGH // images)]
    print_json(
        wall_s=statistics.median(walls), peak_bytes=peak, resume_start_s=resume_start_s(suite, images, place / "half")
    )


def wall_s(suite: Suite, folder: Path) -> float:
    """Seconds from the first batch to the last journal line of a run."""
    asked, recorded = list[float](), list[float]()
    paint(lambda: asked.append(time.perf_counter()))

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        recorded.append(time.perf_counter())

    run_stage("render", suite, folder, RunOptions(device="cpu"), progress=progress)
    return recorded[-1] - asked[0]


def resume_start_s(suite: Suite, images: int, folder: Path) -> float:
    """Seconds from the call to the first batch, of a run of which half is made."""
    asked = list[int]()

    def stop_at_half() -> None:
        asked.append(1)
        if len(asked) * BATCH > images / 2:
            raise Enough

    def stop() -> None:
        raise Enough

    for on_batch in (stop_at_half, stop):
        paint(on_batch)
        start = time.perf_counter()
        try:
            run_stage("render", suite, folder, RunOptions(device="cpu"))
        except Enough:
            seconds = time.perf_counter() - start
    return seconds


def print_json(**found: float) -> None:
    """The findings as one line."""
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
