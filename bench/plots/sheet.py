"""Sheets of images to share: variants, weights, windows of steps or settings over prompts, and contact sheets.

Each picture is scaled to one size, which the sheet says below. A picture that is not there is said in its place.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from PIL import Image, ImageDraw, ImageFont

from bench import formatting
from bench.errors import UsageError
from bench.records import Prompt, Render, Run, StepWindow
from bench.score.images import ImageFileError, read_picture
from bench.store.grid import GridRuns
from bench.store.journal import make_folder, write_whole
from bench.suite.grid import setting_words

SheetFormat = Literal["png", "webp"]

SIDE_PX = 256
"""Longest side of a picture, unless another is asked for."""

LEAST_PX, MOST_PX = 32, 4096
"""Limits of that."""

MOST_PIXELS = 2**26
"""Pixels of a sheet (8192 x 8192)."""

LONGEST_PX: dict[str, int] = {"png": 65_000, "webp": 16_383}
"""Longest side of a sheet of each format; WebP allows no longer one."""

_INK, _SOFT, _GROUND, _EMPTY = "#1b1c1e", "#55575c", "#ffffff", "#f2f0ea"


class Column(NamedTuple):
    """What a column of a sheet shows."""

    title: str
    run: Run | None
    """None where nothing was drawn yet."""
    variant: str


Row = tuple[Prompt, int]
"""A prompt and a sample."""


class Layout(NamedTuple):
    """Sizes of a sheet in pixels."""

    cell: tuple[int, int]
    labels: int
    """Width of the labels of the rows."""
    head: int
    """Height of the titles of the columns."""
    gap: int
    font: int
    foot: int


def columns_of(run: Run, variants: Sequence[str] | None = None) -> tuple[Column, ...]:
    """A column for each variant of a run: of a sweep its weights, of an attribution its windows of steps."""
    suite = run.info.suite
    titles: dict[str, str] = {}
    if suite.sweep is not None:
        titles |= {
            name: f"weight {weight:g}" for weight, name in zip(suite.sweep.weights, suite.sweep.variants, strict=True)
        }
    if suite.attribution is not None:
        whole = suite.attribution.variant
        titles |= {one.variant: window_title(one) for one in suite.attribution.windows if one.variant != whole}
    names = [one.name for one in suite.variants if variants is None or one.name in variants]
    return tuple(Column(titles.get(name, name), run, name) for name in names)


def window_title(window: StepWindow) -> str:
    """A window of steps in words: ``steps 1 to 5``, ``up to step 5``, ``from step 6``."""
    if window.kind == "until":
        return f"up to step {window.last}"
    return f"from step {window.first}" if window.kind == "from" else f"steps {window.first} to {window.last}"


def grid_columns(found: GridRuns, variants: Sequence[str] | None = None) -> tuple[Column, ...]:
    """A column for each setting of a grid and each variant: those of one variant beside one another."""
    names = [one.name for one in found.grid.suite.variants if variants is None or one.name in variants]
    members = list(zip(found.grid.members, found.runs, strict=True))
    return tuple(
        Column(f"{name}: {setting_words(member.setting)}", run, name) for name in names for member, run in members
    )


def write_sheet(columns: Sequence[Column], rows: Sequence[Row], path: Path, side_px: int, note: str) -> str:
    """Writes an X/Y sheet, a row for each prompt and sample, a column for each of ``columns``.

    Args:
        columns: at least one.
        rows: at least one.
        path: its ending, ``.png`` or ``.webp``, says the format.
        side_px: longest side of a picture.
        note: what the sheet is of; written below it, before the sizes.

    Returns:
        What was written below it.

    Raises:
        UsageError: another size than 32 to 4096, or a sheet that would be too large, with a size that is not.
        MachineError: the file cannot be written.
    """
    layout = _layout(columns, side_px, labelled=True)
    size = (
        layout.labels + len(columns) * (layout.cell[0] + layout.gap),
        layout.head + len(rows) * (layout.cell[1] + layout.gap) + layout.foot,
    )
    _check_size(size, path, side_px, f"{len(rows)} rows of {len(columns)} pictures")
    sheet = Image.new("RGB", size, _GROUND)
    pen, font = ImageDraw.Draw(sheet), _font(layout.font)
    renders, put = [_renders(column) for column in columns], []
    for place, column in enumerate(columns):
        left = layout.labels + place * (layout.cell[0] + layout.gap)
        _write(pen, (left, layout.gap), wrapped(column.title, font, layout.cell[0], 3), font, _INK)
    for place, (prompt, sample) in enumerate(rows):
        top = layout.head + place * (layout.cell[1] + layout.gap)
        lines = max(1, layout.cell[1] // _line(layout.font) - 1)
        about = [f"{prompt.id}, sample {sample}", *wrapped(prompt.text, font, layout.labels - 2 * layout.gap, lines)]
        _write(pen, (layout.gap, top), [_cut(about[0], font, layout.labels - 2 * layout.gap), *about[1:]], font, _INK)
        for at, column in enumerate(columns):
            left = layout.labels + at * (layout.cell[0] + layout.gap)
            put.append(_put(sheet, pen, (left, top), layout, column.run, renders[at].get((prompt.id, sample))))
    return _finish(sheet, pen, layout, path, f"{note}{_missing(put)}; {_sizes(columns, side_px)}")


def write_contact_sheet(column: Column, rows: Sequence[Row], path: Path, side_px: int, note: str) -> str:
    """Writes all images of a column, one after the other, each with its prompt's id below; as ``write_sheet``."""
    layout = _layout([column], side_px, labelled=False)
    across, down = layout.cell[0] + layout.gap, layout.cell[1] + _line(layout.font) + layout.gap
    count = max(1, min(len(rows), round(math.sqrt(1.4 * len(rows) * down / across))))
    size = (
        layout.gap + count * across,
        layout.head + -(-len(rows) // count) * down + layout.foot,
    )
    _check_size(size, path, side_px, f"{len(rows)} pictures")
    sheet = Image.new("RGB", size, _GROUND)
    pen, font, renders, put = ImageDraw.Draw(sheet), _font(layout.font), _renders(column), []
    _write(pen, (layout.gap, layout.gap), wrapped(column.title, font, size[0] - 2 * layout.gap, 3), font, _INK)
    for place, (prompt, sample) in enumerate(rows):
        left = layout.gap + place % count * across
        top = layout.head + place // count * down
        put.append(_put(sheet, pen, (left, top), layout, column.run, renders.get((prompt.id, sample))))
        words = _cut(f"{prompt.id}, sample {sample}", font, layout.cell[0])
        _write(pen, (left, top + layout.cell[1]), [words], font, _SOFT)
    return _finish(sheet, pen, layout, path, f"{note}{_missing(put)}; {_sizes([column], side_px)}")


# --- sizes ---------------------------------------------------------------------------------


def _layout(columns: Sequence[Column], side_px: int, *, labelled: bool) -> Layout:
    if not LEAST_PX <= side_px <= MOST_PX:
        raise UsageError(f"--side is {side_px}; it may be {LEAST_PX} to {MOST_PX} pixels.")
    shapes = [_shape(column.run) for column in columns if column.run is not None]
    longest = max((max(one) for one in shapes), default=1)
    wide, high = (max((one[axis] for one in shapes), default=1) for axis in (0, 1))
    cell = (max(1, round(side_px * wide / longest)), max(1, round(side_px * high / longest)))
    font = min(36, max(11, side_px // 18))
    gap = max(4, font // 2)
    head = max(len(wrapped(one.title, _font(font), cell[0], 3)) for one in columns) * _line(font) + 2 * gap
    labels = max(140, min(420, side_px)) + gap if labelled else gap
    return Layout(cell, labels, head, gap, font, 3 * _line(font) + 2 * gap)


def _shape(run: Run | None) -> tuple[int, int]:
    return (1, 1) if run is None else (run.info.suite.settings.width, run.info.suite.settings.height)


def _check_size(size: tuple[int, int], path: Path, side_px: int, what: str) -> None:
    longest = LONGEST_PX[_format(path)]
    if size[0] * size[1] <= MOST_PIXELS and max(size) <= longest:
        return
    shrink = min(math.sqrt(MOST_PIXELS / (size[0] * size[1])), longest / max(size))
    smaller = int(0.9 * side_px * shrink)  # labels do not shrink with the pictures, so a little less than the share
    way = f"--side {smaller}, or fewer --prompts" if smaller >= LEAST_PX else "fewer --prompts"
    raise UsageError(
        f"A sheet of {what} at {side_px} px is {size[0]:,} x {size[1]:,} pixels; at most {MOST_PIXELS:,} in all and "
        f"{longest:,} a side are written as {_format(path)}: give {way}."
    )


def _format(path: Path) -> SheetFormat:
    for name in get_args(SheetFormat):
        if path.suffix == f".{name}":
            found: SheetFormat = name
            return found
    raise UsageError(f"A sheet is written as {', '.join(get_args(SheetFormat))}, not {path.suffix or path.name!r}.")


def _sizes(columns: Sequence[Column], side_px: int) -> str:
    shapes = dict.fromkeys(_shape(column.run) for column in columns if column.run is not None)
    stored = formatting.joined([f"{wide} x {high}" for wide, high in shapes]) or "none"
    return f"images of {stored} px, shown at {side_px} px"


# --- pictures ------------------------------------------------------------------------------


def _put(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    layout: Layout,
    run: Run | None,
    render: Render | None,
) -> bool:
    """A picture in the middle of its cell, or why there is none; whether there is one."""
    width, height = layout.cell
    found = _picture(run, render, max(layout.cell))
    if isinstance(found, str):
        font = _font(layout.font)
        pen.rectangle((*place, place[0] + width - 1, place[1] + height - 1), fill=_EMPTY)
        lines = max(1, height // _line(layout.font) - 1)
        at = (place[0] + layout.gap, place[1] + layout.gap)
        _write(pen, at, wrapped(found, font, width - 2 * layout.gap, lines), font, _SOFT)
        return False
    fitted = _fitted(found, layout.cell)
    sheet.paste(fitted, (place[0] + (width - fitted.width) // 2, place[1] + (height - fitted.height) // 2))
    return True


def _missing(put: Sequence[bool]) -> str:
    """How many cells have no picture; empty where each has one."""
    return "" if all(put) else f", {put.count(False)} of {formatting.plural(len(put), 'picture')} missing"


def _picture(run: Run | None, render: Render | None, side_px: int) -> Image.Image | str:
    if run is None or render is None:
        return "not rendered yet"
    if render.image is None:
        return f"failed: {render.error or 'no reason was recorded'}"
    try:
        return read_picture(Path(run.path), render, side_px).image.convert("RGB")
    except (OSError, ImageFileError) as error:
        return f"cannot be read: {error}"


def _renders(column: Column) -> dict[tuple[str, int], Render]:
    renders = () if column.run is None else column.run.renders
    return {(one.prompt_id, one.sample): one for one in renders if one.variant == column.variant}


def _fitted(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """As large as the cell holds it: a larger one scaled down, a small one by whole pixels up."""
    share = min(cell[0] / picture.width, cell[1] / picture.height)
    if share >= 1:
        times = int(share)
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    return picture.resize(size, Image.Resampling.LANCZOS)


# --- words ---------------------------------------------------------------------------------


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along."""
    file = resources.files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(io.BytesIO(file.read_bytes()), size_px)


def _line(font_px: int) -> int:
    return round(1.3 * font_px)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: int, most_lines: int) -> list[str]:
    """``text`` in lines that fit, the last one cut where there is more; a word that is too long is broken."""
    lines: list[str] = []
    line = ""
    for word in _pieces(formatting.plain(text), font, width_px):
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width_px:
            line = longer
        else:
            lines.append(line)
            line = word
        if len(lines) > most_lines:
            break
    lines = [one for one in (*lines, line) if one]
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], _cut(f"{lines[most_lines - 1]}…", font, width_px)]
    return lines


def _pieces(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> Iterator[str]:
    for word in text[:4000].split():
        while font.getlength(word) > width_px and len(word) > 1:
            length = max(1, int(len(word) * width_px / font.getlength(word)))
            while length > 1 and font.getlength(word[:length]) > width_px:
                length -= 1
            yield word[:length]
            word = word[length:]
        yield word


def _cut(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    kept = text.rstrip("…")
    while kept and font.getlength(f"{kept}…") > width_px:
        kept = kept[:-1]
    return f"{kept}…"


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], font: ImageFont.FreeTypeFont, colour: str
) -> None:
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + number * _line(int(font.size))), line, font=font, fill=colour)


def _finish(sheet: Image.Image, pen: ImageDraw.ImageDraw, layout: Layout, path: Path, note: str) -> str:
    """Writes what the sheet is of below it, and the file."""
    font = _font(layout.font)
    lines = wrapped(note, font, sheet.width - 2 * layout.gap, 3)
    _write(pen, (layout.gap, sheet.height - layout.foot + layout.gap), lines, font, _SOFT)
    buffer = io.BytesIO()
    if _format(path) == "webp":
        sheet.save(buffer, "WEBP", quality=90, method=4)
    else:
        sheet.save(buffer, "PNG")
    make_folder(path.parent)
    write_whole(path, buffer.getvalue())
    return note
