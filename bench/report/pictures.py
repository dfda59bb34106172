"""The report's pictures: thumbnails as data URIs, and the grid that shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import formatting as text
from bench.compare.pairing import usable_scores
from bench.plots.data import headline_metrics
from bench.records import MetricFacts, Prompt, Render, Run
from bench.report.headline import way

# Images of a run as data URIs: small ones as they are, large ones as WebP thumbnails, within a budget.

MAX_SIDE_PX = 640

"""Longest side of an embedded image; a larger one is scaled down to it."""

MAX_ROWS = 200

"""Rows (a prompt's sample across all variants) whose images are embedded."""

MAX_BYTES = 32 * 2**20

"""Bytes of image data that one report embeds."""

_AS_IT_IS_BYTES = 64 * 2**10

Key = tuple[str, str, int]

"""(variant, prompt, sample)."""


@dataclass(frozen=True)
class Picture:
    """An embedded image: its data URI, its size as rendered, and whether it is a reduced copy."""

    uri: str
    width_px: int
    height_px: int
    reduced: bool


def picture(path: Path, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """The image at ``path``: the PNG's own bytes when small, else WebP with at most ``max_side_px`` a side.

    Raises OSError when the file is missing or is no image.
    """
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if max(width, height) <= max_side_px and len(data) <= _AS_IT_IS_BYTES:
            image.verify()
            return Picture(_uri(Image.MIME[image.format or "PNG"], data), width, height, reduced=False)
        copy = image.convert("RGB")
        copy.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        copy.save(buffer, "WEBP", quality=82, method=4)
    return Picture(_uri("image/webp", buffer.getvalue()), width, height, reduced=True)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def embed(run: Run, rows: Sequence[tuple[str, int]]) -> tuple[Mapping[Key, Picture], Mapping[Key, str]]:
    """Pictures of ``rows`` (prompt, sample), whole rows in order until a limit is met, and what is broken.

    The second mapping names the files that the journal lists but that cannot be read, with the reason.
    """
    renders = {(one.variant, one.prompt_id, one.sample): one for one in run.renders if one.image is not None}
    variants = [variant.name for variant in run.info.variants]
    found: dict[Key, Picture] = {}
    broken: dict[Key, str] = {}
    size = 0
    for prompt_id, sample in rows[:MAX_ROWS]:
        for key in ((variant, prompt_id, sample) for variant in variants):
            render = renders.get(key)
            if render is not None:
                _add(Path(run.path), render, key, found, broken)
        size += sum(len(found[name, prompt_id, sample].uri) for name in variants if (name, prompt_id, sample) in found)
        if size > MAX_BYTES:
            break
    return found, broken


def _add(folder: Path, render: Render, key: Key, found: dict[Key, Picture], broken: dict[Key, str]) -> None:
    try:
        found[key] = picture(folder / str(render.image))
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG chunk as a SyntaxError
        broken[key] = f"The file {render.image} cannot be read: {type(error).__name__}."


def link(image: str) -> str:
    """The relative address of an image of the run folder, percent-encoded for ``href`` and ``src``."""
    return quote(image)


# The report's grid: a row for each prompt and sample, a cell for each variant, and the numbers for sorting.

LONG_PROMPT = 260

"""Characters from which a prompt is folded."""

TINY_PX = 128

"""Images up to this side can be shown pixel by pixel."""


@dataclass(frozen=True)
class GridCell:
    """One image, or the record of why there is none to show."""

    variant: str
    colour: int
    index: int
    prompt_id: str
    sample: int
    uri: str
    width: int
    height: int
    failed: bool
    status: str
    error: str
    link: str
    file: str
    """The PNG's path relative to the run folder; empty where there is none."""
    score: str


@dataclass(frozen=True)
class GridRow:
    """One prompt's sample across the variants."""

    index: int
    prompt_id: str
    sample: int
    seed: int | None
    prompt: str
    negative: str
    probes: str
    tags: tuple[str, ...]
    long: bool
    cells: tuple[GridCell, ...]

    @property
    def failed(self) -> bool:
        """Whether an image of the row could not be made."""
        return any(cell.failed for cell in self.cells)


@dataclass(frozen=True)
class Grid:
    """The section of prompts and images: its rows, and what its controls offer."""

    note: str
    rows: tuple[GridRow, ...]
    pairs: tuple[str, ...]
    metrics: tuple[str, ...]
    tags: tuple[str, ...]
    any_failed: bool
    tiny: bool
    cell_width: str
    ratio: str


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
    decimals = metric_decimals(run)
    rows: list[GridRow] = []
    for prompt in run.info.suite.prompts:
        for sample in range(run.info.suite.samples):
            cells = []
            for index, variant in enumerate(run.info.suite.variants):
                key = (variant.name, prompt.id, sample)
                written = ""
                if shown is not None:
                    score = scores.get((variant.name, shown.name), {}).get((prompt.id, sample))
                    written = text.number(score, decimals[shown.name])
                cells.append(_cell(index, key, renders.get(key), pictures.get(key), broken.get(key), written))
            seed = next((one.seed for one in _made(renders, cells)), None)
            rows.append(_row(len(rows), prompt, sample, seed, tuple(cells)))
    return tuple(rows)


def _made(renders: Mapping[Key, Render], cells: Sequence[GridCell]) -> list[Render]:
    keys = [(cell.variant, cell.prompt_id, cell.sample) for cell in cells]
    return [renders[key] for key in keys if key in renders]


def _row(index: int, prompt: Prompt, sample: int, seed: int | None, cells: tuple[GridCell, ...]) -> GridRow:
    return GridRow(
        index=index,
        prompt_id=prompt.id,
        sample=sample,
        seed=seed,
        prompt=prompt.text,
        negative=prompt.negative,
        probes=prompt.probes,
        tags=prompt.tags,
        long=len(prompt.text) > LONG_PROMPT or prompt.text.count("\n") > 4,
        cells=cells,
    )


def _cell(
    index: int, key: Key, render: Render | None, picture: Picture | None, damage: str | None, score: str
) -> GridCell:
    status = error = address = ""
    file = render.image or "" if render is not None else ""
    failed = False
    if render is None:
        status, error = "Not rendered yet", "The run folder has no record of this image."
    elif render.image is None:
        status, error, failed = "Failed", render.error or "No reason was recorded.", True
    elif damage is not None:
        status, error, failed = "Unreadable", damage, True
    elif picture is None:
        status, address = "Not embedded", link(render.image)
    return GridCell(
        variant=key[0],
        colour=index % 8,
        index=index,
        prompt_id=key[1],
        sample=key[2],
        uri=picture.uri if picture else "",
        width=picture.width_px if picture else 0,
        height=picture.height_px if picture else 0,
        failed=failed,
        status=status,
        error=error,
        link=address,
        file=file,
        score=score,
    )


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
    first = headline_metrics(run.info.metrics)
    rest = [facts for facts in run.info.metrics if facts not in first]
    return tuple(facts for facts in (*first, *rest) if facts.name in scored)


def script_data(run: Run, rows: Sequence[GridRow], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the report's script sorts and compares by: names, numbers and tags, for ``script_json``.

    ``rows[i].scores[m][v]`` is the score of metric m and variant v, None where there is none.
    """
    names = [variant.name for variant in run.info.suite.variants]
    metrics = scored_metrics(run)
    decimals = metric_decimals(run)
    table = usable_scores(run)

    def score(metric: str, variant: str, row: GridRow) -> float | None:
        return table.get((variant, metric), {}).get((row.prompt_id, row.sample))

    return {
        "variants": names,
        "pairs": [[names.index(candidate), names.index(reference)] for candidate, reference in pairs],
        "metrics": [{"name": facts.name, "better": way(facts), "decimals": decimals[facts.name]} for facts in metrics],
        "rows": [
            {
                "prompt_id": row.prompt_id,
                "sample": row.sample,
                "tags": row.tags,
                "failed": row.failed,
                "scores": [[score(facts.name, name, row) for name in names] for facts in metrics],
            }
            for row in rows
        ],
    }


def typical_row(run: Run, rows: Sequence[GridRow], metric: str, pair: tuple[str, str]) -> GridRow | None:
    """The row with the median difference of ``metric`` among those whose images are all embedded."""
    table = usable_scores(run)
    above, below = (table.get((name, metric), {}) for name in pair)
    found = []
    for row in rows:
        cell = (row.prompt_id, row.sample)
        if cell in above and cell in below and all(one.uri for one in row.cells):
            found.append((above[cell] - below[cell], row.index))
    return rows[sorted(found)[(len(found) - 1) // 2][1]] if found else None


def grid_view(
    run: Run, rows: tuple[GridRow, ...], pairs: Sequence[tuple[str, str]], pictures: Mapping[Key, Picture]
) -> Grid:
    """The section of ``rows``, sorted by the differences of ``pairs`` where a reader wishes."""
    suite, metrics = run.info.suite, scored_metrics(run)
    settings = suite.settings
    return Grid(
        note=_note(run, pictures, metrics),
        rows=rows,
        pairs=tuple(f"{candidate} {text.MINUS} {reference}" for candidate, reference in pairs),
        metrics=tuple(facts.name for facts in metrics),
        tags=tuple(sorted({tag for prompt in suite.prompts for tag in prompt.tags})),
        any_failed=any(row.failed for row in rows),
        tiny=max(settings.width, settings.height) <= TINY_PX,
        cell_width="9rem" if len(suite.variants) <= 4 else "7rem",
        ratio=f"{settings.width} / {settings.height}",
    )


def _note(run: Run, pictures: Mapping[Key, Picture], metrics: Sequence[MetricFacts]) -> str:
    names = [variant.name for variant in run.info.suite.variants]
    made = sum(one.image is not None for one in run.renders)
    note = (
        "Every variant started from the same noise."
        if len(names) > 1 and run.info.suite.external_images is None
        else ""
    ) + " An image opens large, two variants under one divide."
    if metrics:
        note += f" The number beside a variant's name is its score: {metrics[0].name}, until another is chosen."
    if any(one.reduced for one in pictures.values()):
        note += f" Images are shown as WebP copies of at most {MAX_SIDE_PX} px a side."
    if len(pictures) < made:
        note += f" {len(pictures):,} of {made:,} images are embedded; the others are named and lie in the run folder."
    return note.strip()
