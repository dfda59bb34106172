"""A run of the embedded family whose prompts are encoded and whose images are painted: ``encode_work.py N FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

import bench.render
from bench.records import Prompt, RunOptions, Settings
from bench.render.images import Drawn
from bench.run import run_stage

from .large_work import BATCH, SIDE, suite_of
from .peak import peak_bytes


def main(prompts: int, place: Path) -> None:
    """Draw one variant of so many prompts, encoded as they are in any run; print the peak of resident memory."""
    ramp = np.indices((SIDE, SIDE)).sum(axis=0)[..., None] * np.ones(3)

    def launch(pipe: Any, settings: Settings, images: Sequence[Any], encoded: Any) -> Any:
        bench.render.stages.stack([encoded[image.prompt_id] for image in images])
        return SimpleNamespace(images=tuple(images))

    def settle(launched: Any, settings: Settings) -> tuple[Drawn, ...]:
        return tuple(Drawn((ramp + planned.seed % 97).astype(np.uint8), "float32", None) for planned in launched.images)

    bench.render.launch, bench.render.settle = launch, settle
    suite = suite_of(BATCH)
    suite = msgspec.structs.replace(
        suite,
        prompts=tuple(Prompt(id=f"p{n:05d}", text=f"a red tent by lake {n}", negative="blur") for n in range(prompts)),
        samples=1,
        variants=suite.variants[:1],
        settings=msgspec.structs.replace(suite.settings, guidance_scale=3.0),
    )
    run_stage("render", suite, place, RunOptions(device="cpu"))
    sys.stdout.write(json.dumps({"peak_bytes": peak_bytes()}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
