import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from fakes import make_run, write_run

from bench.cli import run_command_line
from bench.records import Record


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Outcome(Record, frozen=True):
    path: str
    images: int = 24
    failed: int = 0
    scores: int = 48
    missing: int = 0
    timings: int = 12
    notes: tuple[str, ...] = ()
    done_before: bool = False


class FakeStages(ModuleType):
    """Stands for ``bench.run``: keeps what it was called with, and ends as it is told to."""

    def __init__(self):
        super().__init__("bench.run")
        self.calls = []
        self.outcome = {}
        self.error = None

    def run_all(self, suite, path, *, variants, metrics, device, fresh, weights_dir, progress):
        self.calls.append(("all", suite, path, variants, metrics, device, fresh, weights_dir))
        progress("render", 1, 1)
        if self.error is not None:
            raise self.error
        return Outcome(path=str(path), **self.outcome)

    def run_stage(self, stage, suite, path, *, variants, metrics, device, fresh, weights_dir, progress):
        self.calls.append((stage, suite, path, variants, metrics, device, fresh, weights_dir))
        return Outcome(path=str(path), **self.outcome)


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., Answer]:
    """Runs one command line in this process, without a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("HOTART_WEIGHTS", raising=False)

    def run(*arguments: str | Path) -> Answer:
        code = run_command_line([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def stages(monkeypatch) -> FakeStages:
    fake = FakeStages()
    monkeypatch.setitem(sys.modules, "bench.run", fake)
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
