"""The tiny suite on a local Ray cluster of two CPU workers: one killed in the middle, the run stopped and continued."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest
import ray
import tiny
import torch

from bench.errors import IncomparableError, MachineError, UsageError, WeightsError
from bench.ray_workers import WorkerPool, render_on_workers
from bench.ray_workers import cluster as ray_cluster
from bench.records import Render, RunOptions, StepPlan, Suite
from bench.render.auto_batch import UNMEASURED_BATCH
from bench.run import run_stage
from bench.store import RunFolder, load_run, load_steps
from bench.store.journal import read_records
from bench.suite import load_suite, protocol_digest

PATIENCE_S = 120


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine alone that seems to have two cores; its token stays out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # or a busy machine would leave them no time at all
        before = signal.getsignal(signal.SIGTERM)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Twelve batches of one image, so that there is a middle."""
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"), "batch = 4", "batch = 1")))


def workers() -> set[int]:
    """Process ids of the workers that hold a pipeline, or are about to."""
    found = set()
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between two questions
            if one.status() != "zombie" and "ray::RenderWorker" in " ".join(one.cmdline()[:1]):
                found.add(one.pid)
    return found


def gone(pids: set[int]) -> bool:
    """Whether processes end; Ray's end when it has noticed that they are not wanted."""
    until = time.monotonic() + PATIENCE_S
    while pids & workers() and time.monotonic() < until:
        time.sleep(0.05)
    return not pids & workers()


def pngs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


class Killed(NamedTuple):
    """A run that was robbed of a worker, stopped, and continued."""

    folder: Path
    hired: tuple[int, int]
    """How many workers were started for each of its parts."""
    last: set[int]
    """Process ids of the workers that were seen in the second."""


@pytest.fixture(scope="module")
def killed(cluster: None, suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A run that lost a worker after three batches, was stopped by the user before its last one, and continued."""
    path = tmp_path_factory.mktemp("runs") / "run"
    first: set[int] = set()
    last: set[int] = set()
    hired: list[object] = []
    start = ray_cluster.start_worker

    def rob(stage: str, done: int, total: int, note: str = "") -> None:
        first.update(workers())
        if done == 3:
            os.kill(min(workers()), signal.SIGKILL)
        if done == 11:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "start_worker", lambda *given: hired.append(given) or start(*given))
        with pytest.raises(KeyboardInterrupt):
            run_stage("render", suite, path, RunOptions(device="cpu", ray="auto"), progress=rob)
        assert first
        assert gone(first), "a stopped run leaves no worker behind"
        before = len(hired)
        outcome = run_stage(
            "render", suite, path, RunOptions(device="cpu", ray="auto"), progress=lambda *_: last.update(workers())
        )
    assert (outcome.images, outcome.missing, outcome.failed) == (12, 0, 0)
    return Killed(path, (before, len(hired) - before), last)


def test_a_killed_workers_batches_are_drawn_by_others_to_the_same_bytes_as_in_one_process(killed, suite, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_stage("render", suite, tmp_path / "alone", RunOptions(device="cpu"))
    finally:
        torch.set_num_threads(threads)
    assert len(pngs(killed.folder)) == 12
    assert pngs(killed.folder) == pngs(tmp_path / "alone")
    ours, alone = load_run(killed.folder), load_run(tmp_path / "alone")
    assert ours.renders == alone.renders
    assert ours.info.variants == alone.info.variants, "weights, and what was changed of them"
    assert all(one.audit is not None for one in ours.info.variants)


def test_another_worker_came_for_the_killed_one_and_one_alone_for_the_last_batch(killed):
    assert killed.hired == (3, 1)


def test_steps_are_scored_by_workers_as_by_one_process(killed, suite, tmp_path):
    plan = StepPlan(metrics=("mini-step-aware", "saturation"), at=(1, 3))
    there, here = (shutil.copytree(killed.folder, tmp_path / name) for name in ("there", "here"))
    run_stage("steps", suite, there, RunOptions(device="cpu", ray="auto", steps=plan))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_stage("steps", suite, here, RunOptions(device="cpu", steps=plan))
    finally:
        torch.set_num_threads(threads)
    assert len(load_steps(there)) == 12 * 2 * 2
    assert set(load_steps(there)) == set(load_steps(here))
    assert {path.name for path in (there / "steps").rglob("*.webp")} == {"001.webp", "003.webp"}


def test_all_workers_are_gone_at_the_end(killed):
    assert gone(killed.last)


def test_every_image_was_recorded_once_whatever_was_stopped_or_killed(killed):
    lines = read_records(killed.folder / "renders.jsonl", Render)
    assert {(one.variant, one.prompt_id, one.sample) for one in lines} == tiny.CELLS
    assert len(lines) == len(tiny.CELLS)


def test_run_json_names_the_machine_of_the_workers(killed):
    info = load_run(killed.folder).info
    assert (info.machine.device, info.machine.threads) == ("cpu", 1)
    assert info.packages["torch"] == torch.__version__.partition("+")[0] or info.packages["torch"] == torch.__version__


def test_a_finished_run_starts_no_worker(killed, suite, monkeypatch):
    monkeypatch.setattr(ray_cluster, "start_worker", None)
    assert run_stage("render", suite, killed.folder, RunOptions(device="cpu", ray="auto")).done_before


def test_what_a_worker_refuses_arrives_as_the_error_that_it_is(killed, suite, tmp_path):
    """One worker for all of it, since one takes long to start; a batch that is left open it finds."""
    info = load_run(killed.folder).info
    opened = msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=None))
    forged = [msgspec.structs.replace(known, digest="0" * 64) for known in info.variants]
    one_worker = msgspec.structs.replace(info.machine, threads=2)  # it takes both cores: half as long as two workers
    elsewhere = msgspec.structs.replace(one_worker, device_name="another processor")
    with RunFolder.open(tmp_path / "run", suite=suite, protocol_digest=protocol_digest(suite)) as place:
        place.write_info(msgspec.structs.replace(info, variants=tuple(forged), machine=one_worker))
        with _pool(opened, "cpu", 2) as pool:
            assert pool.largest_batch() == UNMEASURED_BATCH
            with pytest.raises(WeightsError, match="has other weights for variant base than the driver") as caught:
                render_on_workers(suite, place, pool, variants=suite.variants[:1])
            assert caught.value.hint.startswith("give every machine the same files")
            place.write_info(msgspec.structs.replace(info, machine=elsewhere))
            with pytest.raises(IncomparableError, match="the device name is another processor there"):
                render_on_workers(suite, place, pool, variants=suite.variants[:1])
        assert place.renders() == ()


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:1"])
def test_a_device_that_ray_has_not_is_a_usage_error(device, cluster, suite):
    with pytest.raises(UsageError, match=f"--device is {device}"), _pool(suite, device, 1) as pool:
        pool.environment(1)


def test_workers_with_more_threads_than_any_machine_has_cores_are_refused(cluster, suite):
    with (
        pytest.raises(MachineError, match="no machine of the cluster has 3 free cores"),
        _pool(suite, "cpu", 3) as some,
    ):
        some.environment(1)


def _pool(suite: Suite, device: str, threads: int) -> WorkerPool:
    return WorkerPool("auto", suite, device=device, threads=threads, weights_dir=None)
