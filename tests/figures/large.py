"""``resume_start_s``, ``cost_per_image_10k_over_100`` and their like: what does not draw must not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .commands import installed_command, timed
from .figure import Figure, figure_of, plain_figure, ratio_figure

SMALL, MIDDLE, LARGE = 100, 1_000, 10_000
TURNS = 3
REPORTS = 7
MEMORY = "/dev/shm"
"""Where Linux keeps files in memory."""


def figure_large() -> tuple[Figure, ...]:
    """Runs of 100 and of 10,000 images, drawn by a renderer that paints in no time, 3 times in turns.

    ``cost_per_image_10k_over_100``: wall from the first batch to the last journal line, for each image: PNG, file,
    journal; in a folder in memory, so that it is what this program does. ``cost_per_image_on_disk_10k_over_100``: the
    same where temporary files lie, as it is: most of it is waiting for the disk, which is quick and slow by turns.
    ``peak_10k_over_100``: peak resident memory of the process that does it. ``resume_start_s``: with half of
    10,000 images made, from the call of ``run_stage`` to the first batch that the renderer is asked for; Python's
    imports, which are the same for one image, are done before. ``report_marginal_10k_over_1k``: what an image more
    costs ``hotart-bench report`` between 1,000 and 10,000 images, over what it costs between 100 and 1,000.
    """
    small, large, small_in_memory, large_in_memory = [], [], [], []
    for _ in range(TURNS):
        small.append(painted(SMALL))
        large.append(painted(LARGE))
        small_in_memory.append(painted(SMALL, MEMORY))
        large_in_memory.append(painted(LARGE, MEMORY))
    return (
        figure_of("resume_start_s", [found["resume_start_s"] for found in large], "<", 3),
        ratio_figure(
            "cost_per_image_10k_over_100",
            [found["wall_s"] / LARGE for found in large_in_memory],
            [found["wall_s"] / SMALL for found in small_in_memory],
            "<=",
            1.1,
        ),
        plain_figure(
            "cost_per_image_on_disk_10k_over_100",
            [SMALL * b["wall_s"] / (LARGE * a["wall_s"]) for a, b in zip(small, large, strict=True)],
        ),
        ratio_figure(
            "peak_10k_over_100",
            [found["peak_bytes"] for found in large],
            [found["peak_bytes"] for found in small],
            "<=",
            1.1,
        ),
        report_cost(),
    )


def figure_encoding() -> tuple[Figure, ...]:
    """``encode_peak_10k_over_100``: peak resident memory of a run of 10,000 prompts over that of a run of 100.

    The embedded family's text encoders read them, with guidance and a negative prompt; images are painted.
    """
    small, large = (painted(size, work="encode_work")["peak_bytes"] for size in (SMALL, LARGE))
    return (ratio_figure("encode_peak_10k_over_100", [large], [small], "<=", 1.1),)


def painted(images: int, below: str | None = None, work: str = "large_work") -> dict[str, float]:
    """A run, several where it is short, and a resumption, in a process of their own, with files below ``below``."""
    with tempfile.TemporaryDirectory(dir=below) as place:
        command = [sys.executable, "-m", f"tests.figures.{work}", str(images), f"{place}/run"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment())
    found: dict[str, float] = json.loads(done.stdout)
    return found


def report_cost() -> Figure:
    """The marginal cost of an image of a report, at two sizes; differences of walls, so that it takes more turns."""
    with tempfile.TemporaryDirectory() as place:
        folders = {size: str(Path(place) / str(size)) for size in (SMALL, MIDDLE, LARGE)}
        for size, folder in folders.items():
            write_believable(size, folder)
        turns = [
            {size: timed([installed_command(), "report", folder, "--quiet"]) for size, folder in folders.items()}
            for _ in range(REPORTS)
        ]
    return ratio_figure(
        "report_marginal_10k_over_1k",
        [(wall_s[LARGE] - wall_s[MIDDLE]) / (LARGE - MIDDLE) for wall_s in turns],
        [(wall_s[MIDDLE] - wall_s[SMALL]) / (MIDDLE - SMALL) for wall_s in turns],
        "<=",
        1.1,
    )


def write_believable(images: int, folder: str) -> None:
    """A run of about this many images: 4 variants, 2 samples."""
    code = "import sys; from fakes import make_run, write_run; "
    code += "write_run(make_run(sys.argv[1], prompts=int(sys.argv[2]), variants=('a', 'b', 'c', 'd'), effect={}), "
    code += "sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder, str(round(images / 8))], check=True, env=_environment())


def _environment() -> dict[str, str]:
    tests = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
