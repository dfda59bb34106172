"""The Ray cluster: connecting to one or starting one, and how many workers it has resources for."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from bench.errors import MachineError, UsageError


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
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_terminate = signal.getsignal(signal.SIGTERM)
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
    finally:
        if in_main_thread:  # Ray puts a handler of its own there, which exits as if all were well
            signal.signal(signal.SIGTERM, on_terminate)
    return True


def resources(device: str, threads: int) -> tuple[str, int]:
    """What each worker gets: ``cuda``, a GPU of its own, or ``cpu``, as many cores as it has threads; and the threads.

    Args:
        device: ``--device``; ``auto`` takes GPUs where the cluster has any.
        threads: of a worker on the CPU; beside a GPU it gets its share of the cores, which changes no pixels.

    Raises:
        UsageError: ``cuda`` and the cluster has no GPU, or a device that Ray does not give out.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device is {device}; with --ray it is auto, cpu or cuda: Ray gives each worker its own GPU."
        )
    gpus = most_workers("cuda", 1)
    if device == "cuda" and not gpus:
        raise UsageError("--device is cuda, but the Ray cluster has no GPU.", "ray status")
    if device == "cpu" or not gpus:
        return "cpu", threads
    return "cuda", max(1, most_workers("cpu", 1) // gpus)


def most_workers(device: str, threads: int) -> int:
    """How many workers the cluster has resources for, machine by machine."""
    nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    if device == "cuda":
        return sum(int(node.get("GPU", 0)) for node in nodes)
    return sum(int(node.get("CPU", 0)) // threads for node in nodes)


def start_worker(device: str, threads: int, *arguments: Any) -> Any:
    """The handle of a new worker; Ray places it once there are resources, and starts no other in its place."""
    from bench.ray_workers.worker import RenderWorker  # imports torch

    needs = {"num_gpus": 1, "num_cpus": 0} if device == "cuda" else {"num_cpus": threads}
    return import_ray().remote(**needs, max_restarts=0, max_task_retries=0)(RenderWorker).remote(*arguments)
