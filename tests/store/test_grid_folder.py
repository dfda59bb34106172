"""The folder of a grid: what may be in it, what it refuses, what an extension keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from grid_runs import make_grid_runs, write_grid
from msgspec.structs import replace

from bench.errors import IncomparableError, InvalidError, MachineError, UsageError
from bench.store.grid import is_grid, load_grid, open_grid, read_grid
from bench.store.lock import lock_folder, unlock_folder
from bench.suite.grid import make_grid, read_axis


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return make_grid_runs(tmp_path_factory.mktemp("grid"), prompts=2)


@pytest.fixture
def folder(found, tmp_path):
    return write_grid(found, tmp_path / "grid")


def change(folder: Path, **fields) -> None:
    table = json.loads((folder / "grid.json").read_text("utf-8"))
    (folder / "grid.json").write_text(json.dumps(table | fields), encoding="utf-8")


def test_what_was_written_is_read(found, folder):
    again = load_grid(folder)
    assert again.grid == found.grid
    assert [len(run.scores) for run in again.runs] == [len(run.scores) for run in found.runs]
    assert is_grid(folder)
    assert is_grid(folder / "grid.json")
    assert load_grid(folder / "grid.json").path == str(folder)
    assert not is_grid(folder / found.grid.members[0].folder)
    assert not is_grid("s3://bucket/grid")


def test_a_run_that_is_missing_is_none(found, folder):
    (folder / found.grid.members[2].folder / "run.json").unlink()
    assert [run is None for run in load_grid(folder).runs] == [False, False, True, False]


def test_a_run_of_another_setting_is_refused(found, folder):
    first, second = (folder / member.folder / "run.json" for member in found.grid.members[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(InvalidError, match="is not the run of guidance scale 3, dpmpp_2m"):
        load_grid(folder)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"kind": "hotart-bench calibration"}, UsageError, "is not a grid"),
        ({"schema": 99}, IncomparableError, "has schema 99"),
        ({"members": []}, InvalidError, "not those of its axes"),
        ({"axes": [{"name": "cfg", "values": [3]}]}, InvalidError, "is not a valid grid"),
        ({"extra": 1}, InvalidError, "extra"),
        ({"axes": [{"name": "seed", "values": [1, 1]}]}, InvalidError, "is not a valid grid"),
        ({"axes": [], "members": [{"folder": "../..", "setting": {}}]}, InvalidError, "not those of its axes"),
    ],
)
def test_a_damaged_file_is_refused(folder, fields, error, said):
    change(folder, **fields)
    with pytest.raises(error, match=said):
        read_grid(folder)


def test_there_is_none(tmp_path):
    with pytest.raises(UsageError, match="there is no grid here"):
        read_grid(tmp_path)


def extended(grid, **axes):
    named = {axis.name: list(axis.values) for axis in grid.axes} | axes
    return make_grid(grid.suite, [read_axis(name, [f"{v}" for v in values]) for name, values in named.items()])


def test_a_value_more_keeps_what_is_there(found, folder):
    grid = extended(found.grid, guidance_scale=[3.0, 5.0, 7.5])
    with open_grid(folder, grid, fresh=False):
        assert read_grid(folder) == grid
    assert [run is None for run in load_grid(folder).runs] == [False, False, True, True, False, False]


def test_another_grid_is_refused_with_all_that_differs(found, folder):
    less = extended(found.grid, guidance_scale=[3.0], steps=[20, 30])
    suite = replace(found.grid.suite, samples=5, settings=replace(found.grid.suite.settings, steps=11, eta=1.0))
    with pytest.raises(IncomparableError) as refused, open_grid(folder, replace(less, suite=suite), fresh=False):
        pass
    said = str(refused.value)
    for part in (
        "holds another grid", "samples is 1 there and 5 here", "settings.eta is 0.0 there and 1.0 here",
        "the axis steps only here", "guidance_scale 7.5 only there",
    ):  # fmt: skip
        assert part in said
    assert "settings.steps" not in said  # an axis says it
    assert read_grid(folder) == found.grid


def test_the_suites_own_value_of_an_axis_may_change(found, folder):
    suite = replace(found.grid.suite, settings=replace(found.grid.suite.settings, guidance_scale=7.5))
    with open_grid(folder, replace(found.grid, suite=suite), fresh=False):
        assert read_grid(folder).suite.settings.guidance_scale == 7.5


def test_a_folder_of_something_else_is_left_alone(found, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with (
        pytest.raises(UsageError, match=r"holds no grid \(no grid.json\), but holiday.jpg"),
        open_grid(tmp_path, found.grid, fresh=True),
    ):
        pass


def test_two_processes_are_kept_apart(found, folder):
    lock = lock_folder(folder)
    try:
        with pytest.raises(MachineError, match="in use by process"), open_grid(folder, found.grid, fresh=False):
            pass
    finally:
        unlock_folder(folder, lock)


def test_a_fresh_start_keeps_the_old_one_beside(found, folder):
    with open_grid(folder, extended(found.grid, guidance_scale=[9.0]), fresh=True):
        (folder / "guidance-scale-9_sampler-ddim").mkdir()
    assert len(read_grid(folder).members) == 2
    assert load_grid(folder.with_name("grid.old-1")).grid == found.grid


def test_nothing_stays_of_a_grid_of_which_nothing_was_begun(found, tmp_path):
    with pytest.raises(KeyError), open_grid(tmp_path / "a" / "b", found.grid, fresh=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
