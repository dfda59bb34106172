from pathlib import Path
from unittest.mock import create_autospec

import pytest
from fakes import make_run, write_run
from msgspec.structs import replace

import bench.run
from bench.run import Outcome

DONE = Outcome(path="", images=24, failed=0, scores=48, missing=0, timings=12, notes=(), done_before=False)


class Stages:
    """Stands for the work of ``bench.run``: keeps what it was asked for, and ends as it is told to."""

    def __init__(self):
        self.calls = []
        self.outcome = DONE
        self.error = None

    def run_all(self, suite, path, **flags):
        return self.run_stage("all", suite, path, **flags)

    def run_stage(self, stage, suite, path, **flags):
        flags.pop("progress")("render", 1, 1)
        self.calls.append({"stage": stage, "suite": suite, "path": path, **flags})
        if self.error is not None:
            raise self.error
        return replace(self.outcome, path=str(path))


@pytest.fixture
def stages(monkeypatch) -> Stages:
    fake = Stages()
    for name in ("run_all", "run_stage"):
        # The true signature is kept, so that a call which it would refuse fails here too.
        stand_in = create_autospec(getattr(bench.run, name), side_effect=getattr(fake, name))
        monkeypatch.setattr(bench.run, name, stand_in)
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


SUITE = """\
schema = 1
name = "own"
prompts = ["two.txt"]
samples = 2
seed = 0
metrics = ["saturation"]

[settings]
width = 64
height = 64
steps = 4
guidance = 3.0
sampler = "ddim"

[variants.base]
checkpoint = "mini"

[variants.spo]
checkpoint = "mini"
loras = [{ path = "mini:spo", weight = 0.5 }]
"""
