"""Figure of the gate: one command, from the journals of a large run and a frozen baseline to the outcomes."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from bench.baseline import freeze, write_baseline
from bench.metrics import facts_for
from bench.records import (
    RUN_SCHEMA,
    SCHEMA,
    Acceptance,
    Fingerprint,
    Machine,
    Prompt,
    Record,
    Render,
    RunInfo,
    Score,
    Settings,
    Suite,
    Timing,
    Variant,
)
from bench.store import load_run
from bench.suite import plan_images, protocol_digest
from bench.suite.limits import parse_limits

from .commands import installed_command
from .figure import Figure, figure_of

PROMPTS, SAMPLES, VARIANTS, METRICS = 500, 4, 8, 10
ROUNDS, IMAGES = 5, 10
REPEATS = 3


def figure_gate() -> tuple[Figure, ...]:
    """Seconds of ``hotart-bench gate RUN --baseline FILE``, the whole process, after one that is not counted."""
    with tempfile.TemporaryDirectory() as place:
        old = write_large_run(Path(place) / "old", seed=0)
        new = write_large_run(Path(place) / "new", seed=1)
        frozen = Path(place) / "baseline.json"
        write_baseline(freeze(load_run(old), acceptance=Acceptance(by="figure", time="2025-01-01T00:00:00Z")), frozen)
        command = [installed_command(), "gate", str(new), "--baseline", str(frozen), "--other-machine"]
        walls = [_decided(command) for _ in range(REPEATS + 1)][1:]
    return (figure_of("gate_seconds", walls, "<", 5),)


def _decided(command: list[str]) -> float:
    """Wall seconds of a gate that came to an outcome, whatever it is."""
    start = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall_s = time.perf_counter() - start
    if done.returncode not in (0, 1, 5) or not Path(command[2], "gate.json").is_file():
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return wall_s


def write_large_run(folder: Path, seed: int) -> Path:
    """A run folder of 16,000 images that were never made and their 160,000 scores, drawn from ``seed``."""
    names = [f"metric-{number}" for number in range(METRICS)]
    suite = _suite(names)
    (template,) = facts_for(("saturation",))
    info = RunInfo(
        schema=RUN_SCHEMA,
        id=f"large-{seed}",
        status="complete",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=tuple(_fingerprint(variant.name, seed) for variant in suite.variants),
        metrics=tuple(msgspec.structs.replace(template, name=name, higher_is_better=True) for name in names),
        machine=Machine(os="Linux", cpu="none", cores=2, memory_bytes=2**33, device="cpu", device_name="none"),
        packages={},
        git=None,
        start="2025-01-01T00:00:00+00:00",
        end=None,
    )
    folder.mkdir()
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    journals: tuple[tuple[str, Iterator[Record]], ...] = (
        ("renders", _renders(suite, seed)),
        ("scores", _scores(suite, seed)),
        ("timings", _timings(suite, seed)),
    )
    for name, records in journals:
        with (folder / f"{name}.jsonl").open("wb") as file:
            file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
    return folder


def _suite(metrics: list[str]) -> Suite:
    return Suite(
        schema=SCHEMA,
        name="large",
        prompt_files=("large.jsonl",),
        prompts=tuple(Prompt(id=f"case-{number:03d}", text=f"prompt {number}") for number in range(PROMPTS)),
        samples=SAMPLES,
        seed=0,
        metrics=tuple(metrics),
        settings=Settings(width=1024, height=1024, steps=30, guidance_scale=5.0, sampler="ddim"),
        variants=tuple(Variant(name=f"variant-{number}", checkpoint="none") for number in range(VARIANTS)),
        limits=parse_limits(dict.fromkeys(metrics, "0.2sd")),
    )


def _fingerprint(name: str, seed: int) -> Fingerprint:
    digest = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    return Fingerprint(name=name, digest=digest, checkpoint="none", pipeline="none", files=())


def _image(variant: str, prompt_id: str, sample: int, seed: int) -> str:
    return hashlib.sha256(f"{variant} {prompt_id} {sample} {seed}".encode()).hexdigest()


def _renders(suite: Suite, seed: int) -> Iterator[Render]:
    for variant in suite.variants:
        for planned in plan_images(suite):
            yield Render(
                variant=variant.name,
                prompt_id=planned.prompt_id,
                sample=planned.sample,
                seed=planned.seed,
                batch=planned.batch,
                decode_dtype="float32",
                image=f"images/{variant.name}/{planned.prompt_id}-{planned.sample}.png",
                sha256=_image(variant.name, planned.prompt_id, planned.sample, seed),
                pixels_sha256=_image(variant.name, planned.prompt_id, planned.sample, seed),
            )


def _scores(suite: Suite, seed: int) -> Iterator[Score]:
    rng = np.random.default_rng(seed)
    version = facts_for(("saturation",))[0].version
    prompts = dict(
        zip((prompt.id for prompt in suite.prompts), np.random.default_rng(7).normal(5, 1, PROMPTS), strict=True)
    )
    for variant in suite.variants:
        for planned in plan_images(suite):
            for metric, noise in zip(suite.metrics, rng.normal(0, 0.5, METRICS), strict=True):
                yield Score(
                    variant=variant.name,
                    prompt_id=planned.prompt_id,
                    sample=planned.sample,
                    metric=metric,
                    version=version,
                    image_sha256=_image(variant.name, planned.prompt_id, planned.sample, seed),
                    value=float(np.float32(prompts[planned.prompt_id] + noise)),
                )


def _timings(suite: Suite, seed: int) -> Iterator[Timing]:
    rng = np.random.default_rng(seed)
    for round_number in range(ROUNDS):
        for variant in suite.variants:
            for name, count in (("end_to_end", IMAGES), ("denoise_step", IMAGES * suite.settings.steps)):
                yield Timing(
                    variant=variant.name,
                    name="end_to_end" if name == "end_to_end" else "denoise_step",
                    unit="second",
                    round=round_number,
                    process=1000 + round_number,
                    warmups=(),
                    values=tuple(rng.normal(1.0, 0.02, count).tolist()),
                )
