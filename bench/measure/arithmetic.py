"""How a loaded pipeline computes, in one sentence: what a speed holds for beside the machine."""

from __future__ import annotations

from typing import Any

from bench.measure.passes import kind_of
from bench.records import Settings

KERNELS = {"flash": "flash", "mem_efficient": "memory-efficient", "cudnn": "cuDNN", "math": "plain"}
"""Kernels of torch's attention by the names of ``torch.backends.cuda.<name>_sdp_enabled``."""


def arithmetic_note(pipe: Any, settings: Settings, device: str) -> str:
    """Tell dtype, attention, compiled blocks, and on CUDA the versions and switches that choose kernels.

    Read from the loaded pipeline and from torch, not from what was asked for.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    words = [settings.dtype, f"attention by {_attention(pipe.unet)}", _compiled(pipe.unet)]
    if kind_of(device) == "cuda":
        allowed = [word for name, word in KERNELS.items() if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()]
        words += [
            f"attention kernels allowed: {', '.join(allowed)}",
            f"CUDA {torch.version.cuda}",
            f"cuDNN {cudnn.version()} (autotuning {_on(cudnn.benchmark)})",
            f"TensorFloat-32 {_on(cudnn.allow_tf32)} in convolutions, "
            f"{_on(torch.get_float32_matmul_precision() != 'highest')} in products",
        ]
    return f"Arithmetic of the timing processes: {'; '.join(words)}."


def _attention(unet: Any) -> str:
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    return ", ".join(sorted(kinds)) or "none"


def _compiled(unet: Any) -> str:
    """``Module.compile`` leaves its compiled call at the module."""
    count = sum(getattr(module, "_compiled_call_impl", None) is not None for module in unet.modules())
    return f"{count} compiled {'block' if count == 1 else 'blocks'}" if count else "not compiled"


def _on(switch: bool) -> str:
    return "on" if switch else "off"
