"""The metrics' published weights, by their names in ``bench.metrics.catalogue``; imports no torch by itself::

path = find_weights("hpsv2.1", place.weights_dir)  # a file, or the folder of an entry of several files
tensors = read_tensors(path)["state_dict"]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import published_files
from bench.errors import WeightsError
from bench.metrics.catalogue import find_entry

FETCH_AGAIN = "delete it and fetch it again: hotart-bench fetch SUITE"
"""The hint for a file that is not what it should be."""


def find_weights(name: str, weights_dir: Path | None = None) -> Path:
    """The checked file or folder of an entry of the catalogue, downloaded if need be.

    Raises:
        UsageError: no such name.
        WeightsError, MachineError: as ``bench.published_files.find_files``.
    """
    return published_files.find_files(find_entry(name), weights_dir)


def read_tensors(path: Path) -> Any:
    """What a weight file holds, on the CPU: a dict of tensors, or for ``.pt`` what it was saved as.

    ``.pt``, ``.pth`` and ``.bin`` are pickles: they are read with ``weights_only=True``, which builds tensors and
    plain containers and nothing else, and only after ``find_weights`` has checked their hash. Imports torch.

    Raises:
        WeightsError: a file of another kind, a damaged one, or a pickle with more than tensors in it.
    """
    if path.suffix not in {".safetensors", *published_files.PICKLES}:
        raise WeightsError(f"{path}: weights are .safetensors, .pt, .pth or .bin files.")
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch have errors of their own for what is damaged
        why = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {why}).", FETCH_AGAIN
        ) from error
