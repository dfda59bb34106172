"""The tensors of a checked weight file. torch is imported on the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import WeightsError

FETCH_AGAIN = "delete it and fetch it again: hotart-bench fetch SUITE"
"""The hint beside a file that is not what it should be."""


def read_tensors(path: Path) -> Any:
    """What a weight file holds, on the CPU: a dict of tensors, or for ``.pt`` what it was saved as.

    ``.pt``, ``.pth`` and ``.bin`` are pickles: they are read with ``weights_only=True``, which builds tensors and
    plain containers and nothing else, and only ever after ``find_weights`` has checked their hash.

    Raises:
        WeightsError: a file of another kind, a damaged one, or a pickle with more than tensors in it.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    if path.suffix not in {".pt", ".pth", ".bin"}:
        raise WeightsError(f"{path}: weights are .safetensors, .pt, .pth or .bin files.")
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own for what is damaged
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    why = " ".join(str(error).split())[:120]
    return WeightsError(
        f"{path}: cannot be read as weights ({type(error).__name__}: {why}).",
        FETCH_AGAIN,
    )
