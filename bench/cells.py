"""Which planned images a run folder still lacks. No torch: a finished run is known by this alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from bench.records import Cell, Render, Suite
from bench.suite import plan_cells


def missing_cells(suite: Suite, variant: str, renders: Sequence[Render], folder: Path) -> list[Cell]:
    """The planned images of a variant that have no record, or whose file is gone, in the suite's order."""
    there = {
        (render.case, render.sample)
        for render in renders
        if render.variant == variant and (render.image is None or (folder / render.image).is_file())
    }
    return [cell for cell in plan_cells(suite) if (cell.case, cell.sample) not in there]


def missing_batches(suite: Suite, variant: str, renders: Sequence[Render], folder: Path) -> list[tuple[Cell, ...]]:
    """The planned batches of which this variant lacks an image, whole."""
    wanted = {cell.batch for cell in missing_cells(suite, variant, renders, folder)}
    batches = (tuple(cells) for _, cells in groupby(plan_cells(suite), key=lambda cell: cell.batch))
    return [cells for cells in batches if cells[0].batch in wanted]
