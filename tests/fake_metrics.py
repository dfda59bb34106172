"""A small convolutional encoder, metrics on it and on pixels, and a rendered run folder to score with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from fakes import make_run, write_run
from PIL import Image

from bench.metrics import Encoder, Inputs, Metric, Place, Registry, metric, registry_of
from bench.metrics.pixels import clipped, contrast, saturation, sharpness, ssim_to_base
from bench.records import MetricFacts, Score
from bench.store import RunFolder

WIDTH = 24
CUT = 1000
"""Longest prompt in characters that an encoder reads whole."""
PIXEL_METRICS = (saturation, contrast, sharpness, clipped, ssim_to_base)


class ConvTower:
    """Two convolutions and a projection; text is a projected histogram of bytes. Notes what it is asked."""

    def __init__(self, seed: int, batch: int, images: list[Any], texts: list[str]) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.randn(16, 3, 5, 5, generator=draw) * 0.2
        self.second = torch.randn(16, 16, 3, 3, generator=draw) * 0.1
        self.image_out = torch.randn(16, WIDTH, generator=draw)
        self.text_out = torch.randn(256, WIDTH, generator=draw)
        self.batch, self.logit_scale = batch, 100.0
        self.images, self.texts = images, texts

    def preprocess(self, image: Image.Image, preprocessing: str = "") -> torch.Tensor:
        image = image.convert("RGB")
        self.images.append(image.tobytes())
        resized = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR), dtype=np.float32)
        return torch.from_numpy(resized.copy()).permute(2, 0, 1).div(255)

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape == (self.batch, 3, 20, 20)
        hidden = torch.conv2d(pixels, self.first, stride=2).relu()
        hidden = torch.conv2d(hidden, self.second).relu().mean(dim=(2, 3))
        return torch.nn.functional.normalize(hidden @ self.image_out, dim=1)

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        assert len(prompts) == self.batch
        self.texts += prompts
        counts = [np.bincount(list(prompt.encode()), minlength=256) for prompt in prompts]
        histogram = torch.from_numpy(np.stack(counts).astype(np.float32))
        return torch.nn.functional.normalize(histogram @ self.text_out, dim=1)

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        return [len(prompt) > CUT for prompt in prompts]


def facts(name: str, encoder: str | None = None, version: str = "1") -> MetricFacts:
    return MetricFacts(
        name=name,
        version=version,
        summary="For a test.",
        unit="points",
        higher_is_better=True,
        low=None,
        high=None,
        category="alignment" if encoder else "pixels",
        encoder=encoder,
        trained_on=(),
        training_data="nothing",
        licence="none",
        reference="none",
    )


class FakeMetrics:
    """A registry with the encoders ``conv`` (batch 4) and ``other`` (batch 3), and a count of what they did."""

    def __init__(self, *more: Metric | Encoder) -> None:
        self.images: list[Any] = []
        self.texts: list[str] = []
        self.loads: list[str] = []

        def load(name: str, seed: int, batch: int) -> Callable[[Place], ConvTower]:
            def loader(place: Place) -> ConvTower:
                self.loads.append(name)
                return ConvTower(seed, batch, self.images, self.texts)

            return loader

        self.encoders = (Encoder("conv", load("conv", 1, 4)), Encoder("other", load("other", 2, 3)))
        self.registry: Registry = registry_of(*PIXEL_METRICS, *self.encoders, ALIGNMENT, BEAUTY, OTHER_ALIGNMENT, *more)


def _cosine(inputs: Inputs) -> torch.Tensor:
    assert inputs.image_embeds is not None
    assert inputs.text_embeds is not None
    return inputs.logit_scale * (inputs.image_embeds * inputs.text_embeds).sum(dim=1)


def _regress(inputs: Inputs) -> torch.Tensor:
    assert inputs.image_embeds is not None
    assert inputs.text_embeds is None
    return (inputs.image_embeds @ inputs.head).squeeze(1)


def _load_head(place: Place) -> torch.Tensor:
    return torch.linspace(-1, 1, WIDTH).unsqueeze(1)


ALIGNMENT = metric(facts("alignment", "conv"))(_cosine)
BEAUTY = metric(facts("beauty", "conv"), load_head=_load_head, needs_text=False)(_regress)
OTHER_ALIGNMENT = metric(facts("other-alignment", "other"))(_cosine)

ALL = (
    "saturation",
    "contrast",
    "sharpness",
    "clipped",
    "ssim-to-base",
    "alignment",
    "beauty",
    "other-alignment",
)


Values = dict[tuple[str, str, int, str], float | None]


def rendered(path: Path, *, metrics: Sequence[str] = ALL, **kind: Any) -> RunFolder:
    """A run folder with images and no scores, opened."""
    run = make_run(path, **{"prompts": 5, **kind})
    suite = msgspec.structs.replace(run.info.suite, metrics=tuple(metrics))
    info = msgspec.structs.replace(run.info, suite=suite, metrics=())
    write_run(msgspec.structs.replace(run, info=info, scores=()), path)
    return RunFolder.reopen(path)


def put_image(folder: RunFolder, cell: tuple[str, str, int], png: bytes | None, error: str = "failed") -> None:
    """Record that a cell was rendered anew: as these bytes or, with None, not at all."""
    (old,) = [item for item in folder.renders() if (item.variant, item.prompt_id, item.sample) == cell]
    image, sha256 = (None, None) if png is None else folder.write_image(*cell, png)
    why = error if png is None else None
    new = msgspec.structs.replace(old, image=image, sha256=sha256, pixels_sha256=sha256, error=why)
    assert sha256 is None or sha256 == hashlib.sha256(png or b"").hexdigest()
    folder.append_renders([new])


def values(folder: RunFolder) -> Values:
    return {(s.variant, s.prompt_id, s.sample, s.metric): s.value for s in folder.scores()}


def of_metric(folder: RunFolder, name: str) -> list[Score]:
    return [item for item in folder.scores() if item.metric == name]


def nulls(folder: RunFolder, name: str) -> dict[tuple[str, str, int], str | None]:
    """The reasons of a metric's nulls by (variant, prompt, sample)."""
    found = [item for item in of_metric(folder, name) if item.value is None]
    return {(item.variant, item.prompt_id, item.sample): item.reason for item in found}


def journal_lines(folder: RunFolder) -> int:
    path = folder.path / "scores.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0
