"""What a worker does: hold one pipeline on its device and draw the batches it is given. Runs in a Ray actor."""

from __future__ import annotations

import gc
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import WeightsError
from bench.machine import machine_facts, package_versions, pick_device
from bench.records import Cell, Machine, Suite, Variant
from bench.variants import fingerprint, load_pipeline


class Ground(NamedTuple):
    """Where a worker draws: what must agree for images to be of one kind."""

    machine: Machine
    packages: dict[str, str]


class Piece(NamedTuple):
    """One image as it travels: the bytes of its PNG, or why there are none."""

    png: bytes | None
    decode_dtype: str
    error: str | None


class Painter:
    """One worker. Its methods run one after another.

    Args:
        suite: what is drawn.
        device: ``cpu`` or ``cuda``; Ray shows each worker the one GPU that is its own.
        threads: what torch may use on the CPU; it changes pixels there.
        weights_dir: local weights instead of downloads, at the same path on every machine.
    """

    def __init__(self, suite: Suite, device: str, threads: int, weights_dir: str | None) -> None:
        import torch

        torch.set_num_threads(threads)
        self._suite, self._device = suite, device
        self._weights_dir = None if weights_dir is None else Path(weights_dir)
        self._loaded: str | None = None
        self._pipe: Any = None
        self._encoded: dict[str, Any] = {}

    def ground(self) -> Ground:
        """Device and packages of this worker; first of all calls.

        Raises:
            UsageError: there is no such device here.
        """
        self._device = pick_device(self._device)
        return Ground(machine_facts(self._device), package_versions())

    def draw(self, variant: Variant, digest: str, cells: Sequence[Cell]) -> tuple[Piece, ...]:
        """Draw one batch; ``digest`` is what the driver knows the variant's weights by.

        Raises:
            WeightsError: the variant cannot be loaded here, or has other weights than on the driver.
        """
        from bench.render import draw_batch, encode_cases, encode_png

        if self._loaded != digest:
            self._load(variant, digest)
        # A prompt whose samples go on into the next batch is not encoded twice.
        known = {cell.case: self._encoded[cell.case] for cell in cells if cell.case in self._encoded}
        unknown = tuple(cell for cell in cells if cell.case not in known)
        self._encoded = known | encode_cases(self._pipe, self._suite, [unknown])
        drawn = draw_batch(self._pipe, self._suite.settings, cells, self._encoded)
        with ThreadPoolExecutor() as pool:
            pngs = list(pool.map(lambda image: None if image.pixels is None else encode_png(image.pixels), drawn))
        return tuple(Piece(png, image.decode_dtype, image.error) for png, image in zip(pngs, drawn, strict=True))

    def _load(self, variant: Variant, digest: str) -> None:
        self._loaded, self._pipe, self._encoded = None, None, {}
        gc.collect()
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
        if fingerprint(variant, self._weights_dir).digest != digest:
            raise WeightsError(
                f"The worker on {platform.node()} has other weights for variant {variant.name} than the driver.",
                "give every machine the same files, or a --weights-dir that all of them see",
            )
        self._pipe = load_pipeline(variant, self._suite.settings, device=self._device, weights_dir=self._weights_dir)
        self._loaded = digest
