"""A run that takes seconds: a small suite, and a worker in the place of the model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

import bench.render
from bench.records import Audit, CheckpointFacts, LoraAudit, Prompt, Settings, Suite, Variant
from bench.render.images import Drawn, Launched

SUITE = Suite(
    schema=2,
    name="painted",
    prompt_files=("p.jsonl",),
    prompts=(Prompt(id="a", text="a fox"), Prompt(id="b", text="a pier")),
    samples=2,
    seed=3,
    metrics=("saturation",),
    settings=Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler="ddim", batch=3),
    variants=(Variant(name="base", checkpoint="mini"), Variant(name="other", checkpoint="mini")),
    source="painted.toml",
)


PIPE = SimpleNamespace(device=SimpleNamespace(type="cpu"))


class RenderWorker:
    """Paints an image from its seed; counts the batches of each variant."""

    def __init__(self):
        self.loaded = []
        self.batches = 0
        self.error = None

    def switch_variant(self, model, variant, settings, *, device, weights_dir=None):
        self.loaded.append(variant.name)
        checkpoint = CheckpointFacts(layout="diffusers", family="sdxl")
        loras = tuple(
            LoraAudit(path=lora.path, layout="diffusers", keys=2, applied={"unet": 2}, modules=())
            for lora in variant.loras
        )
        return SimpleNamespace(pipe=PIPE, base=None), Audit(checkpoint=checkpoint, dtype="float32", loras=loras)

    def launch(self, pipe, settings, cells, encoded):
        self.batches += 1
        return Launched(cells, None, None)

    def settle(self, launched, settings):
        shape = (settings.height, settings.width, 3)
        return tuple(
            Drawn(
                None if self.error else np.random.default_rng(image.seed).integers(0, 256, shape, np.uint8),
                "float32",
                self.error,
            )
            for image in launched.images
        )


def paint(monkeypatch) -> RenderWorker:
    """Puts a worker in the place of the model, for as long as the test runs."""
    stand_in = RenderWorker()
    monkeypatch.setattr(bench.render, "switch_variant", stand_in.switch_variant)
    monkeypatch.setattr(bench.render, "encode_prompts", lambda pipe, suite, batches, known: {})
    monkeypatch.setattr(bench.render, "launch", stand_in.launch)
    monkeypatch.setattr(bench.render, "settle", stand_in.settle)
    monkeypatch.setattr(bench.render, "with_pixel_difference", lambda model, variant, suite, audit: audit)
    return stand_in
