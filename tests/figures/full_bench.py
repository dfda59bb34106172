"""What the figures of a full-size run share: its size, its suite and metrics on random weights, the clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from bench.metrics import Encoder, Place, Registry
from bench.records import Dtype, Lora, Settings, Suite, Variant
from bench.suite import load_suite
from tests.metrics.official_imagereward import Layout
from tests.metrics.official_layouts import SMALL_H14, SMALL_L14

from .merge_work import write_lora
from .random_metrics import PANEL, PUBLISHED_SIZES, Sizes, panel_of, unpinned, write_weights


@dataclass(frozen=True)
class Size:
    """How large the run is, and where it computes."""

    device: str
    shape: str
    """Of the random checkpoint."""
    side_px: int
    steps: int
    prompts: int
    samples: int
    batch: int
    dtype: Dtype
    metrics: Sizes
    turns: int = 3
    compile: bool = False


FULL = Size("cuda", "sdxl", 1024, 30, 16, 2, 8, "bfloat16", PUBLISHED_SIZES, compile=True)
TINY = Size("cpu", "tiny", 64, 2, 2, 1, 2, "float32", Sizes(SMALL_L14, SMALL_H14, Layout()), turns=1)


@dataclass(frozen=True)
class Bench:
    """What every figure of one size works with."""

    size: Size
    place: Path
    suite: Suite
    registry: Registry
    """The panel on encoders that are in memory already."""

    @property
    def weights(self) -> Path:
        """Where the metrics' weights are."""
        return self.place / "weights"


@contextmanager
def set_up(size: Size, place: Path) -> Iterator[Bench]:
    """Random LoRAs, weights of the metrics and the suite; about 12 GB of disk at full size."""
    for number in (1, 2):
        write_lora(place / f"lora-{number}.safetensors", size.shape, seed=number)
    write_weights(place / "weights", size.metrics)
    with unpinned(place / "weights"), nothing_compiled(place):
        yield Bench(size, place, suite_of(size, place), loaded(panel_of(size.metrics), size, place / "weights"))


@contextmanager
def nothing_compiled(place: Path) -> Iterator[None]:
    """What torch compiles is kept under ``place`` meanwhile, so that nothing of an earlier day makes it look quick."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / "compiled")
    try:
        yield
    finally:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def suite_of(size: Size, place: Path) -> Suite:
    """A base and two variants with a LoRA fused, on the first prompts of the SDXL suite."""
    base = Variant(name="base", checkpoint=f"random:{size.shape}")
    loras = [(Lora(path=str(place / f"lora-{number}.safetensors"), weight=0.8),) for number in (1, 2)]
    known = load_suite("sdxl")
    return msgspec.structs.replace(
        known,
        name="full-size",
        prompts=known.prompts[: size.prompts],
        samples=size.samples,
        metrics=PANEL,
        limits=(),
        settings=Settings(
            width=size.side_px,
            height=size.side_px,
            steps=size.steps,
            guidance_scale=5.0,
            sampler="ddim",
            dtype=size.dtype,
            batch=size.batch,
            compile=size.compile,
        ),
        variants=(base, *(msgspec.structs.replace(base, name=f"lora-{n}", loras=lora) for n, lora in enumerate(loras))),
    )


def loaded(registry: Registry, size: Size, weights: Path) -> Registry:
    """The registry with its encoders in memory, so that loading is no part of a figure."""
    place = Place(size.device, weights)
    encoders = {name: encoder.load(place) for name, encoder in registry.encoders.items()}
    kept = {name: Encoder(name, lambda _, encoder=encoder: encoder) for name, encoder in encoders.items()}
    return replace(registry, encoders=kept)


def timed(size: Size, work: Callable[[], Any]) -> float:
    """Wall seconds until the device has done it."""
    settle(size)
    start = time.perf_counter()
    work()
    settle(size)
    return time.perf_counter() - start


def settle(size: Size) -> None:
    """Wait until the device has done its work."""
    if size.device == "cuda":
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """What a figure was measured on."""
    return torch.cuda.get_device_name() if device == "cuda" else device
