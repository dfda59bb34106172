"""``script_over_render`` and ``script_same_batch_over_render``: scripts that users write, over render and score."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

import bench.render
from bench.machine import spare_collector
from bench.mini.networks import load_aesthetic, load_mini_clip, mini_clip_tokens
from bench.mini.weights import lora_file, pipeline_folder
from bench.records import PlannedImage, RunOptions, Suite
from bench.run import run_stage
from bench.suite import load_suite, plan_images

from .figure import Figure, ratio_figure
from .rendering import batches

TURNS = 3
BATCHED_TURNS = 5
METRICS = ("mini-clip", "mini-aesthetic", "mini-preference", "ssim-to-base")
LORAS = {"base": None, "dpo": "dpo", "spo": "spo"}


class Clock:
    """A function that is called as before, and the seconds that its calls took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it."""
        start = time.perf_counter()
        try:
            return self._function(*given, **named)
        finally:
            self.seconds += time.perf_counter() - start


def figure_script() -> tuple[Figure, ...]:
    """The mini suite's 3 variants x 24 prompts x 2 samples, 3 times in turns: rendered, saved and scored.

    The script is a diffusers pipeline for each variant with its LoRA fused, one image at a time from the same seeds,
    steps, guidance and dtype, saved as PNG at the default level; then each file is read and each metric called on it.
    Loading models is left out on both sides and printed beside. Ours holds all else: planning, the comparison of fused
    with run-time LoRAs, hashes, journals.
    """
    suite = msgspec.structs.replace(load_suite("mini"), metrics=METRICS)
    script, ours = [], []
    for _ in range(TURNS):
        with tempfile.TemporaryDirectory() as place:
            steady, loading = script_s(suite, Path(place))
            script.append(steady)
        with tempfile.TemporaryDirectory() as place:
            own_steady, own_loading = ours_s(suite, Path(place) / "run")
            ours.append(own_steady)
        sys.stderr.write(
            f"script {steady:.1f} s and {loading:.1f} s of loading, ours {own_steady:.1f} s and {own_loading:.1f} s\n"
        )
    return (ratio_figure("script_over_render", script, ours, ">=", 2.0),)


def figure_batched_script() -> tuple[Figure, ...]:
    """The same images by a good user's script, in turns; loading counts on both sides, the first turn does not.

    The script draws batches of the suite's size, writes each image as PNG, loads each encoder once, reads each file
    once and scores in batches: CLIPScore and the aesthetic score of one embedding, the preference, SSIM to base. It
    resumes nothing, records nothing and waits for no disk. Threads are torch's own, equally many on both sides.
    """
    spare_collector()  # as in each process of ours, and here for both sides
    suite = msgspec.structs.replace(load_suite("mini"), metrics=METRICS)
    script, ours = [], []
    for _ in range(BATCHED_TURNS + 1):
        with tempfile.TemporaryDirectory() as place:
            script.append(batched_script_s(suite, Path(place)))
        with tempfile.TemporaryDirectory() as place:
            ours.append(stages_s(suite, Path(place) / "run"))
        sys.stderr.write(f"script {script[-1][0]:.2f} and {script[-1][1]:.2f} s, ours {ours[-1][0]:.2f} and ")
        sys.stderr.write(f"{ours[-1][1]:.2f} s of rendering and scoring\n")
    (drawn, scored), (own_drawn, own_scored) = (zip(*side[1:], strict=True) for side in (script, ours))
    both, own_both = ([sum(turn) for turn in side[1:]] for side in (script, ours))
    return (
        ratio_figure("script_same_batch_over_render", drawn, own_drawn, ">=", 1.05),
        ratio_figure("script_same_batch_over_render_and_score", both, own_both, ">=", 1.1),
        ratio_figure("script_same_batch_over_score", scored, own_scored, ">=", 1.0),
    )


def stages_s(suite: Suite, path: Path) -> tuple[float, float]:
    """Seconds of rendering and of scoring, with all that belongs to them."""
    start = time.perf_counter()
    run_stage("render", suite, path, RunOptions(device="cpu"))
    drawn = time.perf_counter()
    run_stage("score", suite, path, RunOptions(device="cpu"))
    return drawn - start, time.perf_counter() - drawn


def batched_script_s(suite: Suite, place: Path) -> tuple[float, float]:
    """Seconds of the batched script until its images are written, and of its scoring."""
    start = time.perf_counter()
    for name in LORAS:
        pipe = load_variant(name)
        for images in batches(suite):
            draw_batch(pipe, suite, images, place, name)
    drawn = time.perf_counter()
    metrics, base = Metrics(), {}
    for name in LORAS:
        for images in batches(suite):
            base = score_batch(metrics, suite, images, place, name, base)
    return drawn - start, time.perf_counter() - drawn


def draw_batch(pipe: Any, suite: Suite, images: Sequence[PlannedImage], place: Path, name: str) -> None:
    """One batch by the pipeline, written as PNG."""
    texts = {prompt.id: prompt.text for prompt in suite.prompts}
    drawn = pipe(
        [texts[planned.prompt_id] for planned in images],
        num_inference_steps=suite.settings.steps,
        guidance_scale=suite.settings.guidance_scale,
        height=suite.settings.height,
        width=suite.settings.width,
        generator=[torch.Generator("cpu").manual_seed(planned.seed) for planned in images],
    ).images
    for planned, image in zip(images, drawn, strict=True):
        image.save(file_of(place, name, planned))


@torch.inference_mode()
def score_batch(
    metrics: Metrics,
    suite: Suite,
    images: Sequence[PlannedImage],
    place: Path,
    name: str,
    base: dict[tuple[str, int], torch.Tensor],
) -> dict[tuple[str, int], torch.Tensor]:
    """Scores of one batch by each of the script's metrics; returns the pictures of base that are known so far."""
    texts = {prompt.id: prompt.text for prompt in suite.prompts}
    batch = torch.cat([pixels(file_of(place, name, planned)) for planned in images])
    if name == "base":
        base = base | {(planned.prompt_id, planned.sample): row for planned, row in zip(images, batch, strict=True)}
    of_base = torch.stack([base[planned.prompt_id, planned.sample] for planned in images])
    scores = metrics.of_batch(batch, [texts[planned.prompt_id] for planned in images], of_base)
    assert all(len(row) == len(images) for row in scores)
    return base


def file_of(place: Path, name: str, planned: PlannedImage) -> Path:
    """Where the script writes an image."""
    return place / f"{name}-{planned.prompt_id}-{planned.sample}.png"


def ours_s(suite: Suite, path: Path) -> tuple[float, float]:
    """Seconds of rendering and scoring without loading the pipeline or turning it into a variant, and of that."""
    real, clock = bench.render.switch_variant, Clock(bench.render.switch_variant)
    bench.render.switch_variant = clock
    try:
        start = time.perf_counter()
        run_stage("render", suite, path, RunOptions(device="cpu"))
        run_stage("score", suite, path, RunOptions(device="cpu"))
        return time.perf_counter() - start - clock.seconds, clock.seconds
    finally:
        bench.render.switch_variant = real


def script_s(suite: Suite, place: Path) -> tuple[float, float]:
    """Seconds of the script without loading, and of loading."""
    prompts = {prompt.id: prompt.text for prompt in suite.prompts}
    images = plan_images(suite)
    load, steady = Clock(load_variant), 0.0
    for name in LORAS:
        pipe = load(name)
        start = time.perf_counter()
        for planned in images:
            image = pipe(
                prompts[planned.prompt_id],
                num_inference_steps=suite.settings.steps,
                guidance_scale=suite.settings.guidance_scale,
                height=suite.settings.height,
                width=suite.settings.width,
                generator=torch.Generator("cpu").manual_seed(planned.seed),
            ).images[0]
            image.save(file_of(place, name, planned))
        steady += time.perf_counter() - start
    load_metrics = Clock(Metrics)
    metrics = load_metrics()
    start = time.perf_counter()
    for name in LORAS:
        for planned in images:
            path = file_of(place, name, planned)
            prompt = prompts[planned.prompt_id]
            metrics.clip(path, prompt)
            metrics.aesthetic(path)
            metrics.preference(path, prompt)
            metrics.similarity(path, file_of(place, "base", planned))
    steady += time.perf_counter() - start
    return steady, load.seconds + load_metrics.seconds


def load_variant(name: str) -> Any:
    """A pipeline as a user loads it."""
    pipe = StableDiffusionXLPipeline.from_pretrained(pipeline_folder(), torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    lora = LORAS[name]
    if lora is not None:
        pipe.load_lora_weights(lora_file(lora))
        pipe.fuse_lora()
    return pipe


class Metrics:
    """The suite's metrics, each on one file at a time."""

    def __init__(self) -> None:
        self._clip, self._tokens = load_mini_clip("mini-clip")
        self._preference, _ = load_mini_clip("mini-preference")
        self._head = load_aesthetic()

    @torch.inference_mode()
    def clip(self, path: Path, prompt: str) -> float:
        """CLIPScore."""
        text = self._clip.embed_tokens(mini_clip_tokens(self._tokens, [prompt]))
        return 100 * float((self._clip.embed_images(pixels(path)) * text).sum().clamp(min=0))

    @torch.inference_mode()
    def aesthetic(self, path: Path) -> float:
        """The regressor on the CLIP embedding."""
        return float(self._clip.embed_images(pixels(path)) @ self._head["weight"] + self._head["bias"])

    @torch.inference_mode()
    def preference(self, path: Path, prompt: str) -> float:
        """The preference model's logit."""
        text = self._preference.embed_tokens(mini_clip_tokens(self._tokens, [prompt]))
        return float(self._preference.score(pixels(path), text))

    @torch.inference_mode()
    def of_batch(self, batch: torch.Tensor, prompts: list[str], base: torch.Tensor) -> tuple[list[float], ...]:
        """CLIPScore, aesthetic score, preference and SSIM to base of a batch (n, 3, H, W)."""
        seen = self._clip.embed_images(batch)
        text = self._clip.embed_tokens(mini_clip_tokens(self._tokens, prompts))
        clip = 100 * (seen * text).sum(dim=1).clamp(min=0)
        aesthetic = seen @ self._head["weight"] + self._head["bias"]
        text = self._preference.embed_tokens(mini_clip_tokens(self._tokens, prompts))
        preference = self._preference.score(batch, text)
        similarity = ssim(batch, base, sigma=1.5, data_range=1.0, reduction="none")
        return clip.tolist(), aesthetic.flatten().tolist(), preference.tolist(), similarity.tolist()

    def similarity(self, path: Path, base: Path) -> float:
        """SSIM to base."""
        return float(ssim(pixels(path), pixels(base), sigma=1.5, data_range=1.0))


def pixels(path: Path) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    levels = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(levels.copy()).permute(2, 0, 1)[None].float() / 255
