"""Figures of merging: wall over reading, hashing and writing the same files, and over a script's; peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from .commands import GIB
from .figure import Figure, figure_of, ratio_figure

TURNS = 2
INPUTS = ("a.safetensors", "b.safetensors")


class Work(msgspec.Struct, frozen=True):
    """What one process of ``merge_work`` took."""

    wall_s: float
    peak_bytes: int
    largest_bytes: int


def figure_merge(shape: str = "sdxl") -> tuple[Figure, ...]:
    """Two checkpoints of random float16 numbers are merged, with one LoRA, into a third; 28 GB of disk for SDXL.

    Against the same work without a merge: both files hashed and read, and one written, with plain safetensors. And
    against a script that merges as plainly: all in memory, no hashes. Each in a process of its own, from files that
    are not in the page cache, all ending with fsync. In turns. The peak is of the merging process's resident memory,
    above the largest tensor as it is stored; the script holds one file and maps two.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        work("inputs", folder, shape)
        turns = [[cold(what, folder) for what in ("plain", "merge", "script")] for _ in range(TURNS)]
    plain, merged, script = zip(*turns, strict=True)
    return (
        ratio_figure("merge_over_script", [one.wall_s for one in merged], [one.wall_s for one in script], "<=", 1.1),
        ratio_figure("merge_over_io", [one.wall_s for one in merged], [one.wall_s for one in plain], "<=", 1.6),
        figure_of("merge_peak_gib", [(one.peak_bytes - one.largest_bytes) / GIB for one in merged], "<=", 2.5),
    )


def cold(what: str, folder: Path) -> Work:
    """The work, once nothing is left to be written and none of the inputs is in memory."""
    (folder / "out.safetensors").unlink(missing_ok=True)
    os.sync()
    for name in INPUTS:
        handle = os.open(folder / name, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    return work(what, folder)


def work(*arguments: object) -> Work:
    """Runs ``merge_work`` in a process of its own; the wall includes its start."""
    command = [sys.executable, "-m", "tests.figures.merge_work", *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wall_s = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    peak_bytes, largest_bytes = map(int, done.stdout.split()[-2:])
    return Work(wall_s=wall_s, peak_bytes=peak_bytes, largest_bytes=largest_bytes)
