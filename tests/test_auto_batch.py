"""``batch = "auto"``: chosen once, part of the run's identity, and halved only while nothing was drawn."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import tiny

import bench.render
import bench.run
from bench.errors import OutOfMemory, SuiteError
from bench.render.fitting import UNMEASURED_BATCH, largest_batch
from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite, plan_cells

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory):
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"), "batch = 4", 'batch = "auto"')))


def test_a_suite_leaves_the_batch_open(auto) -> None:
    assert auto.settings.batch is None
    with pytest.raises(ValueError, match="not chosen yet"):
        plan_cells(auto)


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"settings\.batch"):
        load_suite(str(tiny.write_tiny(tmp_path, "batch = 4", 'batch = "large"')))


def test_without_a_device_of_its_own_memory_it_is_a_fixed_one(auto) -> None:
    assert largest_batch(auto, device="cpu", weights_dir=None) == UNMEASURED_BATCH
    assert largest_batch(replace(auto, cases=auto.cases[:1]), device="cpu", weights_dir=None) == 2


class Renderer:
    """Stands for rendering: out of memory above a batch."""

    def __init__(self, monkeypatch, most: int) -> None:
        self.asked: list[int] = []
        self.most = most
        monkeypatch.setattr(bench.render, "largest_batch", lambda suite, **_: 8)
        monkeypatch.setattr(bench.render, "render", self.render)

    def render(self, suite, folder, **_):
        self.asked.append(suite.settings.batch)
        if suite.settings.batch > self.most:
            raise OutOfMemory("does not fit")
        return 0


def test_out_of_memory_halves_the_batch_and_the_run_remembers_it(auto, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    renderer = Renderer(monkeypatch, most=2)
    run_stage(
        "render", auto, tmp_path / "run", device="cpu", progress=lambda stage, done, total, note="": told.append(note)
    )
    assert renderer.asked == [8, 4, 2]
    assert load_run(tmp_path / "run").info.suite.settings.batch == 2
    assert "out of memory: going on with batches of 4" in told
    renderer.asked.clear()
    run_stage("render", auto, tmp_path / "run", device="cpu")
    assert renderer.asked == [2], "a run that is continued keeps its batch"


def test_not_even_one_image_fits(auto, tmp_path, monkeypatch) -> None:
    renderer = Renderer(monkeypatch, most=0)
    with pytest.raises(OutOfMemory):
        run_stage("render", auto, tmp_path / "run", device="cpu")
    assert renderer.asked == [8, 4, 2, 1]


def test_a_suite_that_names_its_batch_keeps_it(auto, tmp_path, monkeypatch) -> None:
    renderer = Renderer(monkeypatch, most=2)
    named = replace(auto, settings=replace(auto.settings, batch=4))
    with pytest.raises(OutOfMemory):
        run_stage("render", named, tmp_path / "run", device="cpu")
    assert renderer.asked == [4]
