"""Gives one command again and again, each time killed at another point: ``kill_driver.py SUITE FOLDER SNAPSHOTS``.

Every command is a process of its own, forked after the slow imports. The state that it leaves is copied to
``SNAPSHOTS/<point>``, what it said to ``SNAPSHOTS/<point>.err``; how it ended is the JSON object on stdout.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import torch
from tiny import TIMER

import bench.render
import bench.run.stages
import bench.store
from bench.cli import main as command_line
from bench.measure import measure

writing = threading.local()


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(batch: int, number: signal.Signals) -> None:
    """Send ourselves a signal in the first denoising step of a batch (from 1): the one before is on record then."""
    denoise, count = bench.render.stages.denoise, itertools.count(1)

    def stop(step: int) -> None:
        os.kill(os.getpid(), number)

    def stopped(*arguments: object) -> object:
        return denoise(*arguments, stop if next(count) == batch else None)

    bench.render.stages.denoise = stopped


def in_write(name: str) -> None:
    """Die when three fifths of a file's new bytes are on the disk: whole lines, and the beginning of one."""
    real_sync = os.fsync

    def named(function):
        def call(path: Path, data: object) -> None:
            writing.path, writing.size = path, path.stat().st_size if path.exists() else 0
            function(path, data)

        return call

    def sync(file: int) -> None:
        if writing.path.name == name:
            # An append keeps what was there; a whole file is new under its temporary name.
            start = writing.size if name.endswith(".jsonl") else 0
            os.ftruncate(file, start + (os.fstat(file).st_size - start) * 3 // 5)
            real_sync(file)
            die()
        real_sync(file)

    bench.store.write_whole = named(bench.store.write_whole)
    bench.store.journal.append_records = named(bench.store.journal.append_records)
    os.fsync = sync


def arm(point: str) -> None:
    bench.run.stages.measure = functools.partial(measure, command=TIMER)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    match point:
        case "png":
            in_write("dunes-0.png")
        case "batch":
            in_step(2, signal.SIGKILL)
        case "journal":
            in_write("renders.jsonl")
        case "interrupt":
            in_step(5, signal.SIGINT)  # two before it compare fused and unfused LoRAs, for the audit
        case "scores":
            in_write("scores.jsonl")
        case "measure":
            bench.run.stages.measure = die
        case "report":
            bench.run.stages.write_report = die


def child(point: str, suite: str, folder: Path, said: Path) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    arm(point)
    sys.argv = ["hotart-bench", "run", suite, "-o", str(folder), "--device", "cpu", "--quiet"]
    command_line()


def main(suite: str, folder: Path, snapshots: Path) -> None:
    torch.set_num_threads(1)
    ends = {}
    for point in ("png", "batch", "journal", "interrupt", "scores", "measure", "report"):
        process = os.fork()
        if process == 0:
            try:
                child(point, suite, folder, snapshots / f"{point}.err")
            except SystemExit as end:
                os._exit(end.code)
            finally:
                os._exit(99)
        ends[point] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        shutil.copytree(folder, snapshots / point)
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
