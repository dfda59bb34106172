"""How often ``score`` decodes a picture, and the processor time of that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.render import render
from bench.score import images, score
from bench.store import RunFolder
from bench.suite import load_suite, plan_images, protocol_digest

from .before import turns
from .figure import Figure, figure_of, ratio_figure
from .metric_panel import run_folder

BEFORE = "f5c5e17"
"""The last commit in which each pass decoded the pictures."""
TURNS = 5
VARIANTS, PROMPTS, SAMPLES = 3, 6, 2
ON_ENCODERS = ("mini-clip", "mini-aesthetic", "mini-preference", "mini-clip-2", "mini-preference-2")
METRICS = ("saturation", "blur", "ssim-to-base", "diversity", *ON_ENCODERS)
"""Six passes over the pictures: their pixels, their other samples, and four encoders."""
PROGRAM = f"""
import json, tempfile, time
from pathlib import Path
import bench
from bench.score import score
from tests.figures.metric_panel import picture, run_folder

NAMES = {("saturation", *ON_ENCODERS)!r}
with tempfile.TemporaryDirectory() as place:
    with run_folder(Path(place) / "run", NAMES, [picture(number) for number in range(9)], (3, 1)) as folder:
        start = time.process_time()
        score(folder, metrics=NAMES)
        print(json.dumps({{"value": time.process_time() - start, "bench": bench.__file__}}))
"""


def figure_decodes() -> tuple[Figure, ...]:
    """The variants of the suite ``mini`` on six prompts, two samples each, drawn and scored by nine metrics.

    ``score_decodes_per_picture`` is how often an image file was decoded, over how many there are;
    ``score_cpu_over_before`` the processor time of scoring 9 pictures of 1024x1024 in five passes, in turns.
    """
    with tempfile.TemporaryDirectory() as place:
        pictures = drawn(Path(place) / "drawn")
        with run_folder(Path(place) / "run", METRICS, pictures, (VARIANTS, SAMPLES)) as folder, counted() as decoded:
            score(folder, metrics=METRICS)
    ours, before = turns(PROGRAM, BEFORE, TURNS)
    return (
        figure_of("score_decodes_per_picture", [len(decoded) / len(pictures)], "<=", 1.0),
        ratio_figure("score_cpu_over_before", ours, before, "<=", 1.0),
    )


def drawn(place: Path) -> list[bytes]:
    """The image files of the suite's first variants and prompts."""
    base = load_suite("mini")
    suite = msgspec.structs.replace(
        base, prompts=base.prompts[:PROMPTS], samples=SAMPLES, variants=base.variants[:VARIANTS], limits=()
    )
    with RunFolder.open(place, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
        render(suite, folder, variants=suite.variants, device="cpu")
        return [
            folder.image_path(variant.name, planned.prompt_id, planned.sample).read_bytes()
            for variant in suite.variants
            for planned in plan_images(suite)
        ]


@contextmanager
def counted() -> Iterator[list[int]]:
    """The sizes in bytes of the image files that are decoded meanwhile, all of which ``open_picture`` opens."""
    sizes, opening = list[int](), images.open_picture

    def counting(data: bytes, max_side_px: int | None = None) -> images.OpenedPicture:
        sizes.append(len(data))
        return opening(data, max_side_px)

    images.open_picture = counting
    try:
        yield sizes
    finally:
        images.open_picture = opening
