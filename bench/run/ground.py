"""Where a run is rendered: on this machine, or on the workers of a Ray cluster, and whether that is as before."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import msgspec

from bench.fleet import Fleet
from bench.machine import machine_facts, package_versions, pick_device
from bench.records import Machine, RunInfo
from bench.run.asked import Asked, Work
from bench.run.standing import unrendered_batches
from bench.store.guards import check_same_machine, ground_differences


def fleet_for(asked: Asked, info: RunInfo | None) -> AbstractContextManager[Fleet | None]:
    """The workers on Ray, if they are asked for; none is started before it has something to render."""
    if asked.ray is None:
        return nullcontext()
    # A run on CPUs goes on with the threads that it was begun with, since they change pixels.
    known = info.machine.threads if info is not None and info.machine.device == "cpu" else None
    wished = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = known or (int(wished) if wished.isdecimal() and int(wished) else 1)
    return Fleet(asked.ray, asked.suite, device=asked.device, threads=threads, weights_dir=asked.weights_dir)


def ground_of(work: Work) -> tuple[Machine, dict[str, str]]:
    """The machine that renders, and its packages: this one, or the workers'."""
    if work.fleet is not None:
        return work.fleet.ground(unrendered_batches(work.suite, work.folder, work.variants))
    return machine_facts(pick_device(work.device)), package_versions()


def same_ground(work: Work) -> str:
    """The device, once it is sure that what renders may add to the folder."""
    machine, packages = ground_of(work)
    if work.folder.info is not None:
        check_same_machine(work.folder.info, machine, packages)
    return machine.device


def unlike_workers(work: Work) -> list[str]:
    """How this machine differs from the workers that rendered: none, and it may time the run."""
    info = work.folder.info
    if work.fleet is None or info is None:
        return []
    # Timings say their own number of threads.
    here = msgspec.structs.replace(machine_facts(pick_device(work.device)), threads=info.machine.threads)
    return ground_differences(info, here, package_versions())
