from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny

from bench.cli import run_command_line
from bench.run import Outcome


class Answer(NamedTuple):
    code: int
    out: str
    err: str


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

    def run(*arguments: str | Path) -> Answer:
        code = run_command_line([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    import torch

    from bench.run import run_all
    from bench.suite import load_suite

    torch.set_num_threads(1)  # tests and the processes they start share two cores
    place = tmp_path_factory.mktemp("tiny")
    suite_file, told = tiny.write_tiny(place), []
    outcome = run_all(
        load_suite(str(suite_file)),
        place / "run",
        device="cpu",
        progress=lambda stage, done, total, note="": told.append((stage, done, total)),
    )
    return TinyRun(suite_file, place / "run", outcome, tuple(told))
