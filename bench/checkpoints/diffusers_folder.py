"""Diffusers folders: a whole pipeline, or a UNet or VAE alone. No torch before a tensor is read.

Tensors that are not those of a known family are compared with the model that their ``config.json`` describes. It is
built without memory, which takes torch and some seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.checkpoints.checkpoint import Shape, SourceCheckpoint, Tensor, refuse_differences, stored_dtypes
from bench.checkpoints.configurations import COMPONENTS, UnetConfig, read_config
from bench.checkpoints.detect import CONTEXT_OF_SD2, refuse_scaled, refuse_whole_numbers
from bench.checkpoints.families import (
    CONV_IN,
    FAMILIES,
    INPAINTING_CHANNELS,
    component_shapes,
    config_folder,
    family_components,
    family_tensors,
    of_component,
    pipeline_family,
)
from bench.checkpoints.locate import convert_hint
from bench.checkpoints.safetensors_files import Stored, read_header, read_stored, unwrapped, weight_files
from bench.checkpoints.scheduler import Told, read_scheduler
from bench.documents import read_bytes
from bench.errors import WeightsError
from bench.formatting import listed
from bench.mini import weights as mini
from bench.records import CheckpointFacts, Component
from bench.records.weights import Family

UNUSED = {
    "text_encoder": re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale|text_projection\.weight"),
    "text_encoder_2": re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale"),
}
"""Tensors that some versions of transformers saved and that no image depends on."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names that diffusers gave a VAE's attention before 0.17; SD 1.5's own VAE has them."""

SHARD = re.compile(r"-\d+-of-0*(\d+)\.safetensors$")

EMPTY_IS_ZERO = "force_zeros_for_empty_prompt"
"""Field of SDXL's pipelines: an empty negative prompt is zeros and not the encoding of no words. Here it always is."""

CLASS_NAMES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
UNET_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")
ADDED_TO_UNETS = {"addition_embed_type": (None, "text_time"), "class_embed_type": (None,), "encoder_hid_dim": (None,)}
"""Inputs that a UNet may take besides noise, time and text, and those that SD 1.5 and SDXL give it."""

SIZES = ("block_out_channels", "layers_per_block", "cross_attention_dim", "latent_channels", "hidden_size")
"""Fields of configurations that have to agree with a family's for its shapes to count."""


def open_folder(folder: Path, what: str) -> SourceCheckpoint:
    """A pipeline as diffusers saves it; components may be missing.

    Raises:
        WeightsError: not a pipeline of these families, a damaged file, or tensors that its configurations do not ask
            for.
    """
    family = pipeline_family(folder)
    unet = folder / "unet" / "config.json"
    if unet.is_file() and read_config(unet, UnetConfig).get("cross_attention_dim") == CONTEXT_OF_SD2:
        raise WeightsError(f"{folder}: looks like a Stable Diffusion 2 model. hotart-bench reads SDXL and SD 1.5.")
    locations: dict[str, Stored] = {}
    for component in family_components(family):
        if (folder / component).is_dir():
            locations |= read_component(folder / component, component)
    told = read_scheduler(folder)
    if family == "sdxl" and read_config(folder / "model_index.json").get(EMPTY_IS_ZERO, True) is not True:
        told = told._replace(left_aside=(*told.left_aside, f"{EMPTY_IS_ZERO} = false"))
    return _checkpoint(what, folder, family, locations, told=told)


def open_component(folder: Path, component: Component, what: str, family: Family) -> SourceCheckpoint:
    """A UNet or VAE alone: a folder of ``config.json`` and weights.

    Args:
        folder: the folder.
        component: ``unet`` or ``vae``.
        what: as the user named it.
        family: of the checkpoint that it becomes a part of; the folder does not tell.

    Raises:
        WeightsError: as ``open_folder``.
    """
    return _checkpoint(what, folder, family, read_component(folder, component), lone=component)


def _checkpoint(
    what: str,
    folder: Path,
    family: Family,
    locations: Mapping[str, Stored],
    lone: Component | None = None,
    told: Told | None = None,
) -> SourceCheckpoint:
    tensors = {name: Tensor(stored.shape, stored.dtype) for name, stored in locations.items()}
    conv_in = tensors.get(CONV_IN)
    files = dict.fromkeys((name.partition(".")[0], stored.path) for name, stored in locations.items())
    return SourceCheckpoint(
        what=what,
        facts=CheckpointFacts(
            layout="diffusers",
            family=family,
            inpainting=conv_in is not None and conv_in.shape[1] == INPAINTING_CHANNELS,
            dtypes=stored_dtypes(tensors),
            licence=card_licence(folder),
            **(told or Told())._asdict(),
        ),
        tensors=tensors,
        files=tuple(files),
        config=folder,
        read=lambda name: read_stored(locations[name]),
        other_configs={} if lone is None else {lone: folder},
        tells_prediction=lone is None,
    )


def read_component(folder: Path, component: Component) -> dict[str, Stored]:
    """Where each tensor of a component lies, by its name in a ``Checkpoint``, file after file.

    Raises:
        WeightsError: no safetensors, a shard missing or damaged, or tensors that ``config.json`` does not ask for.
    """
    files = weight_files(folder)
    if not files:
        raise _no_weights(folder, component)
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        raise WeightsError(f"{folder}: lacks {listed(lacking, 4)}, which its index names.", "get the folder again")
    shards = SHARD.search(files[0].name)
    if shards is not None and int(shards[1]) != len(files):
        raise WeightsError(
            f"{folder}: holds {len(files)} of {shards[1]} shards of {component}.", "get the folder again"
        )
    locations: dict[str, Stored] = {}
    for path in files:
        for key, stored in unwrapped(path, read_header(path).tensors).items():
            name = _name(component, key)
            if name in locations:
                raise WeightsError(f"{path}: holds {key}, which {locations[name].path.name} holds too.")
            if name:
                locations[name] = stored
    refuse_scaled(str(folder), locations)
    config = _read_architecture(component, folder / "config.json")
    found = {name: stored.shape for name, stored in locations.items()}
    known = any(_is_of_family(component, family, config, found) for family in FAMILIES)
    if not known and folder.parent != mini.FOLDER / "pipeline":  # whose files are checked by their sha256
        refuse_differences(str(folder), component_shapes(component, folder), found)
    refuse_whole_numbers(str(folder), locations)
    return locations


def _is_of_family(component: Component, family: str, config: Mapping[str, Any], found: Mapping[str, Shape]) -> bool:
    """Whether tensors and configuration are those of a family, so that there is no need to build the model."""
    if found != of_component(component, family_tensors(family)):
        return False
    usual = read_config(config_folder(family) / component / "config.json", COMPONENTS[component])
    return all(config.get(field) == usual.get(field) for field in SIZES)


def _read_architecture(component: Component, path: Path) -> dict[str, Any]:
    """A component's configuration.

    Raises:
        WeightsError: it is missing; or a UNet or VAE of another class, of other blocks, or with inputs besides prompts.
    """
    config = read_config(path, COMPONENTS[component])
    usual = CLASS_NAMES.get(component)
    odd = [f"the class {config['_class_name']}"] if usual and config.get("_class_name", usual) != usual else []
    if component == "unet":
        odd += [f"{key} = {config[key]!r}" for key, known in ADDED_TO_UNETS.items() if config.get(key) not in known]
        for key in ("down_block_types", "up_block_types"):
            odd += [f"a {block}" for block in dict.fromkeys(config.get(key) or ()) if block not in UNET_BLOCKS]
    if odd:
        raise WeightsError(f"{path}: a {component} with {', '.join(odd)} is not of the SD 1.5 or SDXL kind.")
    return config


def _no_weights(folder: Path, component: str) -> WeightsError:
    pickles = sorted(folder.glob("*.bin"))
    if not pickles:
        return WeightsError(f"{folder}: holds no .safetensors weights for {component}.", "get the folder again")
    return WeightsError(
        f"{folder}: holds no .safetensors weights for {component}; pickled weights are not read.",
        convert_hint(pickles[0]),
    )


def _name(component: str, key: str) -> str:
    """A stored name as ``Checkpoint`` has it; empty for a tensor of no use."""
    if component in UNUSED:
        if UNUSED[component].fullmatch(key):
            return ""
        # Since transformers 5.6 a CLIPTextModel has no text_model inside it.
        bare = component == "text_encoder" and not key.startswith("text_model.")
        return f"{component}.text_model.{key}" if bare else f"{component}.{key}"
    if component == "vae":
        key = re.sub(
            r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)", lambda match: OLD_ATTENTION[match[1]], key
        )
    return f"{component}.{key}"


def card_licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card, where there is one."""
    try:
        card = read_bytes(folder / "README.md").decode()
    except (OSError, UnicodeDecodeError):
        return None
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    entry = re.search(r"^license:[ \t]*([^\s#].*?)[ \t]*$", front[1], re.MULTILINE) if front else None
    return entry[1].strip("'\"") if entry else None
