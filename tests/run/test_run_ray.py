"""What the stages make of ``--ray`` beside rendering; no cluster is started here (``tests/pool`` does)."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
import tiny

import bench.run.stages
from bench.errors import IncomparableError, InvalidError, OutOfMemory, UsageError
from bench.formatting import markdown
from bench.machine import machine_facts, package_versions
from bench.measure import measure
from bench.ray_workers import cluster
from bench.run import RunOptions, run_all, run_stage
from bench.store import load_run

replace = msgspec.structs.replace


@pytest.fixture
def untimed(tiny_run, tmp_path, monkeypatch, blank_plots):
    """Gives a copy of the real run without its timings, as if workers of some kind had just rendered it."""
    monkeypatch.setattr(cluster, "connect", None)
    monkeypatch.setattr(bench.run.stages, "measure", functools.partial(measure, command=tiny.TIMER))

    def copy(**machine) -> Path:
        folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
        for name in ("timings.jsonl", "report.html", "report.md"):
            (folder / name).unlink()
        info = replace(load_run(folder).info, status="started", end=None)
        (folder / "run.json").write_bytes(msgspec.json.encode(replace(info, machine=replace(info.machine, **machine))))
        return folder

    return copy


def test_a_run_of_workers_on_gpus_is_not_timed_on_a_driver_without_one(untimed):
    folder = untimed(device="cuda:0", device_name="A GPU")
    suite = load_run(folder).info.suite
    outcome = run_all(suite, folder, RunOptions(device="cpu", ray="auto"))
    assert (outcome.timings, outcome.missing) == (0, 0)
    info = load_run(folder).info
    assert info.status == "complete"
    (note,) = [note for note in info.settings_notes if note.startswith("No timings")]
    assert "the kind of device is cuda there and cpu here" in note
    assert markdown(note) in (folder / "report.md").read_text("utf-8")
    with pytest.raises(IncomparableError):
        run_stage("measure", suite, folder, RunOptions(device="cpu"))


def test_a_run_of_workers_like_the_driver_is_timed_there_whatever_threads_they_had(untimed):
    folder = untimed(threads=61)
    suite = load_run(folder).info.suite
    with pytest.raises(IncomparableError, match="threads is 61 there"):
        run_stage("measure", suite, folder, RunOptions(device="cpu"))
    assert run_all(suite, folder, RunOptions(device="cpu", ray="auto")).timings > 0
    assert load_run(folder).info.status == "complete"


def test_timings_of_another_environment_are_refused_alone_and_left_out_of_a_run_with_a_note(untimed):
    folder = untimed(cores=61, driver="570.1")
    suite = load_run(folder).info.suite
    with pytest.raises(IncomparableError, match="its timings must not mix") as caught:
        run_stage("measure", suite, folder, RunOptions(device="cpu"))
    assert "driver is 570.1 there and not set here; " in caught.value.message
    assert "cores is 61 there" in caught.value.message
    assert run_all(suite, folder, RunOptions(device="cpu")).timings == 0
    (note,) = [note for note in load_run(folder).info.settings_notes if note.startswith("No timings")]
    assert "cores is 61 there" in note


def test_a_device_that_scores_cannot_be_made_on_is_told_before_anything_is_rendered(tiny_run, tmp_path):
    suite = load_run(tiny_run.folder).info.suite
    with pytest.raises(UsageError, match="--device is cuda:97"):
        run_all(suite, tmp_path / "run", RunOptions(device="cuda:97", ray="auto"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("target", "threads"), [(None, 1), ("3", 3), ("4,2", 4), ("many", 1), ("0", 1)])
def test_threads_of_workers_are_those_that_openmp_is_told(target, threads, tiny_run, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if target is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", target)
    hired = []

    class Asked(Exception):
        pass

    def pool(address, suite, *, device, threads, weights_dir):
        hired.append((address, device, threads))
        raise Asked

    monkeypatch.setattr(bench.run.stages, "WorkerPool", pool)
    suite = load_run(tiny_run.folder).info.suite
    with pytest.raises(Asked):
        run_stage("render", suite, tmp_path / "run", RunOptions(device="cpu", ray="auto"))
    assert hired == [("auto", "cpu", threads)]


def test_a_run_on_cpus_goes_on_with_the_threads_it_was_begun_with(untimed, monkeypatch):
    folder, hired = untimed(threads=7), []
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    real = bench.run.stages.WorkerPool
    monkeypatch.setattr(
        bench.run.stages,
        "WorkerPool",
        lambda *given, threads, **more: hired.append(threads) or real(*given, threads=threads, **more),
    )
    assert run_stage("render", load_run(folder).info.suite, folder, RunOptions(device="cpu", ray="auto")).done_before
    assert hired == [7]


class Fakes:
    """Stands for workers of little memory: their largest batch is 4, and they cannot draw more than one image."""

    asked: ClassVar[list[int]] = []
    """For how many batches workers were asked for."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def largest_batch(self):
        return 4

    def environment(self, batches):
        self.asked.append(batches)
        return machine_facts("cpu"), package_versions()


def test_an_open_batch_is_the_workers_to_find_and_halved_for_their_lack_of_memory(tiny_run, tmp_path, monkeypatch):
    sizes = []

    def draw(suite, *_, **__):
        sizes.append(suite.settings.batch)
        if suite.settings.batch > 1:
            raise OutOfMemory("does not fit")
        return 0

    monkeypatch.setattr(bench.run.stages, "WorkerPool", Fakes)
    monkeypatch.setattr(bench.run.stages, "render_on_workers", draw)
    suite = load_run(tiny_run.folder).info.suite
    opened = replace(suite, settings=replace(suite.settings, batch=None))
    with pytest.raises(InvalidError, match="12 images still to render"):  # these workers draw nothing
        run_stage("render", opened, tmp_path / "run", RunOptions(device="cpu", ray="auto"))
    assert sizes == [4, 2, 1]
    assert Fakes.asked == [4, 6, 12], "six images of each of two variants"
    assert load_run(tmp_path / "run").info.suite.settings.batch == 1
