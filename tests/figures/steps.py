"""``steps_over_parts``, ``steps_peak_...``, ``range_over_plain``: what scoring steps costs, and weights by step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from bench.metrics import Place, installed
from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline, switch_variant
from bench.records import PlannedImage, Suite, Variant
from bench.render import render
from bench.steps.paths import score_steps
from bench.steps.plan import open_step_jobs
from bench.steps.scorers import Scorer, StepBatch, open_scorers
from bench.store import RunFolder
from bench.suite import load_suite, protocol_digest

from .figure import Figure, ratio_figure
from .rendering import batches, decode, denoise_and_decode, prepare

REPEATS, PROMPTS, METRIC = 3, 16, "mini-preference"
PEAKS = (("prompts", 10_000), ("prompts", 100), ("steps", 20), ("steps", 1))
"""What ``steps_work`` is asked for."""
Clock = Callable[[Callable[[], Any]], float]
"""Wall seconds of a call, until the device has done it."""
Ready = list[tuple[tuple[PlannedImage, ...], dict[str, torch.Tensor]]]


def figure_steps() -> tuple[Figure, ...]:
    """Wall of scoring all steps of the base variant by one metric over its parts, each alone, 3 times in turns.

    The parts are the bare loop of ``render_over_floor``, the VAE's decoding of one latent a step, and the metric on one
    decoded batch a step. The whole holds loading, the journal and the small pictures too. The first turn of each is not
    counted.
    """
    suite = load_suite("mini")
    variant = suite.variants[0]
    pipe = load_pipeline(variant, suite.settings, device="cpu", weights_dir=None)
    (scorer,) = open_scorers([METRIC], registry=installed(), place=Place("cpu"), family="mini")
    ready = [(images, prepare(pipe, suite, images)) for images in batches(suite)]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        with RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
            render(suite, folder, variants=[variant], device="cpu")
            pairs = [
                (steps_s(suite, variant, folder), parts_s(pipe, suite, ready, scorer)) for _ in range(REPEATS + 1)
            ][1:]
    whole, parts = zip(*pairs, strict=True)
    return (ratio_figure("steps_over_parts", whole, parts, "<=", 1.1),)


def steps_s(suite: Suite, variant: Variant, folder: RunFolder) -> float:
    """Wall seconds of scoring every step, as if none had a score yet."""
    every = range(1, suite.settings.steps + 1)
    facts = [installed().metrics[METRIC].facts]
    jobs = open_step_jobs(suite, [variant.name], facts, tuple(every), folder.renders(), ())
    start = time.perf_counter()
    score_steps(suite, folder, jobs, device="cpu")
    return time.perf_counter() - start


def parts_s(pipe: Any, suite: Suite, ready: Ready, scorer: Scorer) -> float:
    """Wall seconds of the loop, the decodings and the metric, each timed alone."""
    texts = {prompt.id: prompt.text for prompt in suite.prompts}
    total = 0.0
    for images, inputs in ready:
        latents = inputs["latents"]
        total += seconds(lambda inputs=inputs: denoise_and_decode(pipe, suite, **inputs))
        with torch.inference_mode():
            pixels = decode(pipe, latents)
            total += suite.settings.steps * seconds(lambda latents=latents: decode(pipe, latents))
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        batch = StepBatch(
            prompts=tuple(texts[image.prompt_id] for image in images),
            timestep=500.0,
            latents=latents,
            decoded=pixels,
            levels=np.ascontiguousarray(levels.numpy()),
        )
        total += suite.settings.steps * seconds(lambda batch=batch: list(scorer(batch)))
    return total


def figure_range() -> tuple[Figure, ...]:
    """Wall of denoising a variant whose LoRA is taken away after two fifths of the steps, over the same LoRA without.

    Both models are loaded, fused and warm; one batch of the embedded family at a time, 3 times in turns.
    """
    suite = load_suite("mini", limit=PROMPTS)
    plain = next(variant for variant in suite.variants if variant.loras)
    return (range_figure(suite, plain, "cpu", REPEATS, 1.1, seconds),)


def range_figure(suite: Suite, plain: Variant, device: str, turns: int, goal: float, clock: Clock) -> Figure:
    """``range_over_plain`` of a variant with LoRAs, on a device; the first turn of each model is not counted."""
    loras = tuple(msgspec.structs.replace(lora, step_factors=((0.0, 1.0), (0.4, 0.0))) for lora in plain.loras)
    models = [
        switch_variant(None, variant, suite.settings, device=device, weights_dir=None)[0]
        for variant in (msgspec.structs.replace(plain, loras=loras), plain)
    ]
    pairs = [tuple(denoised_s(model.pipe, suite, clock) for model in models) for _ in range(turns + 1)][1:]
    switched, without = zip(*pairs, strict=True)
    return ratio_figure("range_over_plain", switched, without, "<=", goal)


def denoised_s(pipe: Any, suite: Suite, clock: Clock) -> float:
    """Wall seconds of denoising every batch; prompts and noise lie ready."""
    prompts, total = {prompt.id: prompt for prompt in suite.prompts}, 0.0
    for images in batches(suite):
        own = [prompts[image.prompt_id] for image in images]
        encoded = stages.encode(pipe, [one.text for one in own], [one.negative for one in own], suite.settings)
        seeds = [image.seed for image in images]
        noise = stages.noise(pipe, suite.settings, seeds)
        total += clock(
            lambda encoded=encoded, noise=noise, seeds=seeds: stages.denoise(
                pipe, suite.settings, encoded, noise, seeds
            )
        )
    return total


def figure_memory() -> tuple[Figure, ...]:
    """Peak resident memory of scoring steps, in processes of their own.

    ``steps_peak_10k_over_100``: 10,000 images over 100, at 20 steps each, by a painter that takes no time: what is kept
    of images and scores. ``steps_peak_all_over_one``: all 20 steps over one, of 16 images of the embedded family, drawn
    and scored: what is kept of latents and predicted images. Each is taken once: it hardly varies.
    """
    many, few, every, one = ([peak(*what)] for what in PEAKS)
    return (
        ratio_figure("steps_peak_10k_over_100", many, few, "<=", 1.1),
        ratio_figure("steps_peak_all_over_one", every, one, "<=", 1.1),
    )


def peak(what: str, count: int) -> int:
    """Bytes, as ``steps_work`` tells them."""
    command = [sys.executable, "-m", "tests.figures.steps_work", what, str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
