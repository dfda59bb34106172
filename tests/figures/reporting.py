"""``report_160_over_before``, ``report_again_over_first``, ``report_10k_over_before``: what a report costs."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .before import ROOT, source_of
from .comparing import BEFORE, cpu_s, write_with
from .figure import Figure, plain_figure, ratio_figure

BEFORE_COPIES = "f5c5e17"
"""The last commit that made the small copies of a page's images at each report, by one thread."""
TURNS = 3
LARGE = """
import sys
from fakes import make_run, write_run
write_run(make_run(sys.argv[1], prompts=1250, variants=("a", "b", "c", "d"), effect={}), sys.argv[1])
"""
"""4 variants x 1,250 prompts x 2 samples, small images."""
PICTURES = """
import hashlib, io, sys
from pathlib import Path
import msgspec
import numpy as np
from fakes import make_run
from PIL import Image

folder, side = Path(sys.argv[1]), 1024
run = make_run(folder, prompts=40, samples=1, variants=("base", "dpo", "spo", "merge"))
digests, renders = {}, []
for number, one in enumerate(run.renders):
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.normal(128, 60, (side // 16, side // 16, 3)).clip(0, 255).astype(np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.normal(0, 3, smooth.shape).astype(np.int16)
    png = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(png, "PNG")
    path = folder / one.image
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png.getvalue())
    digests[one.sha256] = hashlib.sha256(png.getvalue()).hexdigest()
    renders.append(msgspec.structs.replace(one, sha256=digests[one.sha256], pixels_sha256=digests[one.sha256]))
scores = [msgspec.structs.replace(one, image_sha256=digests[one.image_sha256]) for one in run.scores]
(folder / "run.json").write_bytes(msgspec.json.encode(run.info))
for name, found in {"renders": renders, "scores": scores, "timings": run.timings}.items():
    (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\\n" for one in found))
"""
"""160 PNG files of 1024x1024, 1.6 MB each: soft shapes with grain, which neither PNG nor WebP finds easy."""


def figure_pictures() -> tuple[Figure, ...]:
    """The report of 160 pictures of 1024x1024 that have no scores yet, so that the page is its pictures.

    ``report_160_over_before``: wall seconds of the first report, over those of the state before, on equal folders in
    turns. ``report_again_over_first``: processor seconds of a second report over those of the first.
    ``report_again_scored_over_first``: the same of a run with scores, whose figures are drawn each time.
    """
    with tempfile.TemporaryDirectory() as place, source_of(BEFORE_COPIES) as older:
        write_with(older, PICTURES, f"{place}/scored")
        bare = shutil.copytree(Path(place) / "scored", Path(place) / "bare")
        for name in ("scores.jsonl", "timings.jsonl"):
            (bare / name).unlink()
        turns = [(*reports(bare, ROOT, 2), *reports(bare, older, 1)) for _ in range(TURNS)]
        scored = reports(Path(place) / "scored", ROOT, 2)
    firsts, agains, befores = zip(*turns, strict=True)
    walls_s = [[one.wall_s for one in found] for found in (firsts, befores)]
    used_s = [[one.cpu_s for one in found] for found in (agains, firsts)]
    return (
        ratio_figure("report_160_over_before", *walls_s, "<=", 0.35),
        ratio_figure("report_again_over_first", *used_s, "<=", 0.1),
        plain_figure("report_again_scored_over_first", [scored[1].cpu_s / scored[0].cpu_s]),
    )


def figure_report() -> tuple[Figure, ...]:
    """``report_10k_over_before``: processor seconds of the report of 10,000 images, over those of the state before."""
    with tempfile.TemporaryDirectory() as place, source_of(BEFORE) as older:
        write_with(older, LARGE, f"{place}/run")
        turns = [[reports(Path(place) / "run", source, 1)[0].cpu_s for source in (ROOT, older)] for _ in range(TURNS)]
    ours_s, before_s = zip(*turns, strict=True)
    return (ratio_figure("report_10k_over_before", ours_s, before_s, "<=", 0.4),)


class Cost(NamedTuple):
    """Of a report, from the start of its process."""

    wall_s: float
    cpu_s: float


def reports(run: Path, source: Path, count: int) -> list[Cost]:
    """What reports by a source cost, one after another, of a fresh copy of a run."""
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(run, Path(place) / "run")
        found = []
        for _ in range(count):
            start = time.perf_counter()
            used_s = cpu_s(["-P", "-m", "bench", "report", str(folder), "--quiet"], source)
            found.append(Cost(time.perf_counter() - start, used_s))
    return found
