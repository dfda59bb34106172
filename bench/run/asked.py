"""What a run is asked for, and what its stages work on once that is checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.fleet import Fleet
from bench.records import Dtype, Progress, Suite, Variant
from bench.store import RunFolder

Stage = Literal["render", "score", "measure", "report"]
STAGES: tuple[Stage, ...] = ("render", "score", "measure", "report")


class Asked(NamedTuple):
    """The arguments of ``bench.run.run_all``."""

    suite: Suite
    path: Path | str
    variants: Sequence[str] | None
    metrics: Sequence[str] | None
    device: str
    fresh: bool
    weights_dir: Path | None
    tower_dtype: Dtype | None
    ray: str | None
    progress: Progress | None
    notes: tuple[str, ...] = ()
    """What the run is to remember of how it came to its settings."""


class Work(NamedTuple):
    """What every stage works on, checked: an open folder, and which variants and metrics of the suite."""

    suite: Suite
    folder: RunFolder
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]
    device: str
    weights_dir: Path | None
    tower_dtype: Dtype | None
    fleet: Fleet | None
    """The workers on Ray; None where this process renders."""
    progress: Progress | None
