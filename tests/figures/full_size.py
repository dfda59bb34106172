"""The figures of a full-size run on a GPU, in one process: random weights of SDXL's shape and of the judges'.

    python -m tests.figures.full_size

prints one JSON object a line; on a machine without CUDA it says so and does nothing. The same code runs at the sizes
of ``TINY`` on a CPU, which is how it is tested.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import torch
from PIL import Image

import bench.render
from bench.metrics import Inputs, LoadedJointTower, Metric, Place, Registry, Tower
from bench.records import Dtype, Lora, Settings, Suite, Variant
from bench.run import run_stage
from bench.score import score
from bench.store import RunFolder
from bench.suite import load_suite, plan_cells, protocol_digest
from bench.variants import load_pipeline
from bench.variants.models import turn_into
from tests.metrics.official_imagereward import Layout
from tests.metrics.official_layouts import SMALL_H14, SMALL_L14

from .figure import Figure, held, held_ratio
from .merge_work import write_lora
from .random_judges import PANEL, PUBLISHED_SIZES, Sizes, panel_of, unpinned, write_judges
from .rendering import batches, denoise_and_decode, prepare
from .script import Clock
from .switching import figure_switch

TURNS = 3


@dataclass(frozen=True)
class Size:
    """How large the run is, and where it computes."""

    device: str
    shape: str
    """Of the random checkpoint."""
    side_px: int
    steps: int
    prompts: int
    samples: int
    batch: int
    dtype: Dtype
    judges: Sizes


FULL = Size("cuda", "sdxl", 1024, 30, 16, 2, 8, "bfloat16", PUBLISHED_SIZES)
TINY = Size("cpu", "tiny", 64, 2, 2, 1, 2, "float32", Sizes(SMALL_L14, SMALL_H14, Layout()))


@dataclass(frozen=True)
class Bench:
    """What every figure of one size works with."""

    size: Size
    place: Path
    suite: Suite
    registry: Registry
    """The panel on towers that are in memory already."""

    @property
    def weights(self) -> Path:
        """Where the judges' heads lie."""
        return self.place / "judges"


def main() -> None:
    """Print every figure as it is known."""
    if not torch.cuda.is_available():
        sys.stdout.write("There is no CUDA device here: the figures of a full-size run were not computed.\n")
        return
    for figure in chain(figures(FULL), figure_switch()):
        sys.stdout.write(figure.line() + "\n")
        sys.stdout.flush()


def figures(size: Size) -> Iterator[Figure]:
    """The figures of one size, one after another."""
    with tempfile.TemporaryDirectory() as place, set_up(size, Path(place)) as bench_:
        for figure in (render_over_floor, switch, score_over_towers, script_over_render):
            yield msgspec.structs.replace(figure(bench_), where=device_name(size.device))


@contextmanager
def set_up(size: Size, place: Path) -> Iterator[Bench]:
    """Random LoRAs, judges and the suite; about 12 GB of disk at full size."""
    for number in (1, 2):
        write_lora(place / f"lora-{number}.safetensors", size.shape, seed=number)
    write_judges(place / "judges", size.judges)
    with unpinned(place / "judges"):
        yield Bench(size, place, suite_of(size, place), loaded(panel_of(size.judges), size, place / "judges"))


def suite_of(size: Size, place: Path) -> Suite:
    """A base and two variants with a LoRA fused, on the first prompts of the SDXL suite."""
    base = Variant(name="base", checkpoint=f"random:{size.shape}")
    loras = [(Lora(path=str(place / f"lora-{number}.safetensors"), weight=0.8),) for number in (1, 2)]
    known = load_suite("sdxl")
    return msgspec.structs.replace(
        known,
        name="full-size",
        cases=known.cases[: size.prompts],
        samples=size.samples,
        metrics=PANEL,
        limits={},
        settings=Settings(
            width=size.side_px,
            height=size.side_px,
            steps=size.steps,
            guidance=5.0,
            sampler="ddim",
            dtype=size.dtype,
            batch=size.batch,
        ),
        variants=(base, *(msgspec.structs.replace(base, name=f"lora-{n}", loras=lora) for n, lora in enumerate(loras))),
    )


def loaded(registry: Registry, size: Size, weights: Path) -> Registry:
    """The registry with its towers in memory, so that loading is no part of a figure."""
    place = Place(size.device, weights)
    towers = {name: tower.load(place) for name, tower in registry.towers.items()}
    kept = {name: Tower(name, lambda _, tower=tower: tower) for name, tower in towers.items()}
    return replace(registry, towers=kept)


def render_over_floor(bench_: Bench) -> Figure:
    """Wall of drawing the base variant, prompts encoded and PNGs and journals written, over the bare loop.

    The floor holds the UNet's steps with guidance, the scheduler and the VAE's decoding of the same batches; its
    text embeddings and noise lie ready. Loading is on neither side. In turns, after one of each that is not counted.
    """
    size, suite = bench_.size, bench_.suite
    pipe = load_pipeline(suite.variants[0], suite.settings, device=size.device)
    ready = [prepare(pipe, suite, cells, size.device) for cells in batches(suite)]

    def drawn(number: int) -> None:
        place = bench_.place / f"floor-{number}"
        with RunFolder.open(place, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
            planned = list(batches(suite))
            encoded = bench.render.encode_cases(pipe, suite, planned)
            for _ in bench.render.render_batches(pipe, suite, "base", planned, folder, encoded):
                pass

    def bare() -> None:
        for inputs in ready:
            denoise_and_decode(pipe, suite, **inputs)

    pairs = [(timed(size, partial(drawn, turn)), timed(size, bare)) for turn in range(TURNS + 1)][1:]
    render_s, floor_s = zip(*pairs, strict=True)
    return held_ratio("render_over_floor", render_s, floor_s, "<=", 1.05)


def switch(bench_: Bench) -> Figure:
    """Seconds of turning the loaded model from one variant with a LoRA into the other, the LoRA's file read anew."""
    size, suite = bench_.size, bench_.suite
    model, _ = turn_into(None, suite.variants[1], suite.settings, device=size.device, weights_dir=None)

    def turn(variant: Variant) -> None:
        turn_into(model, variant, suite.settings, device=size.device, weights_dir=None)

    others = [suite.variants[2 - number % 2] for number in range(2 * TURNS)]
    return held("switch_s", [timed(size, partial(turn, variant)) for variant in others], "<=", 0.5)


def score_over_towers(bench_: Bench) -> Figure:
    """Wall of ``score`` with the whole panel over the bare forwards of its towers on pixels and prompts that lie ready.

    Images are read from PNG. The same batches on both sides, the last one padded; towers are loaded.
    """
    size, suite = bench_.size, bench_.suite
    path = bench_.place / "scored"
    run_stage("render", suite, path, device=size.device)
    with RunFolder.reopen(path) as folder:
        files = [folder.path / (item.image or "") for item in folder.renders()]
        prompts = {case.id: case.prompt for case in suite.cases}
        texts = [prompts[item.case] for item in folder.renders()]
    bare = [bare_forwards(bench_, files, texts) for _ in range(TURNS)]
    whole = [timed(size, partial(score_all, bench_, path, turn)) for turn in range(TURNS)]
    return held_ratio("score_over_towers", whole, bare, "<=", 1.25)


def score_all(bench_: Bench, path: Path, turn: int) -> None:
    """Every score of the panel, though there may be some already: from a copy of the journals without them."""
    copy = shutil.copytree(path, bench_.place / f"scored-{turn}")
    with RunFolder.reopen(copy) as folder:
        score(
            folder,
            metrics=PANEL,
            device=bench_.size.device,
            weights_dir=bench_.weights,
            registry=bench_.registry,
        )
        if any(item.value is None for item in folder.scores()):
            raise SystemExit(f"No score: {next(item.reason for item in folder.scores() if item.value is None)}")


@torch.inference_mode()
def bare_forwards(bench_: Bench, files: Sequence[Path], texts: Sequence[str]) -> float:
    """Seconds of the towers' forwards alone: each distinct prompt once, each image once a view."""
    size, seconds = bench_.size, 0.0
    for name, tower in bench_.registry.towers.items():
        judge: Any = tower.load(Place(size.device, bench_.weights))
        metrics = [metric for metric in bench_.registry.metrics.values() if metric.facts.tower == name]
        images = [Image.open(file).convert("RGB") for file in files]
        rows = [judge.preprocess(image, metrics[0].view) for image in images]
        joint = isinstance(judge, LoadedJointTower)
        prompts = list(dict.fromkeys(texts))

        def forward(judge: Any = judge, rows: list[Any] = rows, joint: bool = joint, own: list[str] = prompts) -> None:
            for start in range(0, len(rows), judge.batch):
                pixels = torch.stack(padded(rows[start : start + judge.batch], judge.batch)).to(size.device)
                if joint:
                    judge.score(pixels, padded(list(texts[start : start + judge.batch]), judge.batch))
                else:
                    judge.embed_images(pixels)
            for start in range(0, 0 if joint else len(own), judge.batch):
                judge.embed_texts(padded(own[start : start + judge.batch], judge.batch))

        forward()
        seconds += timed(size, forward)
    return seconds


def script_over_render(bench_: Bench) -> Figure:
    """The loop that users write today, over render and score of the same images; loading is on neither side.

    A diffusers pipeline for each variant, one image at a time from the same seeds, PNG at the default level, then
    each metric of the panel called on one file at a time. Ours holds all else, the comparison of fused with run-time
    LoRAs too. Once, since it takes minutes.
    """
    size, suite = bench_.size, bench_.suite
    real, clock = bench.render.turn_into, Clock(bench.render.turn_into)
    bench.render.turn_into = clock
    path = bench_.place / "ours"
    try:
        ours_s = timed(size, lambda: run_stage("render", suite, path, device=size.device)) - clock.seconds
    finally:
        bench.render.turn_into = real
    ours_s += timed(size, partial(score_all, bench_, path, TURNS))
    script_s = timed_script(bench_)
    return held_ratio("script_over_render", [script_s], [ours_s], ">=", 2.7)


def timed_script(bench_: Bench) -> float:
    """Seconds of the script without loading."""
    size, suite, seconds = bench_.size, bench_.suite, 0.0
    prompts = {case.id: case.prompt for case in suite.cases}
    cells = plan_cells(suite)
    place = bench_.place / "script"
    place.mkdir()
    for variant in suite.variants:
        pipe = load_pipeline(variant, suite.settings, device=size.device)
        pipe.set_progress_bar_config(disable=True)

        def draw(pipe: Any = pipe, name: str = variant.name) -> None:
            for cell in cells:
                image = pipe(
                    prompts[cell.case],
                    num_inference_steps=size.steps,
                    guidance_scale=suite.settings.guidance,
                    height=size.side_px,
                    width=size.side_px,
                    generator=torch.Generator("cpu").manual_seed(cell.seed),
                ).images[0]
                image.save(place / f"{name}-{cell.case}-{cell.sample}.png")

        seconds += timed(size, draw)
        del pipe, draw
    files = [
        (place / f"{variant.name}-{cell.case}-{cell.sample}.png", prompts[cell.case])
        for variant in suite.variants
        for cell in cells
    ]
    where = Place(size.device, bench_.weights)
    for metric in bench_.registry.metrics.values():
        tower = bench_.registry.towers[metric.facts.tower or ""].load(where)
        head = None if metric.load_head is None else metric.load_head(where)
        seconds += timed(size, partial(call_each, metric, tower, head, files, size.device))
    return seconds


@torch.inference_mode()
def call_each(metric: Metric, tower: Any, head: Any, files: Sequence[tuple[Path, str]], device: str) -> list[float]:
    """A metric on one image at a time."""
    values = []
    for file, prompt in files:
        pixels = tower.preprocess(Image.open(file).convert("RGB"), metric.view)[None].to(device)
        joint = tower.score(pixels, [prompt]) if isinstance(tower, LoadedJointTower) else None
        inputs = Inputs(
            prompts=(prompt,),
            pixels=pixels.new_empty((0, 3, 0, 0)),
            reference_pixels=None,
            image_embeds=None if joint is not None else tower.embed_images(pixels),
            text_embeds=None if joint is not None or not metric.needs_text else tower.embed_texts([prompt]),
            logit_scale=1.0 if joint is not None else tower.logit_scale,
            head=head,
            joint=joint,
        )
        values.append(float(metric(inputs)))
    return values


def padded(rows: list[Any], to: int) -> list[Any]:
    """Rows with the last one repeated, to a full batch."""
    return rows + [rows[-1]] * (to - len(rows))


def timed(size: Size, work: Callable[[], Any]) -> float:
    """Wall seconds until the device has done it."""
    settle(size)
    start = time.perf_counter()
    work()
    settle(size)
    return time.perf_counter() - start


def settle(size: Size) -> None:
    """Wait until the device has done what it was told."""
    if size.device == "cuda":
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """What a figure was measured on."""
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    main()
