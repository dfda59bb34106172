from pathlib import Path
from unittest.mock import create_autospec

import pytest
from fakes import make_run, write_run
from gate_runs import PLANTED, make_folder
from msgspec.structs import asdict, replace

import bench.cli.stages
from bench.baseline import freeze, write_baseline
from bench.records import Acceptance
from bench.run import Outcome
from bench.store import load_run

DONE = Outcome(path="", images=24, failed=0, scores=48, missing=0, timings=12, notes=(), done_before=False)


class Stages:
    """Stands for the work of ``bench.run``: keeps what it was called with, and ends as it is told to."""

    def __init__(self):
        self.calls = []
        self.outcome = DONE
        self.error = None

    def run_all(self, suite, path, options, *, progress):
        return self.run_stage("all", suite, path, options, progress=progress)

    def run_stage(self, stage, suite, path, options, *, progress):
        progress("render", 1, 1)
        self.calls.append({"stage": stage, "suite": suite, "path": path, **asdict(options)})
        if self.error is not None:
            raise self.error
        return replace(self.outcome, path=str(path))


@pytest.fixture
def stages(monkeypatch) -> Stages:
    fake = Stages()
    for name in ("run_all", "run_stage"):
        # The true signature is kept, so that a call which it would refuse fails here too.
        stand_in = create_autospec(getattr(bench.cli.stages, name), side_effect=getattr(fake, name))
        monkeypatch.setattr(bench.cli.stages, name, stand_in)
    return fake


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty working directory with one suite of two prompts in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("a red boat\na blue house\n", encoding="utf-8")
    (tmp_path / "own.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "new"
    return write_run(make_run(folder, prompts=8), folder)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "old"
    return write_run(make_run(folder, prompts=8, seed=1), folder)


@pytest.fixture(scope="session")
def gate_place(tmp_path_factory):
    """The accepted run with its frozen baseline, and the runs that are gated against it."""
    place = tmp_path_factory.mktemp("gate")
    make_folder(place / "old")
    make_folder(place / "same", seed=1)
    make_folder(place / "planted", seed=1, effect=PLANTED)
    make_folder(place / "gap", seed=1, failed=[("spo", "case-003", 1)])
    make_folder(place / "weak-old", {"mini-clip": "0.02sd"}, prompts=12)
    make_folder(place / "weak", {"mini-clip": "0.02sd"}, prompts=12, seed=1)
    for name in ("old", "weak-old"):
        accepted = Acceptance(by="Ada", time="2025-01-01T00:00:00+00:00")
        write_baseline(freeze(load_run(place / name), acceptance=accepted), place / f"{name}.json")
    return place


@pytest.fixture
def here(gate_place, monkeypatch):
    monkeypatch.chdir(gate_place)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return gate_place


SUITE = """\
schema = 2
name = "own"
prompts = ["two.txt"]
samples = 2
seed = 0
metrics = ["saturation"]

[settings]
width = 64
height = 64
steps = 4
guidance_scale = 3.0
sampler = "ddim"

[variants.base]
checkpoint = "mini"

[variants.spo]
checkpoint = "mini"
loras = [{ path = "mini:spo", weight = 0.5 }]
"""
