"""A checkpoint: tensors under one set of names, read one at a time.

The names are those of diffusers and transformers behind the component's name: ``unet.conv_in.weight``,
``vae.decoder.conv_in.bias``, ``text_encoder.text_model.embeddings.token_embedding.weight``,
``text_encoder_2.text_projection.weight``. Whatever the layout of the files, a tensor has this name and diffusers'
shape, so that loading, LoRAs, merges and audits are each written once. No torch before a tensor is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bench.errors import WeightsError
from bench.formatting import listed
from bench.records import CheckpointFacts

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: Shape
    dtype: str
    """As torch names it: ``float16``."""


class Checkpoint(Protocol):
    """Tensors of a whole pipeline, or of a part of one."""

    @property
    def what(self) -> str:
        """The source as the user named it."""

    @property
    def facts(self) -> CheckpointFacts:
        """What the files say of themselves."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its name, known without reading weights."""

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Component and path of every weight file, in a fixed order; a fingerprint is the hash of these."""

    @property
    def config(self) -> Path:
        """A folder of component configurations as diffusers saves them, with or without tokenizers."""

    @property
    def other_configs(self) -> Mapping[str, Path]:
        """Folders of the ``config.json`` of components that differ from ``config``: a replaced VAE."""

    @property
    def identity(self) -> str:
        """What decides the weights besides ``files``: a recipe's arithmetic, a seed; empty where files are all."""

    @property
    def tells_prediction(self) -> bool:
        """Whether it says what its UNet predicts; a UNet alone says nothing."""

    def read(self, name: str, /) -> torch.Tensor:
        """One tensor on the CPU, in the precision it is stored in; a computed one in float32."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """A ``Checkpoint`` of files, of random numbers, or a composite of other checkpoints."""

    what: str
    facts: CheckpointFacts
    tensors: Mapping[str, Tensor]
    files: tuple[tuple[str, Path], ...]
    config: Path
    read: Callable[[str], torch.Tensor]
    other_configs: Mapping[str, Path] = field(default_factory=dict)
    identity: str = ""
    tells_prediction: bool = True
    sources: Mapping[str, Checkpoint] = field(default_factory=dict)
    """Of a composite, where each component comes from."""


PREDICTION_FACTS = ("prediction", "zero_terminal_snr", "noise")
"""Facts of how a UNet was trained, which its weights cannot tell: models that differ in them do not merge."""


def noise_facts(speaker: Checkpoint) -> dict[str, Any]:
    """The facts that a composite takes over from the one that says what the UNet predicts."""
    return {name: getattr(speaker.facts, name) for name in (*PREDICTION_FACTS, "prediction_from", "left_aside")}


def component_of(tensor: str) -> str:
    """``unet.conv_in.weight`` -> ``unet``."""
    return tensor.partition(".")[0]


def stored_dtypes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The precision of each component; several are joined by ``+``."""
    found: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault(component_of(name), set()).add(tensor.dtype)
    return {component: "+".join(sorted(dtypes)) for component, dtypes in found.items()}


def refuse_differences(what: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raises WeightsError where a file lacks tensors, has extra ones, or has some in another shape."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {len(expected)} tensors, such as {listed(missing, 4)}")
    if extra:
        counts = Counter(component_of(name) for name in sorted(extra))
        counted = ", ".join(f"{first} {count}" for first, count in counts.items())
        problems.append(f"holds {len(extra)} that have no place ({counted}), such as {listed(extra, 4)}")
    if other:
        name = min(other)
        problems.append(
            f"holds {len(other)} of another shape, such as {name}, which is {found[name]} and not {expected[name]}"
        )
    if problems:
        raise WeightsError(
            f"{what}: {'; '.join(problems)}.", "check that the file is whole, and of the family that it is taken for"
        )
