"""The LoRAs of a variant, read and matched to its checkpoint. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.records import Lora, Variant
from bench.variants import sources
from bench.variants.adapters import Adapter, Change, read_adapter
from bench.variants.blocks import check_blocks, count_blocks
from bench.variants.checkpoint import Tensor


class Applied(NamedTuple):
    """A LoRA of a variant, read and matched to the checkpoint."""

    lora: Lora
    adapter: Adapter


def read_loras(tensors: Mapping[str, Tensor], variant: Variant, weights_dir: Path | None) -> list[Applied]:
    """Read and match every LoRA of a variant.

    Raises:
        WeightsError: one is missing, damaged, or has a key that fits no tensor of the checkpoint.
        SuiteError: it names blocks that the UNet does not have.
    """
    applied, blocks = [], count_blocks(tensors)
    for number, lora in enumerate(variant.loras):
        check_blocks(lora.blocks, blocks, f"variants.{variant.name}.loras[{number}]")
        place = sources.fetch(sources.find_lora(lora.path, weights_dir))
        applied.append(Applied(lora, read_adapter(Path(place.path or ""), tensors)))
    return applied


def by_tensor(applied: Sequence[Applied]) -> dict[str, list[tuple[int, Change]]]:
    """The changes of each tensor, LoRA by LoRA, so that it is computed in float32 from end to end and cast once."""
    found: dict[str, list[tuple[int, Change]]] = {}
    for index, one in enumerate(applied):
        for change in one.adapter.changes:
            found.setdefault(change.tensor, []).append((index, change))
    return found
