"""The numbers of a LoRA file, read one change at a time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open

from bench.errors import WeightsError
from bench.names import listed
from bench.variants.adapters.change import Adapter, Change
from bench.variants.finite import count_non_finite


class AdapterParts:
    """An open LoRA file.

    Use it in a ``with``: ``with AdapterParts(path, "cuda") as parts: parts.of(change)``.

    Args:
        path: the file.
        device: where the tensors go.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = path
        self._file: Any = safe_open(path, "pt", device=device)

    def __enter__(self) -> AdapterParts:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def of(self, change: Change) -> dict[str, torch.Tensor]:
        """Role -> tensor of a change, float32.

        Raises:
            WeightsError: a value is not finite.
        """
        parts = {role: self._file.get_tensor(key).to(torch.float32) for role, key in change.parts.items()}
        for role, part in parts.items():
            wrong = count_non_finite(part)
            if wrong:
                raise WeightsError(
                    f"{self._path}: {wrong} of {part.numel()} values of {change.parts[role]} are not finite.",
                    "take an earlier checkpoint of the training: a LoRA with such values spoils every image",
                )
        return parts


def read_parts(path: Path, device: str = "cpu") -> AdapterParts:
    """Opens a LoRA file, of which ``of(change)`` reads the tensors of one change at a time."""
    return AdapterParts(path, device)


def check_values(adapter: Adapter) -> None:
    """Reads every number of a LoRA file once, one change in memory at a time.

    Raises:
        WeightsError: a value is not finite, or all changes are zero.
    """
    with read_parts(adapter.path) as parts:
        # No short cut: every change is read, so that every value is looked at.
        zero = [_is_zero(change, parts.of(change)) for change in adapter.changes]
    if all(zero):
        raise WeightsError(
            f"{adapter.path}: changes nothing, since in each of its {len(zero)} modules a matrix is all zeros, such as "
            f"{listed((change.tensor for change in adapter.changes), 3)}.",
            "check that the file is the end of a training, not its beginning",
        )


def _is_zero(change: Change, parts: dict[str, torch.Tensor]) -> bool:
    """Whether a change is zero for sure: a factor of it is all zeros, and no norms are set."""
    return not change.dora and any(not part.any() for role, part in parts.items() if role != "alpha")
