"""What a worker does: hold one pipeline on its device and draw the batches it is given. Runs in a Ray actor."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.checkpoints.fingerprint import fingerprint
from bench.errors import WeightsError
from bench.machine import is_out_of_memory, machine_facts, package_versions, pick_device, spare_collector
from bench.records import Audit, Machine, PlannedImage, Suite, Variant

if TYPE_CHECKING:
    from bench.pipeline.switch import Model


class Environment(NamedTuple):
    """Where a worker draws: what must agree for images to be of one kind."""

    machine: Machine
    packages: dict[str, str]


class DrawnResult(NamedTuple):
    """One image as it travels: the bytes of its PNG, or why there are none."""

    png: bytes | None
    decode_dtype: str
    error: str | None


class BatchResult(NamedTuple):
    """A batch that was drawn."""

    pieces: tuple[DrawnResult, ...]
    audit: Audit | None
    """What was loaded and changed for its variant, where that was asked for, as the next."""
    doubt: str = ""
    """What this batch tells of the others."""


class RenderWorker:
    """One worker. Its methods run one after another.

    Args:
        suite: what is drawn.
        device: ``cpu`` or ``cuda``; Ray shows each worker the one GPU that is its own.
        threads: what torch may use on the CPU; it changes pixels there.
        weights_dir: local weights instead of downloads, at the same path on every machine.
    """

    def __init__(self, suite: Suite, device: str, threads: int, weights_dir: str | None) -> None:
        spare_collector()
        import torch

        torch.set_num_threads(threads)
        self._suite, self._device = suite, device
        self._weights_dir = None if weights_dir is None else Path(weights_dir)
        self._loaded: str | None = None
        self._model: Model | None = None
        self._audit: Audit | None = None
        self._encoded: dict[str, Any] = {}

    def environment(self) -> Environment:
        """Device and packages of this worker; first of all calls.

        Raises:
            UsageError: there is no such device here.
        """
        self._device = pick_device(self._device)
        return Environment(machine_facts(self._device), package_versions())

    def largest_batch(self) -> int:
        """The largest batch that this worker's device holds, where the suite leaves it open.

        Raises:
            OutOfMemory, WeightsError: as ``bench.render.largest_batch``.
        """
        from bench.render import largest_batch

        return largest_batch(self._suite, device=self._device, weights_dir=self._weights_dir)

    def draw(self, variant: Variant, digest: str, cells: Sequence[PlannedImage], with_audit: bool) -> BatchResult:
        """Draw one batch.

        Args:
            variant: turned into, where the worker holds another one.
            digest: what the driver knows the variant's weights by.
            cells: the batch.
            with_audit: say also what was loaded and changed for the variant.

        Raises:
            WeightsError: the variant cannot be loaded here, or has other weights than on the driver.
            OutOfMemory: the device cannot hold the batch.
        """
        from bench.render import too_large

        try:
            return self._draw(variant, digest, cells, with_audit)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self._suite, self._suite.settings.batch or 1, self._device) from error

    def _draw(self, variant: Variant, digest: str, cells: Sequence[PlannedImage], with_audit: bool) -> BatchResult:
        from bench.pipeline import denoise as stages
        from bench.render import draw_batch, encode_cases, encode_png, first_batch_doubt, with_pixels

        model, audit = self._hold(variant, digest)
        if with_audit:
            audit = with_pixels(model, variant, self._suite, audit, self._weights_dir)
        # A prompt whose samples go on into the next batch is not encoded twice.
        known = {cell.prompt_id: self._encoded[cell.prompt_id] for cell in cells if cell.prompt_id in self._encoded}
        self._encoded = encode_cases(model.pipe, self._suite, [cells], known)
        drawn = draw_batch(model.pipe, self._suite.settings, cells, self._encoded)
        with ThreadPoolExecutor() as pool:
            pngs = list(pool.map(lambda image: None if image.pixels is None else encode_png(image.pixels), drawn))
        pieces = tuple(
            DrawnResult(png, image.decode_dtype, image.error) for png, image in zip(pngs, drawn, strict=True)
        )
        settings = self._suite.settings
        doubt = first_batch_doubt(drawn, settings, stages.decode_dtype_name(model.pipe, settings))
        return BatchResult(pieces, audit if with_audit else None, doubt if with_audit else "")

    def _hold(self, variant: Variant, digest: str) -> tuple[Model, Audit]:
        from bench.pipeline.switch import switch_variant

        if self._model is not None and self._audit is not None and self._loaded == digest:
            return self._model, self._audit
        self._loaded, self._encoded = None, {}
        if fingerprint(variant, self._weights_dir).digest != digest:
            raise WeightsError(
                f"The worker on {platform.node()} has other weights for variant {variant.name} than the driver.",
                "give every machine the same files, or a --weights-dir that all of them see",
            )
        held, self._model = self._model, None  # half turned, it would be neither the one nor the other
        settings = self._suite.settings
        model, audit = switch_variant(held, variant, settings, device=self._device, weights_dir=self._weights_dir)
        self._model, self._audit, self._loaded = model, audit, digest
        return model, audit
