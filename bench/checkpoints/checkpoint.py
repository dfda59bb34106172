"""A checkpoint as the rest of this room sees it: tensors by one set of names, read one at a time.

The names are diffusers' and transformers', behind the component's: ``unet.conv_in.weight``,
``vae.decoder.conv_in.bias``, ``text_encoder.text_model.embeddings.token_embedding.weight``,
``text_encoder_2.text_projection.weight``. Whatever the layout of the files, a tensor has this name and
diffusers' shape, so that loading, LoRAs, merges and audits are each written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bench.records import CheckpointFacts

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """What a header tells of a tensor."""

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
        """What the files tell of themselves."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its name, known without reading weights."""

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Component and path of every weight file, in a fixed order; what a fingerprint is taken of."""

    @property
    def config(self) -> Path:
        """A folder of component configurations as diffusers saves them, with tokenizers or without."""

    @property
    def other_configs(self) -> Mapping[str, Path]:
        """Folders of the ``config.json`` of components that have another than ``config`` holds: a replaced VAE."""

    @property
    def identity(self) -> str:
        """What the weights are beside the ``files``: a recipe's arithmetic, a seed; empty where files are all."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, in the precision it is stored in; a computed one in float32."""
