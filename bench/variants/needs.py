"""What a suite's variants need, and whether it is on this machine; for ``doctor``. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path

from bench.records import Record, Suite
from bench.variants.checkpoints.families import family_tensors
from bench.variants.recipes.ingredients import every_place
from bench.variants.sources import RANDOM, Place, get_command


class Needed(Record, frozen=True):
    """One thing that a variant needs, for ``doctor``."""

    variant: str
    what: str
    present: bool
    path: str | None
    size_bytes: int | None
    get: str
    """The command that gets it; empty when it is present."""


def weights_needed(suite: Suite, weights_dir: Path | None) -> tuple[Needed, ...]:
    """What every variant of a suite needs, its recipes' sources too, and whether it is on this machine."""
    return tuple(
        _need(variant.name, place) for variant in suite.variants for place in every_place(variant, weights_dir)
    )


def _need(variant: str, place: Place) -> Needed:
    return Needed(
        variant=variant,
        what=place.what,
        present=place.path is not None,
        path=place.path,
        size_bytes=None if place.path is None else _size(place.what, Path(place.path)),
        get="" if place.path is not None else get_command(place),
    )


def _size(what: str, path: Path) -> int:
    if what in RANDOM:
        return sum(2 * math.prod(tensor.shape) for tensor in family_tensors(path.name).values())
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*.safetensors"))
