"""One run of N painted images and its resumption from the half: ``large_work N FOLDER`` prints what they took."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bench.render
from bench.records import Case, Cell, Settings, Suite, Variant
from bench.render import Drawn
from bench.run import run_stage

BATCH = 20
SIDE = 64


class Enough(Exception):
    """The renderer has been asked for as much as is of interest."""


def suite_of(images: int) -> Suite:
    """Two variants, half of the images each."""
    return Suite(
        schema=1,
        name="painted",
        prompts=("painted.jsonl",),
        cases=tuple(Case(id=f"case-{number:05d}", prompt=f"painting {number}") for number in range(images // 4)),
        samples=2,
        seed=0,
        metrics=(),
        settings=Settings(width=SIDE, height=SIDE, steps=1, guidance=1.0, sampler="ddim", batch=BATCH),
        variants=(Variant(name="base", checkpoint="mini"), Variant(name="other", checkpoint="mini")),
    )


def painting(on_batch: Callable[[], None]) -> Callable[..., tuple[Drawn, ...]]:
    """Stands for ``bench.render.draw_batch``: one picture, tinted by the seed."""
    ramp = np.indices((SIDE, SIDE)).sum(axis=0)[..., None] * np.ones(3)

    def draw(pipe: Any, settings: Settings, cells: Sequence[Cell], encoded: Any) -> tuple[Drawn, ...]:
        on_batch()
        return tuple(Drawn((ramp + cell.seed % 97).astype(np.uint8), "float32", None) for cell in cells)

    return draw


def main(images: int, place: Path) -> None:
    """Paint a whole run; then half of another one, and time its resumption."""
    bench.render.load_pipeline = lambda *_, **__: None
    bench.render.encode_cases = lambda *_, **__: {}
    suite, asked, recorded = suite_of(images), list[float](), list[float]()
    bench.render.draw_batch = painting(lambda: asked.append(time.perf_counter()))

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        recorded.append(time.perf_counter())

    run_stage("render", suite, place / "whole", device="cpu", progress=progress)
    wall_s = recorded[-1] - asked[0]
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print_json(wall_s=wall_s, peak_bytes=peak_bytes, resume_start_s=resume_start_s(suite, images, place / "half"))


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
        bench.render.draw_batch = painting(on_batch)
        start = time.perf_counter()
        try:
            run_stage("render", suite, folder, device="cpu")
        except Enough:
            seconds = time.perf_counter() - start
    return seconds


def print_json(**found: float) -> None:
    """The findings as one line."""
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
