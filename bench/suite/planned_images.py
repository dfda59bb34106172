"""Planned images: which of them a run folder still lacks, and the record of one. No torch: it tells a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from bench.records import PlannedImage, Render, Suite
from bench.suite import plan_images


def missing_images(suite: Suite, variant: str, renders: Sequence[Render], folder: Path) -> list[PlannedImage]:
    """The planned images of a variant that have no record, or whose file is gone, in the suite's order."""
    there = {
        (render.prompt_id, render.sample)
        for render in renders
        if render.variant == variant and (render.image is None or (folder / render.image).is_file())
    }
    return [cell for cell in plan_images(suite) if (cell.prompt_id, cell.sample) not in there]


def missing_batches(
    suite: Suite, variant: str, renders: Sequence[Render], folder: Path
) -> list[tuple[PlannedImage, ...]]:
    """The planned batches of which this variant lacks an image, whole."""
    wanted = {cell.batch for cell in missing_images(suite, variant, renders, folder)}
    batches = (tuple(cells) for _, cells in groupby(plan_images(suite), key=lambda cell: cell.batch))
    return [cells for cells in batches if cells[0].batch in wanted]


def record_of(
    variant: str, cell: PlannedImage, decode_dtype: str | None, error: str | None, file: tuple[str, str] | None
) -> Render:
    """The record of a planned image.

    Args:
        variant: name of the variant that drew it.
        cell: as it was planned.
        decode_dtype: precision that it was decoded in.
        error: why there is none.
        file: its name in the folder and its sha256, as ``RunFolder.write_image`` returns them.
    """
    image, sha256 = file or (None, None)
    return Render(
        variant=variant,
        prompt_id=cell.prompt_id,
        sample=cell.sample,
        seed=cell.seed,
        batch=cell.batch,
        decode_dtype=decode_dtype,
        image=image,
        sha256=sha256,
        error=error,
    )
