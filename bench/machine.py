"""This machine: its devices and facts, its packages, its memory. Imports torch only to ask about devices."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.records import Git, Machine

PACKAGES = (
    "hotart-bench",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "open_clip_torch",
    "torchmetrics",
    "numpy",
    "pillow",
    "safetensors",
)
"""The packages whose versions a run records, beside Python's."""

_TIMEOUT_S = 10
SPARING = (50_000, 20, 100)
"""The collector's thresholds in a process that is ours."""


def pick_device(name: str) -> str:
    """The torch device that ``--device`` names here: ``cpu``, ``cuda:<number>`` or ``mps``.

    ``auto`` is the first CUDA device, else MPS, else the CPU; ``cuda`` is ``cuda:0``. Imports torch for all but
    ``cpu``.

    Raises:
        UsageError: no such device name, or no such device in this machine; the sentence says what there is.
    """
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if name not in ("auto", "mps", "cuda") and not (kind == "cuda" and number.isdecimal() and number.isascii()):
        near = did_you_mean(kind, ("auto", "cpu", "cuda", "mps"))
        raise UsageError(f"--device is {name!r}{near}; allowed are auto, cpu, cuda, cuda:<number> and mps.")
    there = _devices()
    if name == "auto":
        return there[0]
    device = name if kind == "mps" else f"cuda:{int(number or 0)}"
    if device not in there:
        raise UsageError(f"--device is {name}, but this machine has only {', '.join(there)}.", "hotart-bench doctor")
    return device


def other_device(device: str) -> str | None:
    """Another torch device of this machine to compare ``device`` with; None where there is none.

    One of the same kind, else an accelerator, never the CPU: images of full size take it hours, and it often has no
    half precision. Imports torch.
    """
    others = [name for name in _devices() if name not in (device, "cpu")]
    alike = [name for name in others if name.split(":")[0] == device.split(":")[0]]
    return next(iter(alike + others), None)


def _devices() -> tuple[str, ...]:
    """The torch devices of this machine, the fastest kind first."""
    import torch

    cuda = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*cuda, *mps, "cpu")


def float8_problem(device: str) -> str | None:
    """Why a torch device has no products of 8-bit floats, in a clause; None where it has. Imports torch."""
    import torch

    needed = "products of 8-bit floats need an NVIDIA GPU of compute capability 8.9 or later (RTX 40, L4, H100)"
    needed += " or an AMD MI300"
    if not device.startswith("cuda"):
        return f"{needed}, and {device} is none"
    found = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        able = found.gcnArchName.startswith(("gfx94", "gfx95"))
        return None if able else f"{needed}, and {device} is {found.name} ({found.gcnArchName})"
    capability = found.major, found.minor
    return None if capability >= (8, 9) else f"{needed}, and {device} is {found.name} of {found.major}.{found.minor}"


def machine_facts(device: str) -> Machine:
    """The facts of this machine with ``device`` (as ``pick_device`` gives it) as the one that renders.

    ``cores`` are those this process may use, ``memory_bytes`` is the machine's, ``device_memory_bytes`` the
    CUDA device's, ``threads`` what torch uses on the CPU. Imports torch.
    """
    import torch

    cpu = _cpu_name()
    on_cuda = device.startswith("cuda")
    properties = torch.cuda.get_device_properties(device) if on_cuda else None
    return Machine(
        os=platform.platform(),
        cpu=cpu,
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        device=device,
        device_name=properties.name if properties is not None else cpu,
        device_memory_bytes=properties.total_memory if properties is not None else None,
        driver=_driver() if on_cuda else None,
        threads=torch.get_num_threads(),
    )


def package_versions() -> dict[str, str]:
    """Versions by name: ``python``, then those of ``PACKAGES`` that are installed. Imports none of them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: str | Path) -> Git | None:
    """The commit that ``folder`` is checked out at, and whether tracked files differ from it.

    None where there is no git, no repository, no commit yet, or git takes longer than 10 seconds. A repository's own
    configuration may name programs, which git starts when it looks at files or fetches what is missing; asking for a
    commit starts none. Where the repository has filters of its own, ``dirty`` is None: not known.
    """
    # Neither fsmonitor nor locks; of submodules, whose configurations are their own, only the commit.
    git = ("git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false")
    commit = _output_of((*git, "rev-parse", "--verify", "HEAD"))
    if commit is None or _has_filters(git):
        return None if commit is None else Git(commit=commit, dirty=None)
    status = _output_of((*git, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"))
    return None if status is None else Git(commit=commit, dirty=bool(status))


def _has_filters(git: Sequence[str]) -> bool:
    """Whether a repository's own configuration names filters; those of the user and the machine are their own."""
    settings = _output_of((*git, "config", "--null", "--show-scope", "--name-only", "--list"))
    words = None if settings is None else settings.split("\0")  # scope, name, scope, name, ...
    if words is None:
        return True
    scoped = zip(words[::2], words[1::2], strict=False)
    return any(scope in ("local", "worktree") and name.startswith("filter.") for scope, name in scoped)


def git_user(folder: str | Path) -> str | None:
    """Who commits in ``folder``, as git's ``user.name`` and ``user.email`` say it; None without git or a name."""
    git = ("git", "-C", str(folder), "config", "--get")
    name, email = (_output_of((*git, key)) for key in ("user.name", "user.email"))
    return f"{name} <{email}>" if name and email else name or None


def usable_cores() -> int:
    """Cores that this process may use, where the system tells."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:  # noqa: RET505 -- how mypy knows that the other systems are not forgotten
        return os.cpu_count() or 1


def _cpu_name() -> str:
    name: str | None = platform.processor()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    elif sys.platform == "darwin":
        name = _output_of(("sysctl", "-n", "machdep.cpu.brand_string"))
    return name or platform.machine()


def _driver() -> str | None:
    output = _output_of(("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
    return output.splitlines()[0].strip() if output else None


def _output_of(command: Sequence[str]) -> str | None:
    """What a program prints, or None where it is missing, fails, or takes too long."""
    try:
        ended = subprocess.run(
            command,
            env=os.environ | {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()


# Memory of a device or machine: whether there was too little of it, and giving it back. Never imports torch.

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "memory allocation failed")
"""Words, in lower case, of the plain RuntimeErrors that say so: MPS's and the CPU's allocators, cuBLAS, cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this was raised for want of memory, on whatever device.

    torch has a class for CUDA's own allocator alone; every other part raises RuntimeError, told by its words.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def has_context() -> bool:
    """Whether this process has started CUDA, as rendering and scoring do: the driver then lists it for good."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def spare_collector() -> None:
    """Keep Python's garbage collector from going over all that torch and diffusers import, again and again.

    For a process that is ours from its start. There are some million objects, made within seconds, nearly all of which
    stay: looking at them while they are made, and once more before they are taken down, is a quarter of the time that
    such a process takes to start and end (``start_over_plain_python`` of ``nox -s bench``).
    """
    gc.set_threshold(*SPARING)
    atexit.register(gc.freeze)


@functools.cache
def spare_imports() -> None:
    """Leave what is there out of all later collections; once in a process, where ``spare_collector`` was called.

    For the moment before the first model is loaded: what is left out is never collected, and no model may be among it.
    A collection takes half a second otherwise, and each model that is let go of needs one.
    """
    if gc.get_threshold() == SPARING:
        gc.freeze()


def reuse_freed_memory() -> None:
    """Let glibc's malloc keep what is let go of in blocks of up to 31 MiB, and give it out again.

    Otherwise it hands larger blocks back to the kernel, which takes page after page to give them anew, and work on
    tensors of some MB waits for that. malloc keeps blocks as large as the largest of up to 32 MiB that it has once
    handed back (mallopt(3), M_MMAP_THRESHOLD), so one is enough. Other allocators take no notice.
    """
    bytearray(31 * 2**20)


@contextmanager
def lone_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, in each of which torch computes alone. Imports torch.

    How many share a product of matrices decides its last bits, and alone they are the same whatever the number.
    """
    import torch

    allowed = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            yield threads
    finally:
        torch.set_num_threads(allowed)  # for threads to come: those above have said 1 for them, too


def release_memory() -> None:
    """Give what was let go of back to the device, before other weights or processes need the room.

    The collection takes a fraction of a second, and pipelines hold themselves in cycles.
    """
    gc.collect()
    if has_context():
        sys.modules["torch"].cuda.empty_cache()
