"""The folder of a grid: ``grid.json`` beside the run folders of its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import documents
from bench.comparability import HINT, differences, protocol_facts
from bench.errors import IncomparableError, InvalidError
from bench.formatting import argument, value_text
from bench.records import GRID_KIND, SCHEMA, Grid, GridAxis, Run, Suite
from bench.store.journal import INFO, write_whole
from bench.store.lock import (
    lock_folder,
    make_folders,
    move_aside,
    refuse_foreign,
    remove_folders,
    unlock_folder,
)
from bench.store.objects import is_url
from bench.store.reading import GRID, load_run
from bench.suite.grid import SEED, members_of, setting_words


class GridRuns(NamedTuple):
    """A grid as it was read."""

    path: str
    grid: Grid
    runs: tuple[Run | None, ...]
    """Of each member; None where nothing was drawn yet."""


def is_grid(path: str | Path) -> bool:
    """Whether this is the folder of a grid, or its ``grid.json``; never a URL."""
    return not is_url(path) and (_folder(path) / GRID).is_file()


def read_grid(path: str | Path) -> Grid:
    """``grid.json`` of a folder.

    Raises:
        UsageError: there is none.
        IncomparableError: it is of another schema.
        InvalidError: it is damaged, or its runs are not those of its axes.
        MachineError: it cannot be read.
    """
    file = _folder(path) / GRID
    make = f"hotart-bench grid SUITE --guidance-scale 3,7.5 -o {argument(file.parent)}"
    found = documents.read_document(
        file, Grid, schema=SCHEMA, what="grid", kind=GRID_KIND, make=make, remake=f"{make} --fresh"
    )
    names = [axis.name for axis in found.axes]
    if len(set(names)) < len(names) or len({one.folder for one in found.members}) < len(found.members):
        raise InvalidError(f"{file}: is not a valid grid: an axis or a value comes twice.", f"{make} --fresh")
    if not found.members or found.members != members_of(found.axes) or not found.suite.variants:
        raise InvalidError(f"{file}: is not a valid grid: its runs are not those of its axes.", f"{make} --fresh")
    return found


def load_grid(path: str | Path) -> GridRuns:
    """A grid and its runs, as they stand on disk.

    Raises:
        HotartError: as ``read_grid``, and as ``load_run`` of each run.
        InvalidError: a run folder is of another setting than its name says.
    """
    folder, grid = _folder(path), read_grid(path)
    runs = []
    for member in grid.members:
        place = folder / member.folder
        run = load_run(place) if documents.exists(place / INFO) else None
        if run is not None and run.info.suite.grid_setting != member.setting:
            raise InvalidError(
                f"{place}: is not the run of {setting_words(member.setting)}.", "put it elsewhere, and draw it again"
            )
        runs.append(run)
    return GridRuns(str(folder), grid, tuple(runs))


@contextlib.contextmanager
def open_grid(folder: Path, grid: Grid, *, fresh: bool) -> Iterator[None]:
    """Lock a folder for a grid: a new one, or one that holds this grid, or this one with fewer values.

    Args:
        folder: made where it is missing.
        grid: what ``grid.json`` says from now on.
        fresh: start over; a grid that is there is moved beside, to ``<name>.old-<n>``.

    Raises:
        UsageError: a file, or a folder with something else in it.
        IncomparableError: a grid of another suite, or with other axes or values, each difference named.
        InvalidError, MachineError: as ``read_grid``; another process holds it, or it cannot be written.
    """
    refuse_foreign(folder, "grid", GRID)
    made = make_folders(folder)
    try:
        lock = lock_folder(folder)
    except BaseException:
        remove_folders(made)
        raise
    begun = is_grid(folder)
    if begun and fresh:
        lock = move_aside(folder, lock)  # which gives the old lock back, whatever happens
        begun = False
    try:
        if begun:
            refuse_other_grid(folder, read_grid(folder), grid)
        text = documents.dumps(msgspec.to_builtins(grid))
        write_whole(folder / GRID, msgspec.json.format(text.encode(), indent=2) + b"\n")
        yield
    finally:
        if not begun and not any((folder / member.folder).exists() for member in grid.members):
            (folder / GRID).unlink(missing_ok=True)  # nothing was drawn, so nothing is held to
        unlock_folder(folder, lock)
        remove_folders(made)


def refuse_other_grid(folder: Path, there: Grid, here: Grid) -> None:
    """Refuse to go on with another grid; values may be added.

    Raises:
        IncomparableError: another suite (settings that are no axes, samples, seed, prompts), another axis, or a value
            that is not named any more.
    """
    axes: list[dict[str, GridAxis]] = [{axis.name: axis for axis in grid.axes} for grid in (there, here)]
    swept = {*axes[0], *axes[1]}
    found = differences(_facts(there.suite, swept), _facts(here.suite, swept), ("there", "here"))
    found += _axis_differences(*axes)
    if found:
        raise IncomparableError(f"{folder}: holds another grid: {'; '.join(found)}.", HINT)


def _facts(suite: Suite, swept: Collection[str]) -> dict[str, object]:
    """What of the suite an image is of, without what the axes say."""
    fields: dict[str, tuple[str, ...]] = {"size": ("settings.width", "settings.height"), SEED: (SEED,)}
    left_out = {field for axis in swept for field in fields.get(axis, (f"settings.{axis}",))}
    facts = {"limit": suite.limit, **protocol_facts(suite)}
    return {name: value for name, value in facts.items() if name not in left_out}


def _axis_differences(there: Mapping[str, GridAxis], here: Mapping[str, GridAxis]) -> list[str]:
    found = [f"the axis {name} only there" for name in there if name not in here]
    found += [f"the axis {name} only here" for name in here if name not in there]
    for name in there:
        gone = [value for value in there[name].values if name in here and value not in here[name].values]
        if gone:
            found.append(f"{name} {', '.join(map(value_text, gone))} only there")
    return found


def _folder(path: str | Path) -> Path:
    path = Path(path)
    return path.parent if path.name == GRID else path
