"""The configurations that travel with the package: SDXL's, SD 1.5's, and a tiny pipeline built as SDXL is. No torch.

A single file has no configuration; its header's shapes say which of these it is. ``random:<family>`` has no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.checkpoints.checkpoint import Shape, Tensor
from bench.errors import WeightsError
from bench.records.weights import Family

# Names and shapes of a component's tensors, worked out from its configuration. Imports no torch.

Config = Mapping[str, Any]

Shapes = dict[str, Shape]

UNET_PLAIN: Mapping[str, tuple[object, ...]] = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim": (None,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "resnet_time_scale_shift": ("default",),
    "attention_type": ("default",),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
}

"""Fields that make another architecture of a UNet, and the values that are read."""

UNET_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")


def component_shapes(component: str, config: Config) -> Shapes:
    """Shape of every tensor of a component, by its name inside the component.

    Args:
        component: ``unet``, ``vae``, ``text_encoder`` or ``text_encoder_2``.
        config: its ``config.json``.

    Raises:
        WeightsError: an architecture that is not of this family, or a field that is missing or of another kind.
    """
    build = {"unet": _unet, "vae": _vae, "text_encoder": _text, "text_encoder_2": _projected_text}[component]
    try:
        return build(config)
    except (KeyError, TypeError, IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(
            f"describes a {component} that cannot be understood ({type(error).__name__}: {error})."
        ) from error


# --- layers --------------------------------------------------------------------------------


def _with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _conv(name: str, out: int, inputs: int, size: int = 3) -> Shapes:
    return _with_bias(name, out, inputs, size, size)


def _resnet(name: str, inputs: int, out: int, time: int | None = None) -> Shapes:
    shapes = _with_bias(f"{name}.norm1", inputs) | _conv(f"{name}.conv1", out, inputs)
    if time is not None:
        shapes |= _with_bias(f"{name}.time_emb_proj", out, time)
    shapes |= _with_bias(f"{name}.norm2", out) | _conv(f"{name}.conv2", out, out)
    return shapes if inputs == out else shapes | _conv(f"{name}.conv_shortcut", out, inputs, 1)


def _attention(name: str, width: int, context: int) -> Shapes:
    """Projections without bias, but for the last; keys and values are made of ``context`` numbers."""
    return {
        f"{name}.to_q.weight": (width, width),
        f"{name}.to_k.weight": (width, context),
        f"{name}.to_v.weight": (width, context),
    } | _with_bias(f"{name}.to_out.0", width, width)


# --- UNet ----------------------------------------------------------------------------------


def _unet(config: Config) -> Shapes:
    _refuse_other_unets(config)
    widths = [int(width) for width in config["block_out_channels"]]
    first, time = widths[0], 4 * widths[0]
    shapes = _conv("conv_in", first, config["in_channels"])
    shapes |= _with_bias("time_embedding.linear_1", time, first) | _with_bias("time_embedding.linear_2", time, time)
    if config.get("time_cond_proj_dim") is not None:
        shapes["time_embedding.cond_proj.weight"] = (first, config["time_cond_proj_dim"])
    if config.get("addition_embed_type") is not None:
        shapes |= _with_bias("add_embedding.linear_1", time, config["projection_class_embeddings_input_dim"])
        shapes |= _with_bias("add_embedding.linear_2", time, time)
    shapes |= _way_down(config, widths, time) | _middle(config, widths, time) | _way_up(config, widths, time)
    return shapes | _with_bias("conv_norm_out", first) | _conv("conv_out", config["out_channels"], first)


def _refuse_other_unets(config: Config) -> None:
    odd = [f"{key} = {config[key]!r}" for key, known in UNET_PLAIN.items() if config.get(key, known[0]) not in known]
    kinds = (*config["down_block_types"], *config["up_block_types"])
    odd += [f"a {kind}" for kind in dict.fromkeys(kinds) if kind not in UNET_BLOCKS]
    if odd:
        raise WeightsError(f"a UNet with {', '.join(odd)} is not of the SD 1.5 or SDXL kind.")


def _way_down(config: Config, widths: list[int], time: int) -> Shapes:
    shapes: Shapes = {}
    inputs = widths[0]
    for level, kind in enumerate(config["down_block_types"]):
        out, name = widths[level], f"down_blocks.{level}"
        for layer in range(config["layers_per_block"]):
            shapes |= _resnet(f"{name}.resnets.{layer}", inputs if layer == 0 else out, out, time)
            if kind.startswith("CrossAttn"):
                shapes |= _transformer(f"{name}.attentions.{layer}", out, _depth(config, level), config)
        if level < len(widths) - 1:
            shapes |= _conv(f"{name}.downsamplers.0.conv", out, out)
        inputs = out
    return shapes


def _middle(config: Config, widths: list[int], time: int) -> Shapes:
    width = widths[-1]
    shapes = _resnet("mid_block.resnets.0", width, width, time) | _resnet("mid_block.resnets.1", width, width, time)
    return shapes | _transformer("mid_block.attentions.0", width, _depth(config, len(widths) - 1), config)


def _way_up(config: Config, widths: list[int], time: int) -> Shapes:
    shapes: Shapes = {}
    mirrored = widths[::-1]
    before, last = mirrored[0], config["layers_per_block"]
    for level, kind in enumerate(config["up_block_types"]):
        out, name = mirrored[level], f"up_blocks.{level}"
        beside = mirrored[min(level + 1, len(widths) - 1)]
        for layer in range(last + 1):
            # What comes up is joined with what the way down left at this place.
            inputs = (before if layer == 0 else out) + (beside if layer == last else out)
            shapes |= _resnet(f"{name}.resnets.{layer}", inputs, out, time)
            if kind.startswith("CrossAttn"):
                depth = _depth(config, len(widths) - 1 - level)
                shapes |= _transformer(f"{name}.attentions.{layer}", out, depth, config)
        if level < len(widths) - 1:
            shapes |= _conv(f"{name}.upsamplers.0.conv", out, out)
        before = out
    return shapes


def _depth(config: Config, level: int) -> int:
    """Transformer layers of an attention at a resolution, the finest first."""
    depth = config.get("transformer_layers_per_block", 1)
    if config.get("reverse_transformer_layers_per_block") is not None:
        raise ValueError("the way up has another number of transformer layers than the way down")
    return int(depth[level] if isinstance(depth, list) else depth)


def _transformer(name: str, width: int, depth: int, config: Config) -> Shapes:
    context = config["cross_attention_dim"]
    square = (width, width) if config.get("use_linear_projection", False) else (width, width, 1, 1)
    shapes = _with_bias(f"{name}.norm", width) | _with_bias(f"{name}.proj_in", *square)
    for layer in range(depth):
        block = f"{name}.transformer_blocks.{layer}"
        for number in (1, 2, 3):
            shapes |= _with_bias(f"{block}.norm{number}", width)
        shapes |= _attention(f"{block}.attn1", width, width) | _attention(f"{block}.attn2", width, context)
        shapes |= _with_bias(f"{block}.ff.net.0.proj", 8 * width, width)
        shapes |= _with_bias(f"{block}.ff.net.2", width, 4 * width)
    return shapes | _with_bias(f"{name}.proj_out", *square)


# --- VAE -----------------------------------------------------------------------------------


def _vae(config: Config) -> Shapes:
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise WeightsError(f"a VAE of the class {kind} is not of the SD 1.5 or SDXL kind, which is AutoencoderKL.")
    widths, layers = [int(width) for width in config["block_out_channels"]], int(config["layers_per_block"])
    latent, deep = int(config["latent_channels"]), widths[-1]
    shapes = _conv("encoder.conv_in", widths[0], config["in_channels"])
    inputs = widths[0]
    for level, out in enumerate(widths):
        shapes |= _vae_level(f"encoder.down_blocks.{level}", inputs, out, layers)
        if level < len(widths) - 1:
            shapes |= _conv(f"encoder.down_blocks.{level}.downsamplers.0.conv", out, out)
        inputs = out
    shapes |= _vae_middle("encoder", deep, config) | _with_bias("encoder.conv_norm_out", deep)
    shapes |= _conv("encoder.conv_out", 2 * latent, deep) | _conv("decoder.conv_in", deep, latent)
    shapes |= _vae_middle("decoder", deep, config)
    inputs = deep
    for level, out in enumerate(widths[::-1]):
        shapes |= _vae_level(f"decoder.up_blocks.{level}", inputs, out, layers + 1)
        if level < len(widths) - 1:
            shapes |= _conv(f"decoder.up_blocks.{level}.upsamplers.0.conv", out, out)
        inputs = out
    shapes |= _with_bias("decoder.conv_norm_out", widths[0])
    shapes |= _conv("decoder.conv_out", config["out_channels"], widths[0])
    if config.get("use_quant_conv", True):
        shapes |= _conv("quant_conv", 2 * latent, 2 * latent, 1)
    return shapes | (_conv("post_quant_conv", latent, latent, 1) if config.get("use_post_quant_conv", True) else {})


def _vae_level(name: str, inputs: int, out: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        shapes |= _resnet(f"{name}.resnets.{layer}", inputs if layer == 0 else out, out)
    return shapes


def _vae_middle(side: str, width: int, config: Config) -> Shapes:
    name = f"{side}.mid_block"
    shapes = _resnet(f"{name}.resnets.0", width, width) | _resnet(f"{name}.resnets.1", width, width)
    if not config.get("mid_block_add_attention", True):
        return shapes
    shapes |= _with_bias(f"{name}.attentions.0.group_norm", width)
    for module in ("to_q", "to_k", "to_v", "to_out.0"):
        shapes |= _with_bias(f"{name}.attentions.0.{module}", width, width)
    return shapes


# --- text encoders -------------------------------------------------------------------------


def _text(config: Config) -> Shapes:
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (config["vocab_size"], width),
        "text_model.embeddings.position_embedding.weight": (config["max_position_embeddings"], width),
    }
    for layer in range(config["num_hidden_layers"]):
        name = f"text_model.encoder.layers.{layer}"
        for module in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _with_bias(f"{name}.self_attn.{module}", width, width)
        shapes |= _with_bias(f"{name}.layer_norm1", width) | _with_bias(f"{name}.layer_norm2", width)
        shapes |= _with_bias(f"{name}.mlp.fc1", inner, width) | _with_bias(f"{name}.mlp.fc2", width, inner)
    return shapes | _with_bias("text_model.final_layer_norm", width)


def _projected_text(config: Config) -> Shapes:
    return _text(config) | {"text_projection.weight": (config["projection_dim"], config["hidden_size"])}


# The configurations that travel with the package: SDXL's, SD 1.5's, and a tiny pipeline built as SDXL is. No torch.

FAMILIES = ("sdxl", "sd15", "tiny")

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")

PIPELINES: dict[str, Family] = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusionPipeline": "sd15"}

"""Pipeline classes that are rendered, and the family of each."""


def config_folder(family: str) -> Path:
    """The folder of a family's configurations, as diffusers saves them, without tokenizers."""
    return Path(__file__).parent / "configs" / family


def read_config(path: Path) -> dict[str, Any]:
    """One ``config.json``.

    Raises:
        WeightsError: it is missing, or no JSON object.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is missing or cannot be read.", "save the whole pipeline again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: is not a JSON object.", "save the whole pipeline again")
    return config


def read_pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder names.

    Raises:
        WeightsError: no readable ``model_index.json``, or a pipeline that is not of the SD or SDXL family.
    """
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{folder}: is no diffusers folder: model_index.json is missing or cannot be read.",
            "save one with pipeline.save_pretrained(FOLDER)",
        ) from error
    if name not in PIPELINES:
        raise WeightsError(f"{folder}: holds a {name}; hotart-bench renders {' and '.join(PIPELINES)}.")
    return str(name)


def pipeline_family(folder: Path) -> Family:
    """The family of a diffusers folder; raises as ``read_pipeline_class``."""
    return PIPELINES[read_pipeline_class(folder)]


def config_shapes(folder: Path, component: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a component's tensors by name, from its folder's ``config.json``.

    Raises:
        WeightsError: as ``read_config`` and ``component_shapes``, with the file's name.
    """
    path = folder / "config.json"
    config = read_config(path)
    try:
        return component_shapes(component, config)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error


def folder_tensors(folder: Path, dtype: str = "float16") -> dict[str, Tensor]:
    """Every tensor of a pipeline whose configurations lie in a folder, under the names of ``Checkpoint``."""
    return {
        f"{component}.{name}": Tensor(shape, dtype)
        for component in COMPONENTS
        if (folder / component).is_dir()
        for name, shape in config_shapes(folder / component, component).items()
    }


@lru_cache
def family_tensors(family: str) -> Mapping[str, Tensor]:
    """Every tensor of a family, as float16."""
    return folder_tensors(config_folder(family))


def is_provenance(key: str) -> bool:
    """Whether a field of a component's configuration says where it is from, and nothing of what it computes."""
    return key.startswith("_") or key in ("transformers_version", "dtype", "torch_dtype", "architectures")
