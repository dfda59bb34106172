"""``ray_two_over_one``, ``ray_overhead``: what workers on Ray bring, and what Ray itself costs."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import ray
import torch

import bench.render
from bench.checkpoints.fingerprint import fingerprint
from bench.machine import machine_facts, package_versions
from bench.pipeline.switch import switch_variant
from bench.ray_workers import WorkerPool, render_on_workers
from bench.records import SCHEMA, RunInfo, Suite, Variant
from bench.render import render
from bench.store import RunFolder
from bench.suite import load_suite, protocol_digest

from .figure import Figure, ratio_figure

TURNS = 3
BATCH = 4
"""Twelve batches of the suite's 48 images a variant, so that two workers can share them evenly."""


def figure_ray() -> tuple[Figure, ...]:
    """Rendering the base variant of the mini suite, 3 times in turns: on one core without Ray, with Ray and one
    worker on that core, with Ray and two workers on two cores.

    Every worker, and the process without Ray, has one thread. The driver and Ray's own processes have no core
    beside those of the workers. Steady state: the pipeline is loaded, and each side has rendered once before; from an
    empty folder to the last journal line on the disk.
    """
    suite = msgspec.structs.replace(
        load_suite("mini"), settings=msgspec.structs.replace(load_suite("mini").settings, batch=BATCH)
    )
    cores = sorted(os.sched_getaffinity(0))[:2]
    torch.set_num_threads(1)
    alone, one, two = [], [], []
    try:
        for _ in range(TURNS):
            with _pinned(cores[:1]):
                alone.append(alone_s(suite))
            one.append(workers_s(suite, cores[:1]))
            two.append(workers_s(suite, cores))
    finally:
        torch.set_num_threads(len(cores))
    return (
        ratio_figure("ray_two_over_one", one, two, ">=", 1.7),
        ratio_figure("ray_overhead", one, alone, "<=", 1.1),
    )


def alone_s(suite: Suite) -> float:
    """Wall seconds of ``bench.render.render`` with a model that is loaded already."""
    variant = suite.variants[0]
    held = switch_variant(None, variant, suite.settings, device="cpu", weights_dir=None)
    real = bench.render.switch_variant
    bench.render.switch_variant = lambda *_, **__: held
    try:
        return _second_s(suite, lambda folder: render(suite, folder, variants=[variant], device="cpu"))
    finally:
        bench.render.switch_variant = real


def workers_s(suite: Suite, cores: Sequence[int]) -> float:
    """Wall seconds with one worker on each of these cores, and everything of Ray's on them too."""
    with _pinned(cores), _cluster(len(cores)):
        place = WorkerPool("auto", suite, device="cpu", threads=1, weights_dir=None)
        with place as pool:
            return _second_s(suite, lambda folder: render_on_workers(suite, folder, pool, variants=suite.variants[:1]))


def _second_s(suite: Suite, work: Callable[[RunFolder], Any]) -> float:
    """Wall seconds of the second time that something is rendered, each into an empty folder."""
    seconds = 0.0
    for _ in range(2):
        with tempfile.TemporaryDirectory() as place, _folder(Path(place) / "run", suite) as folder:
            start = time.perf_counter()
            work(folder)
            seconds = time.perf_counter() - start
    return seconds


@contextmanager
def _folder(path: Path, suite: Suite) -> Iterator[RunFolder]:
    with RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite)) as folder:
        folder.write_info(_card(suite, suite.variants[:1]))
        yield folder


def _card(suite: Suite, variants: Sequence[Variant]) -> RunInfo:
    return RunInfo(
        schema=SCHEMA,
        id="figure",
        status="started",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=tuple(fingerprint(variant) for variant in variants),
        metrics=(),
        machine=machine_facts("cpu"),
        packages=package_versions(),
        git=None,
        start=datetime.now(UTC).isoformat(),
        end=None,
    )


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once a process
    # Workers that step back for other programs would measure those.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _pinned(cores: Sequence[int]) -> Iterator[None]:
    """This process and whatever it starts run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
