"""Figures of the installed command: a whole run, the same run again, and the help."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from .figure import Figure, figure_of, ratio_figure

SAMPLE_S = 0.1
"""How often memory is read; a peak shorter than this can be missed."""
GIB = 2**30


def figure_run() -> tuple[Figure, ...]:
    """The mini suite into a fresh folder, then again when it is finished."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        command = [installed_command(), "run", "mini", "-o", str(folder), "--quiet"]
        wall_s, peak_bytes = watched(command)
        again_s = [timed(command) for _ in range(3)]
    return (
        figure_of("run_s", [wall_s], "<", 180),
        figure_of("run_peak_gib", [peak_bytes / GIB], "<", 2.5),
        figure_of("rerun_of_finished_run_s", again_s, "<", 3),
    )


def figure_quick() -> tuple[Figure, ...]:
    """``quick`` on the embedded family with its SPO LoRA, from the start of the process to the report, 3 times."""
    walls = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as place:
            models = ["--checkpoint", "mini", "--lora", "mini:spo"]
            walls.append(timed([installed_command(), "quick", *models, "-o", str(Path(place) / "run"), "--quiet"]))
    return (figure_of("quick_mini_s", walls, "<=", 40),)


def figure_help() -> tuple[Figure, ...]:
    """The wall of ``--help`` over that of a Python that imports typer, 7 times in turns after one unseen."""
    help_command = [installed_command(), "--help"]
    bare_command = [sys.executable, "-c", "import typer"]
    pairs = [(timed(help_command), timed(bare_command)) for _ in range(8)][1:]
    help_s, bare_s = zip(*pairs, strict=True)
    return (ratio_figure("help_over_python", help_s, bare_s, "<=", 3),)


def figure_start() -> tuple[Figure, ...]:
    """A process that imports what a model needs and ends, as ours do over as Python does by itself; 5 in turns."""
    work = "import bench.pipeline.build"
    ours = f"from bench.machine import spare_collector; spare_collector(); {work}"
    commands = [[sys.executable, "-W", "ignore", "-c", code] for code in (ours, work)]
    pairs = [[timed(command) for command in commands] for _ in range(6)][1:]
    sparing_s, plain_s = zip(*pairs, strict=True)
    return (ratio_figure("start_over_plain_python", sparing_s, plain_s, "<=", 0.85),)


def installed_command() -> str:
    """The console script beside the Python that runs this."""
    script = Path(sys.executable).with_name("hotart-bench")
    if not script.exists():
        raise SystemExit(f"{script} is missing: install the package first (pip install .).")
    return str(script)


def timed(command: Sequence[str]) -> float:
    """Wall seconds of a command that succeeds; one that fails is an error, not a figure."""
    start = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall_s = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return wall_s


def watched(command: Sequence[str]) -> tuple[float, int]:
    """Wall seconds of a command, and the peak of the resident memory of all its processes together, in bytes.

    Pages that processes share are counted in each, so the sum is an upper bound.
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        while process.poll() is None:
            peak = max(peak, tree_rss_bytes(process))
            time.sleep(SAMPLE_S)
        wall_s = time.perf_counter() - start
        if process.returncode:
            stderr.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{stderr.read()}")
    return wall_s, peak


def tree_rss_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and its descendants; one that ends meanwhile counts nothing."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
