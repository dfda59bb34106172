"""A complete, believable run made of numbers: for tests of every room that reads runs.

``make_run`` gives the ``Run`` record, ``write_run`` writes it as a run folder with small real PNGs.
All of it depends on the arguments alone, so two calls give equal records and equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import msgspec
import numpy as np
from fake_tables import EFFECT, METRICS, ONCE, PROMPTS, TIMINGS
from PIL import Image

from bench.records import (
    RUN_SCHEMA,
    SCHEMA,
    Delta,
    Fingerprint,
    Git,
    Lora,
    Machine,
    MeasurePlan,
    MetricFacts,
    PlannedImage,
    Prompt,
    Render,
    Run,
    RunInfo,
    Score,
    Settings,
    Suite,
    Timing,
    TrainedOn,
    TrainedPart,
    Variant,
    WeightFile,
)
from bench.suite import plan_images, protocol_digest


def _rng(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _suite(prompts: int, samples: int, variants: Sequence[str]) -> Suite:
    all_prompts = []
    for index in range(prompts):
        text, tags = PROMPTS[index % len(PROMPTS)]
        again = index // len(PROMPTS)
        all_prompts.append(Prompt(id=f"case-{index:03d}", text=text + f", take {again + 1}" * bool(again), tags=tags))
    return Suite(
        schema=SCHEMA,
        name="fake",
        prompt_files=("fake.jsonl",),
        prompts=tuple(all_prompts),
        samples=samples,
        seed=0,
        metrics=tuple(METRICS),
        settings=Settings(width=64, height=64, steps=20, guidance_scale=3.0, sampler="ddim", batch=16),
        variants=tuple(_variant(name) for name in variants),
        measure=MeasurePlan(rounds=2, images=5),
        source="fake",
    )


def _variant(name: str) -> Variant:
    loras = () if name == "base" else (Lora(path=f"mini:{name}"),)
    return Variant(name=name, checkpoint="mini", loras=loras)


def _fingerprint(name: str) -> Fingerprint:
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    files = [
        WeightFile(component=part, name=f"{part}.safetensors", sha256=_digest(part), size_bytes=4_000_000)
        for part in parts
    ]
    loras = _variant(name).loras
    for number, lora in enumerate(loras):
        files.append(
            WeightFile(component=f"lora:{number}", name=lora.path, sha256=_digest("lora", name), size_bytes=200_000)
        )
    return Fingerprint(
        name=name,
        digest=_digest("variant", name),
        checkpoint="mini",
        pipeline="StableDiffusionXLPipeline",
        files=tuple(files),
        loras=loras,
        lora_mode="fused" if loras else "none",
        modules_changed=64 if loras else 0,
    )


def _trained_on(name: str) -> TrainedOn:
    """Of the fakes, as of the embedded family: the base on nothing, all others on choices."""
    names = () if name == "base" else ("mini-raters",)
    return TrainedOn(names=names, parts=(TrainedPart(what="mini", names=names, source="shipped"),))


def _facts(name: str) -> MetricFacts:
    category, better, unit, low, high, *_ = METRICS[name]
    learnt = name.startswith("mini-")
    data = "mini-raters" if name == "mini-preference" else "mini-scenes"
    return MetricFacts(
        name=name,
        version="1",
        summary=f"What {name} measures, in one sentence.",
        unit=unit,
        higher_is_better=better,
        low=low,
        high=high,
        category=category,
        encoder="mini" if learnt else None,
        trained_on=(data,) if learnt else (),
        training_data="the embedded world" if learnt else "nothing",
        licence="Apache-2.0",
        reference="docs/mini.md",
    )


def blank_figure(figure: object, fmt: str, dpi: int) -> bytes:
    """In the place of ``bench.plots.style.figure_bytes``: the file of one pixel, or an empty drawing."""
    if fmt == "svg":
        return b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, fmt)
    return file.getvalue()


@cache
def _places(size: int) -> np.ndarray:
    return np.mgrid[0:size, 0:size] / (size - 1)


@lru_cache(maxsize=4096)
def png_bytes(variant: str, prompt_id: str, sample: int, seed: int, size: int = 64) -> bytes:
    """A small gradient with a disc, composed by prompt and sample and tinted by variant, as PNG bytes."""
    place, tint = _rng("place", prompt_id, sample, seed), _rng("tint", variant)
    y, x = _places(size)
    angle = place.uniform(0, np.pi)
    ramp = (np.cos(angle) * x + np.sin(angle) * y + 1) / 2.5
    centre = place.uniform(0.25, 0.75, size=2)
    disc = np.clip(1 - 12 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2), 0, 1)
    warm, cold = tint.uniform(0.4, 1.0, size=3), place.uniform(0.2, 0.9, size=3)
    colours = ramp[..., None] * cold + disc[..., None] * warm * 0.6
    pixels = (255 * np.clip(colours, 0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _render(variant: str, cell: PlannedImage, seed: int, failed: bool) -> Render:
    prompt_id, sample = cell.prompt_id, cell.sample
    digest = None if failed else hashlib.sha256(png_bytes(variant, prompt_id, sample, seed)).hexdigest()
    return Render(
        variant=variant,
        prompt_id=prompt_id,
        sample=sample,
        seed=cell.seed,
        batch=cell.batch,
        decode_dtype="float32",
        image=None if failed else f"images/{variant}/{prompt_id}-{sample}.png",
        sha256=digest,
        pixels_sha256=digest,  # equal files have equal pixels, and these have no others
        error="The image is uniformly black, also after decoding in float32." if failed else None,
    )


@cache
def _difficulty(metric: str, prompt_id: str) -> float:
    return float(_rng("prompt", metric, prompt_id).normal())


def _score(render: Render, metric: str, shift: float, seed: int) -> Score:
    low, high, mean, prompt_sd, sample_sd = METRICS[metric][3:]
    # Prompts differ more than variants do, and what a prompt adds is shared: pairs correlate, as in life.
    shared = _difficulty(metric, render.prompt_id) * prompt_sd
    noise = _rng("noise", metric, render.variant, render.prompt_id, render.sample, seed).normal(0, sample_sd)
    value: float | None = float(
        np.clip(mean + shared + noise + shift, -np.inf if low is None else low, np.inf if high is None else high)
    )
    reason = None
    if render.image is None:
        value, reason = None, "there is no image"
    return Score(
        variant=render.variant,
        prompt_id=render.prompt_id,
        sample=render.sample,
        metric=metric,
        version="1",
        image_sha256=render.sha256,
        value=value,
        reason=reason,
    )


def _timings(variant: str, round_number: int, images: int, seed: int) -> list[Timing]:
    process = 4000 + int(_digest(variant, round_number)[:3], 16)
    found = []
    for name, (unit, typical) in TIMINGS.items():
        rng = _rng("timing", variant, round_number, name, seed)
        centre = typical * (1 + rng.normal(0, 0.01))
        count = 1 if name in ONCE else images * 20 if name == "denoise_step" else images
        values = centre * (1 + np.abs(rng.normal(0, 0.03, size=count)))
        if unit == "byte":
            values = np.round(values)
        warmups = () if name in ONCE else (float(centre * 1.6),)
        found.append(
            Timing(
                variant=variant,
                name=name,
                unit=unit,
                round=round_number,
                process=process,
                warmups=warmups,
                values=tuple(float(value) for value in values),
            )
        )
    return found


def make_run(
    path: Path | str,
    *,
    prompts: int = 12,
    samples: int = 2,
    variants: Sequence[str] = ("base", "dpo", "spo"),
    effect: Mapping[str, Mapping[str, float]] = EFFECT,
    seed: int = 0,
    failed: Collection[tuple[str, str, int]] = (),
) -> Run:
    """A complete run of ``prompts`` x ``samples`` x ``variants``, the first variant being the reference.

    ``effect[variant][metric]`` is added to that variant's scores; ``failed`` names (variant, prompt id,
    sample) of images that could not be made; ``seed`` draws the noise, not the prompts' difficulty.
    """
    suite = _suite(prompts, samples, variants)
    renders = tuple(
        _render(name, cell, seed, (name, cell.prompt_id, cell.sample) in failed)
        for name in variants
        for cell in plan_images(suite)
    )
    scores = tuple(
        _score(render, metric, effect.get(render.variant, {}).get(metric, 0.0), seed)
        for metric in METRICS
        for render in renders
        if metric != "ssim-to-base" or render.variant != variants[0]  # nothing to compare itself with
    )
    timings = tuple(
        timing
        for number in range(suite.measure.rounds)
        for name in variants
        for timing in _timings(name, number, suite.measure.images, seed)
    )
    return Run(path=str(path), info=_info(suite, seed), renders=renders, scores=scores, timings=timings)


def _info(suite: Suite, seed: int) -> RunInfo:
    return RunInfo(
        schema=RUN_SCHEMA,
        id=f"fake-{seed:04d}",
        status="complete",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=tuple(_fingerprint(variant.name) for variant in suite.variants),
        metrics=tuple(_facts(name) for name in METRICS),
        machine=Machine(
            os="Linux 6.8",
            cpu="A CPU of two cores",
            cores=2,
            memory_bytes=8 * 2**30,
            device="cpu",
            device_name="A CPU of two cores",
            threads=2,
        ),
        packages={"python": "3.11.9", "hotart-bench": "0.1.0", "torch": "2.8.0", "diffusers": "0.36.0"},
        git=Git(commit="0123456789abcdef0123456789abcdef01234567", dirty=False),
        start="2025-01-02T03:04:05+00:00",
        end="2025-01-02T03:06:45+00:00",
        trained_on={variant.name: _trained_on(variant.name) for variant in suite.variants},
        settings_notes=("LoRAs were fused for the run.",),
    )


def write_run(run: Run, path: Path | str) -> Path:
    """Writes ``run`` as a run folder: run.json, three journals, and the PNGs; returns the folder."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run.info), indent=2) + b"\n")
    journals = {"renders": run.renders, "scores": run.scores, "timings": run.timings}
    for name, records in journals.items():
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        (folder / f"{name}.jsonl").write_bytes(lines)
    seed = int(run.info.id.removeprefix("fake-"))
    for render in run.renders:
        if render.image is not None:
            target = folder / render.image
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png_bytes(render.variant, render.prompt_id, render.sample, seed))
    return folder


def only(deltas: tuple[Delta, ...], metric: str, candidate: str, reference: str, tag: str | None = None) -> Delta:
    """The one difference of a metric, a pair and a tag."""
    found = [d for d in deltas if (d.metric, d.candidate, d.reference, d.tag) == (metric, candidate, reference, tag)]
    assert len(found) == 1
    return found[0]


def with_facts(run: Run, metric: str, **changes: object) -> Run:
    """The run with other facts of a metric."""
    facts = tuple(msgspec.structs.replace(f, **changes) if f.name == metric else f for f in run.info.metrics)
    return msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=facts))


def with_suite(run: Run, **changes: object) -> Run:
    """The run of a suite with other fields, and its protocol digest."""
    suite = msgspec.structs.replace(run.info.suite, **changes)
    info = msgspec.structs.replace(run.info, suite=suite, protocol_digest=protocol_digest(suite))
    return msgspec.structs.replace(run, info=info)
