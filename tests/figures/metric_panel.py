"""Figures of the metrics: what sharing an encoder saves, what ``score`` costs beyond it, and the memory of a panel.

Weights are random: they cost the same time and memory as the published ones.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image

from bench.metrics import Encoder, Metric, Place, Registry, registry_of
from bench.metrics.aesthetic import aesthetic_v1, aesthetic_v2
from bench.metrics.encoders import VIT_L14, ClipEncoder
from bench.metrics.openai_clip import clip_score, load_openai_clip
from bench.records import RUN_SCHEMA, Fingerprint, Machine, Prompt, Render, RunInfo
from bench.score import score
from bench.store import RunFolder
from bench.suite import load_suite, plan_images, protocol_digest
from tests.metrics.official_layouts import random_clip, random_head

from .figure import Figure, figure_of, plain_figure, ratio_figure

IMAGES, SIDE_PX = 24, 1024
PANEL_TURNS, REPEATS = 2, 3
NAMES = ("aesthetic-v1", "aesthetic-v2", "clip-l14")
LARGEST = ("pickscore", "hpsv2")
"""The metrics of which either's encoder may be the largest: equal in size, stored in single and in half precision."""


def figure_panel() -> tuple[Figure, ...]:
    """The three metrics of ViT-L/14 over 24 pictures of 1024x1024: together, one by one, and the bare forwards.

    In turns, in one process, with one loaded encoder, after a forward that is not counted; a turn is ten forwards of
    16 pictures, minutes on two cores, so there are only two. ``panel_over_separate`` is how
    many times as fast the panel is as three calls of one metric each, at the same batch and dtype.
    ``separate_over_shared_forwards`` is what that would be if nothing but forwards took time: each call puts the
    pictures through the encoder, and one of them the prompts too. No call does anything that the panel does not do, so
    that three of them never take more than three times as long. ``score_over_encoders`` is the panel's wall over that
    of the forwards alone, on pictures and prompts that lie ready.
    """
    encoder = load_openai_clip(random_clip(VIT_L14, 0), Place(), Path("random"))
    registry = panel_registry(encoder)
    with tempfile.TemporaryDirectory() as place:
        pictures = [picture(number) for number in range(IMAGES)]
        bare_s(encoder, pictures[:1])
        turns = [turn(Path(place) / str(number), encoder, registry, pictures) for number in range(PANEL_TURNS)]
    together, separate, of_images, of_prompts = zip(*turns, strict=True)
    bare = [images_s + prompts_s for images_s, prompts_s in zip(of_images, of_prompts, strict=True)]
    apart = [len(NAMES) * images_s + prompts_s for images_s, prompts_s in zip(of_images, of_prompts, strict=True)]
    return (
        ratio_figure("panel_over_separate", separate, together, ">=", 3.2),
        plain_figure("separate_over_shared_forwards", [a / b for a, b in zip(apart, bare, strict=True)]),
        ratio_figure("score_over_encoders", together, bare, "<=", 1.15),
    )


def panel_registry(encoder: ClipEncoder) -> Registry:
    """The three metrics on an encoder that is loaded already, with heads that are."""
    heads = {"aesthetic-v1": aesthetic_v1, "aesthetic-v2": aesthetic_v2}
    return registry_of(
        *(with_head(metric, name) for name, metric in heads.items()),
        clip_score,
        Encoder("openai-vit-l14", lambda place: encoder),
    )


def with_head(metric: Metric, name: str) -> Metric:
    """The metric with a random head in memory."""
    head = random_head(name, 0)
    stems = dict.fromkeys(key.removesuffix("weight").removesuffix("bias") for key in head)
    layers = tuple((head[f"{stem}weight"], head[f"{stem}bias"]) for stem in stems)
    return dataclasses.replace(metric, load_head=lambda place: layers, weights=())


def turn(
    place: Path, encoder: ClipEncoder, registry: Registry, pictures: Sequence[bytes]
) -> tuple[float, float, float, float]:
    """Wall seconds of the panel, of its metrics one by one, and of the bare forwards of pictures and of prompts.

    Raises:
        SystemExit: the panel and the single calls gave different scores; then the figure would mean nothing.
    """
    together_s, together = scored_s(place / "together", NAMES, registry, pictures)
    separate_s, separate = 0.0, dict[tuple[str, ...], float | None]()
    for name in NAMES:
        wall_s, values = scored_s(place / name, (name,), registry, pictures)
        separate_s, separate = separate_s + wall_s, separate | values
    if together != separate or None in together.values():
        raise SystemExit("The panel and three separate calls gave different scores.")
    return together_s, separate_s, *bare_s(encoder, pictures)


def scored_s(
    place: Path,
    names: Sequence[str],
    registry: Registry,
    pictures: Sequence[bytes],
    shape: tuple[int, int] = (1, 1),
) -> tuple[float, dict[tuple[str, ...], float | None]]:
    """Wall seconds of ``score`` from the PNGs to the journals on the disk, and the scores; ``shape`` as below."""
    with run_folder(place, names, pictures, shape) as folder:
        start = time.perf_counter()
        score(folder, metrics=names, registry=registry)
        wall_s = time.perf_counter() - start
        if any(item.value is None and item.reason is None for item in folder.set_scores()):
            raise SystemExit("A set has no number and no reason.")
        return wall_s, {
            (item.metric, item.variant, item.prompt_id, str(item.sample)): item.value for item in folder.scores()
        }


def bare_s(encoder: ClipEncoder, pictures: Sequence[bytes]) -> tuple[float, float]:
    """Wall seconds of the forwards of pictures and of prompts that the panel needs, padded as ``score`` pads them."""
    ready = [encoder.preprocess(Image.open(io.BytesIO(data)), "torchvision") for data in pictures]
    prompts = [f"prompt {number}" for number in range(len(pictures))]
    start = time.perf_counter()
    for first in range(0, len(ready), encoder.batch):
        rows = ready[first : first + encoder.batch]
        encoder.embed_images(torch.stack(rows + [rows[-1]] * (encoder.batch - len(rows))))
    between = time.perf_counter()
    for first in range(0, len(prompts), encoder.batch):
        texts = prompts[first : first + encoder.batch]
        encoder.embed_texts(texts + [texts[-1]] * (encoder.batch - len(texts)))
    return between - start, time.perf_counter() - between


def run_folder(
    place: Path, names: Sequence[str], pictures: Sequence[bytes], shape: tuple[int, int] = (1, 1)
) -> RunFolder:
    """A run with these pictures and no scores; ``shape`` is how many variants and samples they are of."""
    variants, samples = shape
    count = len(pictures) // (variants * samples)
    prompts = tuple(Prompt(id=f"case-{number:02d}", text=f"prompt {number}") for number in range(count))
    base = load_suite("mini")
    suite = msgspec.structs.replace(
        base, prompts=prompts, samples=samples, metrics=tuple(names), variants=base.variants[:variants], limits=()
    )
    chosen = [variant.name for variant in suite.variants]
    info = RunInfo(
        schema=RUN_SCHEMA,
        id="panel",
        status="complete",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=tuple(
            Fingerprint(name=name, digest="0" * 64, checkpoint="none", pipeline="none", files=()) for name in chosen
        ),
        metrics=(),
        machine=Machine(os="Linux", cpu="none", cores=2, memory_bytes=2**33, device="cpu", device_name="none"),
        packages={},
        git=None,
        start="2025-01-01T00:00:00+00:00",
        end=None,
    )
    place.mkdir(parents=True)
    (place / "run.json").write_bytes(msgspec.json.encode(info))
    folder = RunFolder.reopen(place)
    planned_images = [(variant, planned) for variant in chosen for planned in plan_images(suite)]
    for (variant, planned), data in zip(planned_images, pictures, strict=True):
        image, sha256 = folder.write_image(variant, planned.prompt_id, planned.sample, data)
        render = Render(
            variant=variant,
            prompt_id=planned.prompt_id,
            sample=planned.sample,
            seed=planned.seed,
            batch=planned.batch,
            decode_dtype="float32",
            image=image,
            sha256=sha256,
            pixels_sha256=sha256,
        )
        folder.append_renders([render])
    return folder


def picture(number: int) -> bytes:
    """A PNG with gradients and grain, about as hard to decode as a render."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX
    smooth = np.stack([x, y, np.sin(9 * x + number) ** 2], -1) * 255
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def figure_memory() -> tuple[Figure, ...]:
    """Peak resident memory of ``score`` with all seven metrics over that with the largest encoder's alone.

    In processes of their own, from files in the official layouts. The five encoders are about a fifth of the published
    ones each, so that the figure fits a small machine. Interpreter and libraries count on both sides, as a user
    sees it.
    """
    from .random_metrics import PANEL

    ratios = [_peak_bytes(PANEL) / max(_peak_bytes((name,)) for name in LARGEST) for _ in range(REPEATS)]
    return (figure_of("panel_memory_over_largest", ratios, "<=", 1.15),)


def _peak_bytes(metrics: Sequence[str]) -> int:
    command = [sys.executable, "-m", "tests.figures.panel_memory", *metrics]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return int(done.stdout)
