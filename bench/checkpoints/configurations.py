"""What a diffusers folder's JSON files may say, as far as it is read here: types, and ranges that models exist in.

Fields that are not listed are left to diffusers and transformers. Without the ranges a count of 1e9 layers would be
built for hours. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from bench import documents
from bench.errors import WeightsError
from bench.records import Component

AGAIN = "save the whole pipeline again with pipeline.save_pretrained(FOLDER), or take its original file"

Width = Annotated[int, Meta(ge=1, le=2**20)]
"""Of a layer, in channels or entries."""
Layers = Annotated[int, Meta(ge=0, le=16)]
"""Of a block; SDXL has 2, and 10 transformer layers in the deepest."""
LayersOfBlocks = Layers | Annotated[list[Layers | Annotated[list[Layers], Meta(max_length=8)]], Meta(max_length=8)]
Widths = Annotated[list[Width], Meta(min_length=1, max_length=8)]
Names = Annotated[list[str], Meta(min_length=1, max_length=8)]


class AnyConfig(Struct):
    """Of which no field is checked: a JSON object."""


class UnetConfig(Struct):
    """``unet/config.json``."""

    class_name: str | None = field(default=None, name="_class_name")
    in_channels: Width = 4
    out_channels: Width = 4
    block_out_channels: Widths = []
    down_block_types: Names | None = None
    up_block_types: Names | None = None
    layers_per_block: LayersOfBlocks = 2
    transformer_layers_per_block: LayersOfBlocks = 1
    reverse_transformer_layers_per_block: LayersOfBlocks | None = None
    cross_attention_dim: Width | Widths | None = None
    attention_head_dim: Width | Widths | None = None
    num_attention_heads: Width | Widths | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: Width | None = None
    projection_class_embeddings_input_dim: Width | None = None
    class_embed_type: str | None = None
    encoder_hid_dim: Width | None = None


class VaeConfig(Struct):
    """``vae/config.json``."""

    class_name: str | None = field(default=None, name="_class_name")
    in_channels: Width = 3
    out_channels: Width = 3
    latent_channels: Width = 4
    block_out_channels: Widths = []
    down_block_types: Names | None = None
    up_block_types: Names | None = None
    layers_per_block: Layers = 1
    norm_num_groups: Width = 32
    sample_size: Width | None = None
    scaling_factor: Annotated[float, Meta(gt=0, le=1000)] = 0.18215
    force_upcast: bool = True


class TextConfig(Struct):
    """``config.json`` of a text encoder."""

    vocab_size: Width = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    projection_dim: Width = 512
    max_position_embeddings: Width = 77
    num_hidden_layers: Annotated[int, Meta(ge=1, le=128)] = 12
    num_attention_heads: Width = 8
    num_labels: Annotated[int, Meta(ge=0, le=1000)] = 2
    """Of no use to a text encoder; transformers makes as many names."""
    text_config: TextConfig | None = None
    """Where the file describes a whole CLIP, the part that counts."""


class LoneConfig(Struct):
    """What tells a UNet's ``config.json`` from a VAE's."""

    class_name: str | None = field(default=None, name="_class_name")
    addition_embed_type: str | None = None


class SchedulerConfig(Struct):
    """``scheduler/scheduler_config.json``: the noise schedule that the checkpoint was trained with."""

    class_name: str | None = field(default=None, name="_class_name")
    num_train_timesteps: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Meta(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Meta(gt=0, lt=1)] = 0.02
    beta_schedule: str = "linear"
    trained_betas: Annotated[list[Annotated[float, Meta(gt=0, le=1)]], Meta(min_length=1)] | None = None
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    timestep_spacing: str = "leading"
    steps_offset: Annotated[int, Meta(ge=0, le=1000)] = 0


class PipelineIndex(Struct):
    """``model_index.json``; its other fields name a component's library and class."""

    class_name: str = field(name="_class_name")
    force_zeros_for_empty_prompt: bool = True


COMPONENTS: dict[Component, type[Struct]] = {
    "unet": UnetConfig,
    "vae": VaeConfig,
    "text_encoder": TextConfig,
    "text_encoder_2": TextConfig,
}


def read_config(path: Path, kind: type[Struct] = AnyConfig) -> dict[str, Any]:
    """A configuration, as its file has it.

    Args:
        path: the file.
        kind: which fields are checked: one of ``configurations``.

    Raises:
        WeightsError: it is missing, not a JSON object, or one of these fields has another type or is out of range.
    """
    try:
        config = documents.loads(documents.read_bytes(path).decode(), finite=False)  # diffusers writes -Infinity
        documents.convert(config, kind)
    except OSError as error:
        said = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise WeightsError(f"{path}: {said}.", AGAIN) from error
    except ValueError as error:
        raise WeightsError(f"{path}: is not such a configuration: {error}.", AGAIN) from error
    table: dict[str, Any] = config
    return table
