"""Suite x Variant -> Renders: seeded, batched, resumable; never scores.

Batches are those of the whole suite, so a resumed run forms the same ones and its images have the same
bytes. While the device draws a batch, threads write the PNGs of the one before, and append its records when
all its images are on the disk.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.cells import missing_batches
from bench.metrics.tripwires import broken, broken_float
from bench.records import Case, Cell, Progress, Render, Settings, Suite, Variant
from bench.store import RunFolder
from bench.variants import load_pipeline, stages

PNG_LEVEL = 1
"""zlib level: 6 is 2.5 times as slow for a few percent."""
WRITERS = 2


class Drawn(NamedTuple):
    """One decoded image: 8-bit pixels, or why there are none."""

    pixels: NDArray[np.uint8] | None
    decode_dtype: str
    error: str | None


class Written(NamedTuple):
    """A batch whose PNGs are being written."""

    cells: tuple[Cell, ...]
    drawn: tuple[Drawn, ...]
    files: tuple[Future[tuple[str, str]] | None, ...]


def render(
    suite: Suite,
    folder: RunFolder,
    *,
    variants: Sequence[Variant],
    device: str,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Render what the run folder lacks of these variants; returns the number of images that were made.

    An image that cannot be had (NaN even with the VAE in float32, black, uniform, wrong size) becomes a
    record with ``error``. When it is stopped, batches whose images are written are kept.

    Raises:
        WeightsError: a variant cannot be loaded.
        MachineError: the folder cannot be written.
    """
    renders = folder.renders()
    todo = [(variant, missing_batches(suite, variant.name, renders, folder.path)) for variant in variants]
    total = sum(len(cells) for _, batches in todo for cells in batches)
    done = 0
    for variant, batches in todo:
        if not batches:
            continue
        if progress is not None:
            progress("render", done, total, f"loading {variant.name}")
        pipe = load_pipeline(variant, suite.settings, device=device, weights_dir=weights_dir)
        for written in render_batches(pipe, suite, variant.name, batches, folder):
            done += len(written)
            if progress is not None:
                progress("render", done, total, variant.name)
        del pipe
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    return done


def render_batches(
    pipe: Any, suite: Suite, variant: str, batches: Sequence[tuple[Cell, ...]], folder: RunFolder
) -> Iterator[tuple[Render, ...]]:
    """Draw batches with a loaded pipeline and append their records, batch by batch."""
    encoded = encode_cases(pipe, suite, batches)
    pending: Future[tuple[Render, ...]] | None = None
    # Records are appended by a thread of their own, as soon as the PNGs are there: were it left to this one,
    # a crash would lose the batch that is being drawn and the one before.
    with ThreadPoolExecutor(WRITERS) as writers, ThreadPoolExecutor(1) as appender:
        try:
            for cells in batches:
                drawn = draw_batch(pipe, suite.settings, cells, encoded)
                written = _write(writers, folder, variant, cells, drawn)
                before, pending = pending, appender.submit(_append, folder, variant, written)
                if before is not None:
                    yield before.result()
        except BaseException:
            if pending is not None:
                pending.result()  # kept when the work is stopped; raises if it could not be
            raise
        if pending is not None:
            yield pending.result()


def encode_cases(pipe: Any, suite: Suite, batches: Sequence[tuple[Cell, ...]]) -> dict[str, stages.Encoded]:
    """Each case's prompt, encoded once however many samples it has."""
    wanted = {cell.case for cells in batches for cell in cells}
    cases: list[Case] = [case for case in suite.cases if case.id in wanted]
    return {case.id: stages.encode(pipe, [case.prompt], [case.negative], suite.settings) for case in cases}


def draw_batch(
    pipe: Any, settings: Settings, cells: Sequence[Cell], encoded: dict[str, stages.Encoded]
) -> tuple[Drawn, ...]:
    """Noise, denoise and decode one batch; each image checked, and decoded once more in float32 if it is NaN."""
    seeds = [cell.seed for cell in cells]
    conditions = stages.stack([encoded[cell.case] for cell in cells])
    latents = stages.denoise(pipe, settings, conditions, stages.noise(pipe, settings, seeds), seeds)
    pixels, dtype = stages.decode(pipe, latents), _name(stages.decode_dtype(pipe))
    return tuple(
        _again_in_float32(pipe, latents[row : row + 1], settings)
        if broken_float(image)
        else _checked(image, dtype, settings)
        for row, image in enumerate(pixels)
    )


def _again_in_float32(pipe: Any, latents: torch.Tensor, settings: Settings) -> Drawn:
    image = stages.decode(pipe, latents, torch.float32)[0]
    reason = broken_float(image)
    return Drawn(None, "float32", reason) if reason else _checked(image, "float32", settings)


def _checked(image: NDArray[np.float32], dtype: str, settings: Settings) -> Drawn:
    pixels = stages.to_uint8(image)
    reason = broken(pixels, settings.width, settings.height)
    return Drawn(None if reason else pixels, dtype, reason)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit RGB pixels (h, w, 3); equal pixels give equal bytes with one version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _write(
    pool: ThreadPoolExecutor, folder: RunFolder, variant: str, cells: Sequence[Cell], drawn: Sequence[Drawn]
) -> Written:
    def write(cell: Cell, pixels: NDArray[np.uint8]) -> tuple[str, str]:
        return folder.write_image(variant, cell.case, cell.sample, encode_png(pixels))

    files = tuple(
        None if image.pixels is None else pool.submit(write, cell, image.pixels)
        for cell, image in zip(cells, drawn, strict=True)
    )
    return Written(tuple(cells), tuple(drawn), files)


def _append(folder: RunFolder, variant: str, batch: Written) -> tuple[Render, ...]:
    records = []
    for cell, image, file in zip(batch.cells, batch.drawn, batch.files, strict=True):
        name, sha256 = (None, None) if file is None else file.result()
        records.append(
            Render(
                variant=variant,
                case=cell.case,
                sample=cell.sample,
                seed=cell.seed,
                batch=cell.batch,
                decode_dtype=image.decode_dtype,
                image=name,
                sha256=sha256,
                error=image.error,
            )
        )
    folder.append_renders(records)
    return tuple(records)
