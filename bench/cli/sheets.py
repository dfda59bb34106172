"""The sheets of ``plot``: which columns and rows the flags mean, and where the files go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cli import options
from bench.cli.options import split_names
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, continuing, did_you_mean, joined, plural
from bench.plots.sheet import SIDE_PX, Column, Row, columns_of, grid_columns, write_contact_sheet, write_sheet
from bench.records import Suite
from bench.store import load_run
from bench.store.grid import is_grid, load_grid
from bench.store.objects import is_url

FORMATS = ("png", "webp")


def draw_sheets(
    folder: str,
    output: Path | None,
    fmt: str,
    *,
    contact: bool,
    prompts: str | None,
    samples: int | None,
    variants: str | None,
    side_px: int | None,
) -> Iterator[tuple[Path, str]]:
    """Writes the sheet of a run or grid, or with ``contact`` one for each column; gives files and what is said of them.

    Raises:
        UsageError: a flag that cannot be right, a run on an object store, or a sheet that would be too large.
        InvalidError: no image that a sheet would show is there.
        MachineError: a file cannot be written.
    """
    options.check_known((fmt,), "--format of a sheet", FORMATS, "hotart-bench plot --help")
    if is_url(folder):
        raise UsageError(f"A sheet is drawn of images on a disk; copy {folder} to this machine and name the copy.")
    home, suite, columns = _columns(folder, variants)
    rows = rows_of(suite, prompts, 1 if samples is None else samples)
    _refuse_empty(folder, columns, rows)
    place, side = output or home / "plots", SIDE_PX if side_px is None else side_px
    note = f"{suite.name}, {plural(len({prompt.id for prompt, _ in rows}), 'prompt')}"
    if not contact:
        path = place / f"sheet.{fmt}"
        yield path, write_sheet(columns, rows, path, side, note)
        return
    for number, column in enumerate(columns):
        name = column.variant if len({one.variant for one in columns}) == len(columns) else f"{number:03d}"
        path = place / f"contact-{name}.{fmt}"
        yield path, write_contact_sheet(column, rows, path, side, note)


def _refuse_empty(folder: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Refuses sheets that no picture would be on."""
    keys = {(prompt.id, sample) for prompt, sample in rows}
    shown = [
        (column.run, Path(column.run.path) / one.image)
        for column in columns
        if column.run is not None
        for one in column.run.renders
        if one.image is not None and one.variant == column.variant and (one.prompt_id, one.sample) in keys
    ]
    if not shown:
        raise InvalidError(
            "There is nothing to draw: no image of these prompts and variants is rendered.",
            f"hotart-bench render {argument(folder)}",
        )
    if not any(file.is_file() for _, file in shown):
        run = shown[0][0]
        raise InvalidError(
            f"There is nothing to draw: of {plural(len(shown), 'image')} no file is there.",
            continuing(run.info.suite, run.path),
        )


def _columns(folder: str, variants: str | None) -> tuple[Path, Suite, tuple[Column, ...]]:
    """The folder, suite and columns of a run or a grid."""
    if is_grid(folder):
        grid = load_grid(folder)
        return Path(grid.path), grid.grid.suite, grid_columns(grid, options.variants_of(grid.grid.suite, variants))
    run = load_run(folder)
    return Path(run.path), run.info.suite, columns_of(run, options.variants_of(run.info.suite, variants))


def rows_of(suite: Suite, prompts: str | None, samples: int) -> list[Row]:
    """The rows that ``--prompts`` and ``--samples`` mean.

    Raises:
        UsageError: an id that the suite has not, with the nearest one; a number that is not from 1 up to what is there.
    """
    if not 1 <= samples <= suite.samples:
        raise UsageError(f"--samples is {samples}; the suite has {plural(suite.samples, 'sample')} of a prompt.")
    chosen: Sequence[str] = _chosen([prompt.id for prompt in suite.prompts], prompts)
    wanted = set(chosen)
    return [(prompt, sample) for prompt in suite.prompts if prompt.id in wanted for sample in range(samples)]


def _chosen(known: Sequence[str], prompts: str | None) -> Sequence[str]:
    names = split_names(prompts, "--prompts")
    if prompts is None or names is None:
        return known
    if len(names) == 1 and names[0] not in known and names[0].isdecimal():
        count = int(names[0])
        if not 1 <= count <= len(known):
            raise UsageError(f"--prompts is {count}; the suite has {plural(len(known), 'prompt')}.")
        return known[:count]
    for name in names:
        if name not in known:
            near, first = did_you_mean(name, known), joined(list(known[:3]))
            raise UsageError(f"--prompts: the suite has no {name!r}{near}; it begins with {first}.")
    return names
