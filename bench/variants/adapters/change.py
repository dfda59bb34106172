"""What a LoRA file changes, known from its header alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.records.weights import ChangeKind


class Change(NamedTuple):
    """What a file does to one tensor of the checkpoint."""

    tensor: str
    """Canonical name: ``unet.mid_block.attentions.0.proj_in.weight``."""
    kind: ChangeKind
    dora: bool
    """Whether the weight's norm is set too, so that the change is not additive."""
    rank: int | None
    """Width of the thin matrices; None where there are none."""
    alpha: float | None
    """As the file or its metadata has it; None means alpha = rank."""
    scale: float
    """What the matrices' product is multiplied with: alpha/rank, for rsLoRA alpha/sqrt(rank); 1 for differences."""
    parts: dict[str, str]
    """Role (``up``, ``hada_w1_a``, ``dora_scale``) -> key in the file."""


class Adapter(NamedTuple):
    """A LoRA file, every key of which has found its place in the checkpoint."""

    path: Path
    layout: str
    """How the keys are named: ``kohya, SGM blocks``; several are joined by `` + ``."""
    keys: int
    applied: dict[str, int]
    """Keys by component; they sum up to ``keys``."""
    changes: tuple[Change, ...]
    """In the order of the tensors' names."""

    @property
    def scales(self) -> list[tuple[str, float]]:
        """Tensor and scale of every change: what a file beside this one may say of it, and its bytes do not."""
        return [(change.tensor, change.scale) for change in self.changes]
