"""The Ray cluster: connecting to one or starting one, and how many workers it has room for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.errors import MachineError, UsageError


class WorkerResources(NamedTuple):
    """What one worker gets."""

    device: str
    """``cuda``: a GPU of its own; ``cpu``: as many cores as it has threads."""
    threads: int


def import_ray() -> Any:
    """The package ``ray``, without its usage report.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs the package ray.", "pip install 'hotart-bench[ray]'") from error
    return ray


def connect(address: str) -> bool:
    """Connect this process to a cluster; whether it was connected here, and is to be disconnected.

    ``auto`` is the cluster that ``RAY_ADDRESS`` or ``ray start`` names, else one of this machine alone, which ends
    with this process. A process that is connected already stays where it is.

    Raises:
        MachineError: there is no cluster at the address, or none can be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    with _own_signals():
        try:
            ray.init(
                address=None if address == "auto" else address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise MachineError(
                f"--ray {address}: Ray could not be reached or started ({type(error).__name__}: {error}).",
                "ray start --head on one machine, ray start --address=HOST:6379 on the others, then --ray HOST:6379; "
                "or --ray auto for this machine alone",
            ) from error
    return True


def resources(device: str, threads: int) -> WorkerResources:
    """What each worker gets, by the ``--device`` that was asked for.

    Args:
        device: ``auto`` takes GPUs where the cluster has any.
        threads: of a worker on the CPU; beside a GPU it gets its share of the cores, which changes no pixels.

    Raises:
        UsageError: GPUs are asked for and there are none, or a device that Ray does not give out.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device is {device}; with --ray it is auto, cpu or cuda: Ray gives each worker its own GPU."
        )
    gpus = room(WorkerResources("cuda", 1))
    if device == "cuda" and not gpus:
        raise UsageError("--device is cuda, but the Ray cluster has no GPU.", "ray status")
    if device == "cpu" or not gpus:
        return WorkerResources("cpu", threads)
    return WorkerResources("cuda", max(1, room(WorkerResources("cpu", 1)) // gpus))


def room(place: WorkerResources) -> int:
    """How many workers fit into the cluster, machine by machine."""
    nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    if place.device == "cuda":
        return sum(int(node.get("GPU", 0)) for node in nodes)
    return sum(int(node.get("CPU", 0)) // place.threads for node in nodes)


def start_worker(place: WorkerResources, *arguments: Any) -> Any:
    """The handle of a new actor; Ray places it once there is room, and starts no other in its place."""
    from bench.ray_workers.worker import RenderWorker

    needs = {"num_gpus": 1, "num_cpus": 0} if place.device == "cuda" else {"num_cpus": place.threads}
    return import_ray().remote(**needs, max_restarts=0, max_task_retries=0)(RenderWorker).remote(*arguments)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our way of ending on SIGTERM: Ray puts one of its own in its place, which exits as if all were well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
