"""Memory of a device or machine: whether there was too little of it, and giving it back. Never imports torch."""

from __future__ import annotations

import atexit
import gc
import sys

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
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)


def reuse_freed_memory() -> None:
    """Let glibc's malloc keep what is let go of in blocks of up to 31 MiB, and give it out again.

    Otherwise it hands larger blocks back to the kernel, which takes page after page to give them anew, and work on
    tensors of some MB waits for that. malloc keeps blocks as large as the largest of up to 32 MiB that it has once
    handed back (mallopt(3), M_MMAP_THRESHOLD), so one is enough. Other allocators take no notice.
    """
    bytearray(31 * 2**20)


def release_memory() -> None:
    """Give what was let go of back to the device, before other weights or processes need the room.

    The collection takes a fraction of a second, and pipelines hold themselves in cycles.
    """
    gc.collect()
    if has_context():
        sys.modules["torch"].cuda.empty_cache()
