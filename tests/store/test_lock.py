"""The lock of a run folder: one writer at a time, gone with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import make_run, write_run

from bench import store
from bench.errors import MachineError
from bench.records import Run
from bench.store import RunFolder, load_run
from bench.suite import protocol_digest


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", prompts=3, samples=2, variants=("base", "spo"))


HOLDER = """
import sys, time
from bench.store import RunFolder
folder = RunFolder.reopen(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def start(run: Run, path: Path, *, fresh: bool = False) -> RunFolder:
    suite = run.info.suite
    return RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite), fresh=fresh)


def test_a_second_process_is_kept_out_until_the_first_is_gone(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    root = Path(store.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for opening in (lambda: RunFolder.reopen(path), lambda: start(run, path, fresh=True)):
            with pytest.raises(MachineError, match=f"in use by process {holder.pid}") as caught:
                opening()
            assert caught.value.exit_code == 6
        assert load_run(path).renders == run.renders  # reading needs no lock
        holder.send_signal(signal.SIGKILL)
    with RunFolder.reopen(path) as folder:
        assert folder.info == run.info
    assert not list(tmp_path.glob("*.old-*"))


def test_the_lock_holds_within_one_process_and_ends_with_the_block(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with start(run, path) as folder:
        folder.write_info(run.info)
        with pytest.raises(MachineError, match=f"in use by process {os.getpid()}"):
            RunFolder.reopen(path)
    RunFolder.reopen(path).close()
    folder.close()  # a second close does nothing
    RunFolder.reopen(path).close()


def test_threads_of_many_openings_hold_it_one_at_a_time(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    inside: list[int] = []
    most: list[int] = []
    refusals: list[str] = []

    def work(number: int) -> None:
        opened = 0
        while opened < 5:
            try:
                with RunFolder.reopen(path):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
                    opened += 1
            except MachineError as error:
                refusals.append(error.message)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == [1] * 20
    assert all("in use by" in message for message in refusals)
    assert not (path / ".lock").exists()
