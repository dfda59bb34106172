"""A checkpoint whose tensors lie in ``.safetensors`` files, whatever their layout; and one put together from parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.checkpoints.checkpoint import Shape, Tensor
from bench.checkpoints.ldm_layout import Join
from bench.checkpoints.safetensors_files import Stored, read_stored
from bench.errors import WeightsError
from bench.formatting import listed
from bench.records import CheckpointFacts

if TYPE_CHECKING:
    import torch

FEW = 4


class Home(NamedTuple):
    """Where a tensor lies, and how it differs there from diffusers' form."""

    path: Path
    stored: Stored
    join: Join = "same"

    def tensor(self) -> Tensor:
        """What it is once it is read."""
        shape = self.stored.shape
        if self.join == "transpose":
            shape = shape[::-1]
        return Tensor(shape[:2] if self.join == "conv" else shape, self.stored.dtype)


@dataclass(frozen=True)
class FileCheckpoint:
    """A ``Checkpoint`` read from files."""

    what: str
    facts: CheckpointFacts
    homes: Mapping[str, Home]
    files: tuple[tuple[str, Path], ...]
    config: Path
    tells_prediction: bool
    """Whether the files themselves say what the UNet predicts; a lone UNet says nothing."""
    other_configs: Mapping[str, Path] = field(default_factory=dict)
    identity: str = ""

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its name."""
        return {name: home.tensor() for name, home in self.homes.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, in the precision it is stored in."""
        path, stored, join = self.homes[name]
        tensor = read_stored(path, stored)
        if join == "transpose":
            return tensor.T.contiguous()
        return tensor[:, :, 0, 0] if join == "conv" else tensor


def stored_dtypes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Precisions of each component, joined by ``+`` where it has several."""
    found: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault(name.split(".", 1)[0], set()).add(tensor.dtype)
    return {component: "+".join(sorted(dtypes)) for component, dtypes in found.items()}


def refuse_differences(what: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raises WeightsError where a file lacks tensors, has others besides, or has some in another shape."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {len(expected)} tensors, such as {listed(missing, FEW)}")
    if extra:
        problems.append(f"holds {len(extra)} that have no place ({_counted(extra)}), such as {listed(extra, FEW)}")
    if other:
        name = min(other)
        problems.append(
            f"holds {len(other)} of another shape, such as {name}, which is {found[name]} and not {expected[name]}"
        )
    if problems:
        raise WeightsError(
            f"{what}: {'; '.join(problems)}.", "check that the file is whole, and of the family that it is taken for"
        )


def _counted(names: Iterable[str]) -> str:
    """Names counted by their first word: "model 12, conditioner 3"."""
    counts: dict[str, int] = {}
    for name in sorted(names):
        first = name.split(".", 1)[0]
        counts[first] = counts.get(first, 0) + 1
    return ", ".join(f"{first} {count}" for first, count in counts.items())
