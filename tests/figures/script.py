"""``script_over_render``: the loop that users write today, over render and score of the same images."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

import bench.render
from bench.mini.networks import load_mini_clip, mini_clip_tokens
from bench.mini.weights import lora_file, pipeline_folder, weight_file
from bench.records import RunOptions, Suite
from bench.run import run_stage
from bench.suite import load_suite, plan_images

from .figure import Figure, held_ratio

TURNS = 3
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
    return (held_ratio("script_over_render", script, ours, ">=", 2.0),)


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
    cells = plan_images(suite)
    load, steady = Clock(load_variant), 0.0
    for name in LORAS:
        pipe = load(name)
        start = time.perf_counter()
        for cell in cells:
            image = pipe(
                prompts[cell.prompt_id],
                num_inference_steps=suite.settings.steps,
                guidance_scale=suite.settings.guidance_scale,
                height=suite.settings.height,
                width=suite.settings.width,
                generator=torch.Generator("cpu").manual_seed(cell.seed),
            ).images[0]
            image.save(place / f"{name}-{cell.prompt_id}-{cell.sample}.png")
        steady += time.perf_counter() - start
    judge = Clock(Judges)
    judges = judge()
    start = time.perf_counter()
    for name in LORAS:
        for cell in cells:
            path = place / f"{name}-{cell.prompt_id}-{cell.sample}.png"
            prompt = prompts[cell.prompt_id]
            judges.clip(path, prompt)
            judges.aesthetic(path)
            judges.preference(path, prompt)
            judges.similarity(path, place / f"base-{cell.prompt_id}-{cell.sample}.png")
    steady += time.perf_counter() - start
    return steady, load.seconds + judge.seconds


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


class Judges:
    """The suite's metrics, each on one file at a time."""

    def __init__(self) -> None:
        from safetensors.torch import load_file

        self._clip, self._tokens = load_mini_clip("mini-clip")
        self._preference, _ = load_mini_clip("mini-preference")
        self._head = {
            key: value.float() for key, value in load_file(weight_file("judges/mini-aesthetic.safetensors")).items()
        }

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

    def similarity(self, path: Path, base: Path) -> float:
        """SSIM to base."""
        return float(ssim(pixels(path), pixels(base), sigma=1.5, data_range=1.0))


def pixels(path: Path) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    levels = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(levels.copy()).permute(2, 0, 1)[None].float() / 255
