"""Textual-inversion embeddings: rows that stand in the place of tokens, read from the files that trainers write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench import documents
from bench.checkpoints.safetensors_files import first_line
from bench.errors import WeightsError
from bench.formatting import listed
from bench.records import Embedding

SDXL = ("clip_l", "clip_g")
"""The names of the two tensors of an embedding for SDXL, in the order of its text encoders."""


def embedding_rows(embedding: Embedding, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """The rows of an embedding for each text encoder, float32 (rows, width).

    Read are A1111's files (``string_to_param``), those of SDXL (``clip_l`` and ``clip_g``), and those of diffusers and
    kohya (one tensor). ``.pt`` and ``.bin`` are pickles: only tensors and plain containers are built of them.

    Args:
        embedding: as the suite names it.
        widths: of the text encoders' token embeddings.

    Raises:
        WeightsError: the file has changed, is none of these, of another width, or holds NaN or infinity.
    """
    tensors = _read(embedding.path, embedding.sha256)
    names = SDXL if len(widths) == 2 else ("",)
    found = [tensors[name] for name in names if name in tensors]
    theirs = [f"{name or 'one tensor'} of {rows.shape[1]}" for name, rows in tensors.items()]
    if [rows.shape[1] for rows in found] != list(widths) or len(found) != len(tensors):
        ours = [f"{name or 'one tensor'} of {width}" for name, width in zip(names, widths, strict=True)]
        raise WeightsError(
            f"{embedding.path}: the embedding {embedding.name} has {listed(theirs)}, and the text encoders of this "
            f"checkpoint take {listed(ours)}.",
            "use an embedding that was trained for this family",
        )
    if len({len(rows) for rows in found}) > 1:
        raise WeightsError(f"{embedding.path}: clip_l has {len(found[0])} rows and clip_g {len(found[1])}.")
    return tuple(found)


@lru_cache(64)
def _read(path: str, sha256: str) -> Mapping[str, Tensor]:
    """The tensors of a file by ``SDXL``'s names, or its only one by an empty name."""
    if not documents.exists(Path(path)):
        raise WeightsError(f"{path}: there is no such embedding.")
    if documents.sha256_of(Path(path)) != sha256:
        raise WeightsError(
            f"{path}: has changed since the suite was read; another embedding makes another protocol.",
            "run the suite again, in another folder",
        )
    found = _tensors(path, _loaded(path))
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: {name or 'its tensor'} holds NaN or infinity.")
    return found


def _loaded(path: str) -> Any:
    safe = path.lower().endswith(".safetensors")
    try:
        return load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch have errors of their own for what is damaged
        if safe:
            raise WeightsError(f"{path}: cannot be read as an embedding: {first_line(error)}.") from error
        # torch's own sentence advises weights_only=False, which runs whatever code the file holds.
        raise WeightsError(
            f"{path}: cannot be read as an embedding: it is not a file of tensors.", "take the .safetensors version"
        ) from error


def _tensors(path: str, held: Any) -> dict[str, Tensor]:
    if isinstance(held, Mapping) and isinstance(held.get("string_to_param"), Mapping):
        held = held["string_to_param"]
    if not isinstance(held, Mapping):
        raise _no_embedding(path, type(held).__name__)
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    names = {name: name for name in SDXL} if set(SDXL) <= tensors.keys() else dict.fromkeys(list(tensors)[:1], "")
    if len(tensors) != max(1, len(names)):
        raise _no_embedding(path, listed(map(str, held), 5) or "nothing")
    return {ours: _rows(path, tensors[name]) for name, ours in names.items()}


def _rows(path: str, tensor: Tensor) -> Tensor:
    rows = tensor.detach().float()
    rows = rows.unsqueeze(0) if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.numel():
        raise _no_embedding(path, f"a tensor of shape {tuple(tensor.shape)}")
    return rows


def _no_embedding(path: str, found: str) -> WeightsError:
    return WeightsError(
        f"{path}: is no textual-inversion embedding: it holds {found}. Read are string_to_param, clip_l with clip_g, "
        "and one tensor."
    )
