"""Want of memory is told from other errors, and what was let go of is given back."""

from __future__ import annotations

import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from bench.machine import has_context, is_out_of_memory, release_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.13 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_want_of_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory"), KeyError("x")],
)
def test_another_error_is_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_cpus_allocator_says_it_in_words_that_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class Pipeline:
    """Holds itself in a cycle, as those of diffusers do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("started", [True, False])
def test_what_was_let_go_of_is_collected_before_the_device_gets_its_memory_back(monkeypatch, started: bool) -> None:
    gone: list[bool] = []
    cuda = SimpleNamespace(is_initialized=lambda: started, empty_cache=lambda: gone.append(held() is None))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    held = weakref.ref(Pipeline())
    release_memory()
    assert held() is None
    assert gone == [True] * started
    assert has_context() is started


def test_without_torch_there_is_nothing_to_give_back(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    release_memory()
    assert not has_context()
    assert "torch" not in sys.modules


def test_a_process_of_ours_is_told_to_leave_what_it_imported_alone() -> None:
    code = """
import gc
from bench.machine import spare_collector
spare_collector()
class Last:
    def __del__(self):
        print("frozen", gc.get_freeze_count() > 1000, gc.isenabled())
kept = [Last()]
kept.append(kept)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", ""), "what is frozen is not taken down piece by piece"
