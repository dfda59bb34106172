from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import tiny
from commands_in_text import wrong_commands
from fakes import blank_figure
from filelock import FileLock
from suites import write_suite

from bench.cli import run_command_line
from bench.machine import spare_collector
from bench.mini import weights
from bench.plots.style import figure_bytes
from bench.records import RunOptions, Settings, Variant
from bench.run import Outcome

spare_collector()
# A shell's background job, or one under nohup, ignores these signals, and what tests start inherits that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker, and what it starts, has one core


def pytest_collection_finish() -> None:
    set_aside()


def pytest_runtest_teardown(item, nextitem) -> None:
    if nextitem is None or nextitem.path != item.path:
        set_aside()


def set_aside() -> None:
    """Spare later collections what is there to stay: of all that torch and diffusers import, each takes half a second,
    and whatever loads a model collects."""
    gc.collect()
    gc.freeze()


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def own_lock_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture of a module or session, reads or writes the lock file or cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path_factory.getbasetemp() / "weights.lock.json"))
        patch.setenv("HOTART_RUNS_CACHE", str(tmp_path_factory.getbasetemp() / "runs-cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def connected() -> Iterator[None]:
    """No test asks whether a server can be reached: those that download have a server or client of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.downloads._asked", lambda server, minute: None)
        yield


class TinyRun(NamedTuple):
    """The tiny suite, run to its end by ``bench.run.run_all``: nobody writes to it."""

    suite_file: Path
    folder: Path
    outcome: Outcome
    progress: tuple[tuple[str, int, int], ...]


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., Answer]:
    """Runs one command line in this process, without a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("HOTART_WEIGHTS", raising=False)
    monkeypatch.delenv("HOTART_LEDGER", raising=False)

    def run(*arguments: str | Path) -> Answer:
        code = run_command_line([str(argument) for argument in arguments])
        answer = Answer(code, *capsys.readouterr())
        assert wrong_commands(answer.err) == []
        return answer

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    """Made by whichever worker of pytest-xdist asks first, and read by all."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    base = tmp_path_factory.getbasetemp()
    place = (base if alone else base.parent) / "tiny"
    with FileLock(f"{place}.lock"):
        if not (place / "told.json").exists():
            make_tiny_run(place)
    told = json.loads((place / "told.json").read_text("utf-8"))
    outcome = msgspec.convert(told["outcome"], Outcome)
    return TinyRun(place / "tiny.toml", place / "run", outcome, tuple(map(tuple, told["progress"])))


def make_tiny_run(place: Path) -> None:
    import torch

    import bench.plots.style
    import bench.run.stages
    from bench.measure import measure
    from bench.run import run_all
    from bench.suite import load_suite

    torch.set_num_threads(1)  # tests and the processes they start share two cores
    suite_file, progress = tiny.write_tiny(place), []
    with pytest.MonkeyPatch.context() as patch:  # a module that asks for it may have put fakes in their places
        patch.setattr(bench.run.stages, "measure", measure)
        patch.setattr(bench.plots.style, "figure_bytes", figure_bytes)
        outcome = run_all(
            load_suite(str(suite_file)),
            place / "run",
            RunOptions(device="cpu"),
            progress=lambda stage, done, total, note="": progress.append((stage, done, total)),
        )
    told = {"outcome": msgspec.to_builtins(outcome), "progress": progress}
    (place / "told.json").write_text(json.dumps(told), "utf-8")


@pytest.fixture
def blank_plots(monkeypatch) -> None:
    """Plots are files of one pixel: what is in them is made as ever, but not painted, which takes a second each."""
    monkeypatch.setattr("bench.plots.style.figure_bytes", blank_figure)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with a good suite in it."""
    monkeypatch.chdir(tmp_path)
    write_suite(tmp_path)
    return tmp_path


def content(folder):
    """Every file and folder by name, files with their bytes; what a link points to does not count."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def refuses(home, cli):
    """Gives a command that must fail: with this code, two lines that say all these things, and no trace of it."""

    def check(code, arguments, *words):
        before = content(home)
        answer = cli(*arguments)
        assert answer.code == code, answer.err
        assert answer.out == ""
        first, *rest = answer.err.splitlines()
        assert re.fullmatch(r"hotart-bench: .+[.?]", first), answer.err
        assert [line[:8] for line in rest] == ["  next: "], answer.err
        assert "Traceback" not in answer.err
        assert all(str(word) in answer.err for word in words), answer.err
        assert content(home) == before

    return check


SETTINGS = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim", batch=2)


@pytest.fixture(scope="session")
def settings() -> Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def mini_pipe() -> Any:
    """The embedded pipeline, loaded once; a test that changes it loads its own."""
    import torch

    from bench.pipeline.switch import load_pipeline

    torch.set_num_threads(1)
    return load_pipeline(Variant(name="base", checkpoint="mini"), SETTINGS, device="cpu")


@pytest.fixture
def mini_copy(tmp_path: Path) -> Path:
    """The embedded pipeline's folder at another place."""
    return Path(shutil.copytree(weights.pipeline_folder(), tmp_path / "elsewhere"))
