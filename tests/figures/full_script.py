"""``script_over_render`` at full size: the loop that users write today, over render and score of the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
from PIL import Image

import bench.render
from bench.metrics import Inputs, LoadedRewardModel, Metric, Place
from bench.pipeline.switch import load_pipeline
from bench.records import RunOptions, Suite
from bench.run import run_stage
from bench.suite import plan_images

from .figure import Figure, ratio_figure
from .full_bench import Bench, timed
from .full_scoring import score_all
from .rendering import batches
from .script import Clock


def script_over_render(bench_: Bench) -> Figure:
    """The loop that users write today, over render and score of the same images; loading is on neither side.

    A diffusers pipeline for each variant, one image at a time from the same seeds, PNG at the default level, then
    each metric of the panel called on one file at a time, nothing compiled. Ours holds all else, the comparison of
    fused with run-time LoRAs too, and draws with compiled blocks where the size says so: a batch of each variant is
    drawn before, so that compiling is no part of it (``compile_s`` tells it). Once, since it takes minutes.
    """
    size, suite = bench_.size, bench_.suite
    run_stage("render", one_batch(suite), bench_.place / "warm", RunOptions(device=size.device))
    real, clock = bench.render.switch_variant, Clock(bench.render.switch_variant)
    bench.render.switch_variant = clock
    path = bench_.place / "ours"
    try:
        ours_s = timed(size, lambda: run_stage("render", suite, path, RunOptions(device=size.device))) - clock.seconds
    finally:
        bench.render.switch_variant = real
    ours_s += timed(size, partial(score_all, bench_, path, size.turns))
    script_s = timed_script(bench_)
    return ratio_figure("script_over_render", [script_s], [ours_s], ">=", 2.7)


def script_same_batch_over_render(bench_: Bench) -> Figure:
    """A plain diffusers loop in batches of the suite's size over rendering, nothing compiled on either side.

    The same seeds, steps, dtype and LoRAs fused, a PNG of each image, a pipeline of diffusers' own class and scheduler
    for each variant; reading the weights is our loader's, and on both sides. Ours holds all else, the comparison of
    fused with unfused LoRAs too. Once, ours first, since it takes minutes.
    """
    size = bench_.size
    eager = msgspec.structs.replace(bench_.suite.settings, compile=False)
    suite = msgspec.structs.replace(bench_.suite, settings=eager)
    options = RunOptions(device=size.device)
    ours_s = timed(size, lambda: run_stage("render", suite, bench_.place / "same-batch", options))
    script_s = timed(size, partial(batched_script, suite, bench_.place / "batched-script", size.device))
    return ratio_figure("script_same_batch_over_render", [script_s], [ours_s], ">=", 1.05)


def batched_script(suite: Suite, place: Path, device: str) -> None:
    """Load, draw batch by batch and save, variant after variant."""
    place.mkdir()
    prompts = {prompt.id: prompt for prompt in suite.prompts}
    settings = suite.settings
    for variant in suite.variants:
        pipe = plain_pipeline(load_pipeline(variant, settings, device=device))
        for images in batches(suite):
            drawn = pipe(
                [prompts[planned.prompt_id].text for planned in images],
                negative_prompt=[prompts[planned.prompt_id].negative for planned in images],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                height=settings.height,
                width=settings.width,
                generator=[torch.Generator("cpu").manual_seed(planned.seed) for planned in images],
            ).images
            for planned, image in zip(images, drawn, strict=True):
                image.save(place / f"{variant.name}-{planned.prompt_id}-{planned.sample}.png")
        del pipe


def plain_pipeline(pipe: Any) -> Any:
    """The same networks in a pipeline and with a scheduler as diffusers has them."""
    scheduler = getattr(diffusers, type(pipe.scheduler).__name__).from_config(pipe.scheduler.config)
    plain = getattr(diffusers, type(pipe).__name__)(**{**pipe.components, "scheduler": scheduler})
    plain.set_progress_bar_config(disable=True)
    return plain


def one_batch(suite: Suite) -> Suite:
    """The suite with as many prompts as fill one batch."""
    return msgspec.structs.replace(
        suite, prompts=suite.prompts[: math.ceil((suite.settings.batch or 1) / suite.samples)]
    )


def timed_script(bench_: Bench) -> float:
    """Seconds of the script without loading."""
    size, suite, seconds = bench_.size, bench_.suite, 0.0
    eager = msgspec.structs.replace(suite.settings, compile=False)
    prompts = {prompt.id: prompt.text for prompt in suite.prompts}
    images = plan_images(suite)
    place = bench_.place / "script"
    place.mkdir()
    for variant in suite.variants:
        pipe = load_pipeline(variant, eager, device=size.device)
        pipe.set_progress_bar_config(disable=True)

        def draw(pipe: Any = pipe, name: str = variant.name) -> None:
            for planned in images:
                image = pipe(
                    prompts[planned.prompt_id],
                    num_inference_steps=size.steps,
                    guidance_scale=suite.settings.guidance_scale,
                    height=size.side_px,
                    width=size.side_px,
                    generator=torch.Generator("cpu").manual_seed(planned.seed),
                ).images[0]
                image.save(place / f"{name}-{planned.prompt_id}-{planned.sample}.png")

        seconds += timed(size, draw)
        del pipe, draw
    files = [
        (place / f"{variant.name}-{planned.prompt_id}-{planned.sample}.png", prompts[planned.prompt_id])
        for variant in suite.variants
        for planned in images
    ]
    where = Place(size.device, bench_.weights)
    for metric in bench_.registry.metrics.values():
        encoder = bench_.registry.encoders[metric.facts.encoder or ""].load(where)
        head = None if metric.load_head is None else metric.load_head(where)
        seconds += timed(size, partial(call_each, metric, encoder, head, files, size.device))
    return seconds


@torch.inference_mode()
def call_each(metric: Metric, encoder: Any, head: Any, files: Sequence[tuple[Path, str]], device: str) -> list[float]:
    """A metric on one image at a time."""
    values = []
    for file, prompt in files:
        pixels = encoder.preprocess(Image.open(file).convert("RGB"), metric.preprocessing)[None].to(device)
        joint = encoder.score(pixels, [prompt]) if isinstance(encoder, LoadedRewardModel) else None
        inputs = Inputs(
            prompts=(prompt,),
            pixels=pixels.new_empty((0, 3, 0, 0)),
            reference_pixels=None,
            image_embeds=None if joint is not None else encoder.embed_images(pixels),
            text_embeds=None if joint is not None or not metric.needs_text else encoder.embed_texts([prompt]),
            logit_scale=1.0 if joint is not None else encoder.logit_scale,
            head=head,
            reward=joint,
        )
        values.append(float(metric(inputs)))
    return values
