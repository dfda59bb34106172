"""Score steps and print the peak resident memory in bytes: ``steps_work prompts IMAGES`` or ``steps_work steps STEPS``.

With ``prompts`` a painter takes the place of the pipeline, at 20 steps an image; with ``steps`` 16 images of the
embedded family are drawn, and so many of their 20 steps scored, the last ones.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from bench.pictures.png import pack
from bench.pipeline.switch import base_of
from bench.records import Audit, CheckpointFacts, RunOptions, StepPlan, StepScore
from bench.run import run_stage
from bench.steps import paths
from bench.steps.paths import Painted
from bench.steps.plan import StepJob
from bench.suite import load_suite

from .large_work import SIDE, suite_of
from .peak import peak_bytes

METRIC, STEPS, PROMPTS = "mini-preference", 20, 8


class Painter:
    """Stands in for ``StepPainter``: a picture tinted by the seed, and a score of each step."""

    def __init__(self, *_: Any) -> None:
        self._ramp = np.indices((SIDE, SIDE)).sum(axis=0)[..., None] * np.ones(3)

    def paint(self, pipe: Any, job: StepJob) -> Painted:
        """A batch as ``StepPainter.paint`` would give it."""
        pictures = [(self._ramp + image.seed % 97).astype(np.uint8) for image in job.images]
        scores = [
            StepScore(
                variant=job.variant,
                prompt_id=image.prompt_id,
                sample=image.sample,
                step=step,
                timestep=1000.0 - step,
                sigma=1.0,
                metric=METRIC,
                version="1",
                image_sha256=None,
                value=image.seed % 89 / step,
            )
            for image in job.images
            for step in job.steps
        ]
        return Painted(tuple(pack(pixels, "float32", None) for pixels in pictures), tuple(scores), ())


def switched(_: Any, variant: Any, *__: Any, **___: Any) -> tuple[Any, Audit]:
    """Stands in for ``switch_variant``: no model."""
    audit = Audit(checkpoint=CheckpointFacts(layout="diffusers", family="sdxl"), dtype="float32")
    return SimpleNamespace(base=base_of(variant), pipe=None, checkpoint=None), audit


def many_prompts(images: int, place: Path) -> None:
    """Score 20 steps of painted images."""
    paths.switch_variant, paths.StepPainter = switched, Painter
    paths.open_scorers = lambda *_, **__: ()
    paths.with_pixel_difference = lambda model, variant, suite, audit: audit
    suite = suite_of(images)
    suite = msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, steps=STEPS))
    score_all(suite, place, range(1, STEPS + 1))


def many_steps(steps: int, place: Path) -> None:
    """Draw a batch of the embedded family and score its last steps."""
    suite = load_suite("mini", limit=PROMPTS)
    suite = msgspec.structs.replace(suite, variants=suite.variants[:1])
    score_all(suite, place, range(STEPS - steps + 1, STEPS + 1))


def score_all(suite: Any, place: Path, steps: Sequence[int]) -> None:
    """The stage ``steps`` of a run that has nothing yet."""
    plan = StepPlan(metrics=(METRIC,), at=tuple(steps))
    run_stage("steps", suite, place, RunOptions(device="cpu", steps=plan))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        {"prompts": many_prompts, "steps": many_steps}[sys.argv[1]](int(sys.argv[2]), Path(folder) / "run")
    sys.stdout.write(f"{peak_bytes()}\n")
