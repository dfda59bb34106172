"""The report's pictures: images as data URIs, the grid of prompts that shows them, and the numbers to sort it by."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from PIL import Image

from bench import formatting as text
from bench.compare.pairing import usable_scores
from bench.records import MetricFacts, Prompt, Render, Run
from bench.report.copies import EMBEDDED_PX, small_copy
from bench.report.headline import way
from bench.report.tables import headline_first
from bench.score.images import (
    WORKERS,
    ImageFileError,
    OpenedPicture,
    image_bytes,
    open_picture,
    stream,
    webp_copy,
)
from bench.store.journal import SMALL

MAX_ROWS = 200
"""Rows (a prompt's sample across all variants) whose images are embedded."""

MAX_BYTES = 32 * 2**20
"""Bytes of image data that one report embeds."""

LONG_PROMPT = 260
"""Characters from which a prompt is folded."""

TINY_PX = 128
"""Images up to this side can be shown pixel by pixel."""

AHEAD = 4 * WORKERS
"""Images that threads read early."""

_AS_IT_IS_BYTES = 64 * 2**10

MOST_STATIC_ROWS = 300
"""A page of more rows leaves those without pictures to its script."""

T = TypeVar("T")

Key = tuple[str, str, int]
"""(variant, prompt, sample)."""


@dataclass(frozen=True)
class Picture:
    """An embedded image: its data URI, its size as rendered, and whether it is a reduced copy."""

    uri: str
    width_px: int
    height_px: int
    reduced: bool


def picture(data: bytes, max_side_px: int = EMBEDDED_PX) -> Picture:
    """The image of a file: its own bytes when small and shown by a browser as it is scored, else WebP.

    Args:
        data: the file's bytes.
        max_side_px: longest side of the WebP copy.

    Raises:
        ImageFileError: it is not an image that can be scored.
    """
    opened = open_picture(data, max_side_px)
    return _as_it_is(data, opened, max_side_px) or Picture(
        _uri("image/webp", webp_copy(opened, max_side_px)), *opened.size, reduced=True
    )


def _as_it_is(data: bytes, opened: OpenedPicture, max_side_px: int) -> Picture | None:
    if opened.is_plain and max(opened.size) <= max_side_px and len(data) <= _AS_IT_IS_BYTES:
        return Picture(_uri(Image.MIME[opened.kind], data), *opened.size, reduced=False)
    return None


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def embed(
    run: Run, rows: Sequence[tuple[str, int]], *, keep: bool = False
) -> tuple[Mapping[Key, Picture], Mapping[Key, str]]:
    """Pictures of ``rows`` (prompt, sample), whole rows in order until a limit is met, and what is broken.

    The second mapping names the files that the journal lists but that cannot be read, with the reason. With ``keep``
    the small copies are kept in the run folder for the next time.
    """
    renders = {(one.variant, one.prompt_id, one.sample): one for one in run.renders if one.image is not None}
    keys = [(variant.name, *row) for row in rows[:MAX_ROWS] for variant in run.info.variants]
    found: dict[Key, Picture] = {}
    broken: dict[Key, str] = {}
    size = 0
    with closing(stream([renders[key] for key in keys if key in renders], _embedder(run, keep), AHEAD)) as images:
        for _, row in groupby(images, lambda one: (one[0].prompt_id, one[0].sample)):
            for render, made in row:
                key = (render.variant, render.prompt_id, render.sample)
                if isinstance(made, Picture):
                    found[key] = made
                    size += len(made.uri)
                else:
                    broken[key] = unreadable(render, made)
            if size > MAX_BYTES:
                break
    return found, broken


def _embedder(run: Run, keep: bool) -> Callable[[Render], Picture]:
    """What makes an image of a run one for ``report.html``."""
    home = Path(run.path)

    def load(render: Render) -> Picture:
        data = image_bytes(home, render)
        if len(data) <= _AS_IT_IS_BYTES:
            same = _as_it_is(data, open_picture(data, EMBEDDED_PX), EMBEDDED_PX)
            if same is not None:
                return same
        copy, width, height = small_copy(data, str(render.sha256), EMBEDDED_PX, home, home / SMALL if keep else None)
        return Picture(_uri("image/webp", copy), width, height, reduced=True)

    return load


def unreadable(render: Render, error: Exception) -> str:
    """A sentence on an image file that cannot be read; any other error is raised again."""
    if not isinstance(error, OSError | ImageFileError):
        raise error
    return f"The file {render.image} cannot be read: {error}."


@dataclass(frozen=True)
class GridCell:
    """One image, or the record of why there is none to show."""

    variant: str
    picture: Picture | None
    status: str
    reason: str
    failed: bool
    file: str
    """The image's path relative to the run folder; empty where there is none."""
    same: bool
    """Whether its pixels are those of the first variant's image."""
    score: float | None
    """By the metric that is shown first."""


@dataclass(frozen=True)
class GridRow:
    """One prompt's sample across the variants, in the suite's order."""

    index: int
    prompt: Prompt
    sample: int
    seed: int | None
    cells: tuple[GridCell, ...]

    @property
    def failed(self) -> bool:
        """Whether an image of the row could not be made or read."""
        return any(cell.failed for cell in self.cells)


def is_long(prompt: str) -> bool:
    """Whether a prompt is folded."""
    return len(prompt) > LONG_PROMPT or prompt.count("\n") > 4


def row_keys(run: Run) -> list[tuple[str, int]]:
    """(prompt, sample) of every row: all prompts' first samples, then all second ones, so that a cut is fair."""
    suite = run.info.suite
    return [(prompt.id, sample) for sample in range(suite.samples) for prompt in suite.prompts]


def grid_rows(
    run: Run, pictures: Mapping[Key, Picture], broken: Mapping[Key, str], shown: MetricFacts | None
) -> tuple[GridRow, ...]:
    """All rows in the suite's order; ``shown`` is the metric written under the images at first."""
    renders = {(one.variant, one.prompt_id, one.sample): one for one in run.renders}
    scores = usable_scores(run)
    rows: list[GridRow] = []
    for prompt in run.info.suite.prompts:
        for sample in range(run.info.suite.samples):
            cells, seeds = [], []
            first = renders.get((run.info.suite.variants[0].name, prompt.id, sample))
            for variant in run.info.suite.variants:
                key = (variant.name, prompt.id, sample)
                score = scores.get((variant.name, shown.name), {}).get((prompt.id, sample)) if shown else None
                render = renders.get(key)
                seeds += [render.seed] if render is not None else []
                cells.append(_cell(variant.name, render, pictures.get(key), broken.get(key), score, first))
            rows.append(GridRow(len(rows), prompt, sample, seeds[0] if seeds else None, tuple(cells)))
    return tuple(rows)


def _cell(
    variant: str,
    render: Render | None,
    picture: Picture | None,
    damage: str | None,
    score: float | None,
    first: Render | None,
) -> GridCell:
    status = reason = ""
    failed = False
    if render is None:
        status, reason = "Not rendered yet", "The run folder has no record of this image."
    elif render.image is None:
        status, reason, failed = "Failed", render.error or "No reason was recorded.", True
    elif damage is not None:
        status, reason, failed = "Unreadable", damage, True
    elif picture is None:
        status = "Not embedded"
    file = "" if render is None or render.image is None else render.image
    same = render is not None and first is not None and first.variant != variant and same_pixels(render, first)
    return GridCell(variant, picture, status, reason, failed, file, same, score)


def same_pixels(one: Render, other: Render) -> bool:
    """Whether two images have equal pixels, as far as the journal knows."""
    if one.pixels_sha256 is not None and other.pixels_sha256 is not None:
        return one.pixels_sha256 == other.pixels_sha256
    return one.sha256 is not None and one.sha256 == other.sha256


def metric_decimals(run: Run) -> dict[str, int]:
    """Decimals for the single scores of each metric: three figures of their range over the run."""
    values: dict[str, list[float]] = {}
    for (_, metric), cells in usable_scores(run).items():
        values.setdefault(metric, []).extend(cells.values())
    spread = {metric: max(own) - min(own) for metric, own in values.items()}
    return {facts.name: text.decimals_for(spread.get(facts.name, 0.0) / 10) for facts in run.info.metrics}


def scored_metrics(run: Run) -> tuple[MetricFacts, ...]:
    """The metrics with at least one score, the headline's first."""
    scored = {metric for _, metric in usable_scores(run)}
    return tuple(facts for facts in headline_first(run.info.metrics) if facts.name in scored)


def script_data(run: Run, rows: Sequence[GridRow], pairs: Sequence[tuple[str, str]], home: str = "") -> dict[str, Any]:
    """What the page's script shows, sorts and compares, in columns that stay small for ``script_json``.

    ``prompts[p]`` is [id, text, negative, probes, places of its tags], ``rows[i]`` [place of the prompt, sample, seed
    as text]. ``scores[m][v][i]`` is the score of metric m and variant v in row i, None where there is none.
    ``cells[v][i]`` is [picture, file, place of its size, place of its record, 1 for the pixels of the first variant]:
    the picture is the address of a small one, 1 for one that is in the page, None for none; the address of the file
    begins with ``home``; -1 stands for no size and no record. ``records[r]`` is [status, reason, 1 for a failure].
    """
    names = [variant.name for variant in run.info.suite.variants]
    metrics, decimals, table = scored_metrics(run), metric_decimals(run), usable_scores(run)
    tags = _Places[str]()
    prompts = [
        [one.id, one.text, one.negative or "", one.probes or "", [tags.of(tag) for tag in one.tags]]
        for one in run.info.suite.prompts
    ]
    numbers = {one.id: place for place, one in enumerate(run.info.suite.prompts)}
    sizes, records = _Places[tuple[int, int]](), _Places[tuple[str, str, int]]()
    cells = [[_cell_data(row.cells[place], home, sizes, records) for row in rows] for place in range(len(names))]
    return {
        "variants": names,
        "pairs": [[names.index(candidate), names.index(reference)] for candidate, reference in pairs],
        "metrics": [{"name": facts.name, "better": way(facts), "decimals": decimals[facts.name]} for facts in metrics],
        "tags": list(tags),
        "prompts": prompts,
        "rows": [
            [numbers[row.prompt.id], row.sample, None if row.seed is None else str(row.seed)] for row in rows
        ],
        "scores": [
            [[table.get((name, one.name), {}).get((row.prompt.id, row.sample)) for row in rows] for name in names]
            for one in metrics
        ],
        "cells": cells,
        "sizes": list(sizes),
        "records": list(records),
    }  # fmt: skip


class _Places(dict[T, int]):
    """Values by the place at which each was first met."""

    def of(self, value: T) -> int:
        return self.setdefault(value, len(self))


def _cell_data(
    cell: GridCell, home: str, sizes: _Places[tuple[int, int]], records: _Places[tuple[str, str, int]]
) -> list[Any]:
    shown = cell.picture
    return [
        None if shown is None else 1 if shown.uri.startswith("data:") else shown.uri,
        home + quote(cell.file) if cell.file else "",
        -1 if shown is None else sizes.of((shown.width_px, shown.height_px)),
        records.of((cell.status, cell.reason, int(cell.failed))) if cell.status else -1,
        int(cell.same),
    ]


def typical_row(run: Run, rows: Sequence[GridRow], metric: str, pair: tuple[str, str]) -> GridRow | None:
    """The row with the median difference of ``metric`` among those whose images are all embedded."""
    table = usable_scores(run)
    above, below = (table.get((name, metric), {}) for name in pair)
    found = []
    for row in rows:
        cell = (row.prompt.id, row.sample)
        if cell in above and cell in below and all(one.picture for one in row.cells):
            found.append((above[cell] - below[cell], row.index))
    return rows[sorted(found)[(len(found) - 1) // 2][1]] if found else None


def grid_note(run: Run, pictures: Mapping[Key, Picture], beside: bool = False) -> str:
    """How to look at the images, and which are copies or left out; ``beside``: their files lie with the page."""
    made, metrics = sum(one.image is not None for one in run.renders), scored_metrics(run)
    notes = ["An image opens large, beside those of the other variants or under one divide with one of them."]
    if len(run.info.suite.variants) > 1 and run.info.suite.external_images is None:
        notes.insert(0, "Every variant started from the same noise.")
    if metrics:
        notes.append(f"The number beside a variant's name is its score: {metrics[0].name}, until another is chosen.")
    if beside:
        return " ".join([*notes, "The list shows small copies, the large view the stored files."])
    reduced = any(one.reduced for one in pictures.values())
    if reduced:
        notes.append(f"Images are shown as WebP copies of at most {EMBEDDED_PX} px a side.")
    if len(pictures) < made:
        shown = f"{len(pictures):,} of {made:,} images are embedded"
        notes.append(f"{shown}; the others are named and lie in the run folder.")
    if reduced or len(pictures) < made:
        notes.append("hotart-bench report RUN --folder makes a page with every image as it is stored.")
    return " ".join(notes)
