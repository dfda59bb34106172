"""What a worker does: hold one pipeline on its device and draw the batches it is given. Runs in a Ray actor.

Imports torch, so that the driver imports it only to start a worker.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.checkpoints.fingerprint import fingerprint
from bench.errors import WeightsError
from bench.machine import is_out_of_memory, machine_facts, package_versions, pick_device, spare_collector
from bench.metrics.declare import Place
from bench.metrics.registry import installed
from bench.pictures.png import pack
from bench.pipeline import denoise
from bench.pipeline.switch import Model, switch_variant
from bench.records import Audit, PlannedImage, Suite, Variant
from bench.render import (
    draw_batch,
    encode_prompts,
    first_batch_warning,
    largest_batch,
    too_large,
    with_pixel_difference,
)
from bench.steps.paths import Painted, StepPainter
from bench.steps.plan import StepJob
from bench.steps.scorers import open_scorers

if TYPE_CHECKING:
    from bench.ray_workers.pool import Drawing, Environment


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
        torch.set_num_threads(threads)
        self._suite, self._device = suite, device
        self._weights_dir = None if weights_dir is None else Path(weights_dir)
        self._loaded: tuple[str, Model, Audit] | None = None
        """Digest of the variant, its pipeline, and what was loaded and changed for it."""
        self._encoded: dict[str, Any] = {}
        self._painters: dict[tuple[str, ...], StepPainter] = {}
        """By the metrics that score steps."""

    def environment(self) -> Environment:
        """Device and packages of this worker; first of all calls.

        Raises:
            UsageError: there is no such device here.
        """
        self._device = pick_device(self._device)
        return machine_facts(self._device), package_versions()

    def largest_batch(self) -> int:
        """The largest batch that this worker's device holds, where the suite leaves it open.

        Raises:
            OutOfMemory, WeightsError: as ``bench.render.largest_batch``.
        """
        return largest_batch(self._suite, device=self._device, weights_dir=self._weights_dir)

    def draw(self, variant: Variant, digest: str, images: Sequence[PlannedImage], with_audit: bool) -> Drawing:
        """Draw one batch.

        Args:
            variant: loaded, where the worker holds another one.
            digest: what the driver knows the variant's weights by.
            images: the batch.
            with_audit: return the audit and the warning too.

        Raises:
            WeightsError: the variant cannot be loaded here, or has other weights than on the driver.
            OutOfMemory: the device cannot hold the batch.
        """
        try:
            return self._draw(variant, digest, images, with_audit)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self._suite, self._suite.settings.batch or 1, self._device) from error

    def _draw(self, variant: Variant, digest: str, images: Sequence[PlannedImage], with_audit: bool) -> Drawing:
        model, audit = self._load(variant, digest)
        suite, settings = self._suite, self._suite.settings
        if with_audit:
            audit = with_pixel_difference(model, variant, suite, audit)
        # A prompt whose samples go on into the next batch is not encoded twice.
        known = {one.prompt_id: self._encoded[one.prompt_id] for one in images if one.prompt_id in self._encoded}
        self._encoded = encode_prompts(model.pipe, suite, [images], known)
        drawn = draw_batch(model.pipe, settings, images, self._encoded)
        with ThreadPoolExecutor() as pool:
            results = tuple(pool.map(lambda one: pack(*one), drawn))
        if not with_audit:
            return results, None, ""
        return results, audit, first_batch_warning(drawn, settings, denoise.decode_dtype_name(model.pipe, settings))

    def paint(self, variant: Variant, digest: str, job: StepJob) -> Painted:
        """Draw one batch and score its steps; errors as ``draw``.

        Raises:
            UsageError: a metric is for another family than the checkpoint's.
        """
        try:
            model, audit = self._load(variant, digest)
            if job.metrics not in self._painters:
                place, family = Place(self._device, self._weights_dir), audit.checkpoint.family
                scorers = open_scorers(job.metrics, registry=installed(), place=place, family=family)
                self._painters = {job.metrics: StepPainter(self._suite, scorers)}
            return self._painters[job.metrics].paint(model.pipe, job)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self._suite, self._suite.settings.batch or 1, self._device) from error

    def _load(self, variant: Variant, digest: str) -> tuple[Model, Audit]:
        if self._loaded is not None and self._loaded[0] == digest:
            return self._loaded[1:]
        if fingerprint(variant, self._weights_dir).digest != digest:
            raise WeightsError(
                f"The worker on {platform.node()} has other weights for variant {variant.name} than the driver"
                + (", or another version of what its runtime is run with." if variant.runtime else "."),
                "give every machine the same files, or a --weights-dir that all of them see",
            )
        model = None if self._loaded is None else self._loaded[1]
        self._loaded, self._encoded = None, {}  # half switched, a pipeline is of neither variant
        settings = self._suite.settings
        loaded = switch_variant(model, variant, settings, device=self._device, weights_dir=self._weights_dir)
        self._loaded = (digest, *loaded)
        return loaded
