"""Diffusers folders: a whole pipeline, or a UNet or VAE alone. No torch before a tensor is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench.checkpoints.detect import CONTEXT_OF_SD2
from bench.checkpoints.families import COMPONENTS, PIPELINES, config_shapes, read_config, read_pipeline_class
from bench.checkpoints.file_checkpoint import FileCheckpoint, Home, refuse_differences, stored_dtypes
from bench.checkpoints.locate import convert_hint
from bench.checkpoints.safetensors_files import read_header, weight_files
from bench.checkpoints.single_file import INPAINTING_CHANNELS
from bench.errors import WeightsError
from bench.records import CheckpointFacts
from bench.records.weights import Family, Prediction

IDLE = {
    "text_encoder": re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale|text_projection\.weight"),
    "text_encoder_2": re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale"),
}

"""Tensors that some versions of transformers saved and that no image depends on."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

"""Names that diffusers gave a VAE's attention before 0.17; SD 1.5's own VAE has them."""

SHARD = re.compile(r"-\d+-of-0*(\d+)\.safetensors$")

VAE_SCALE = 0.18215

"""What a VAE's latents are multiplied with where its configuration says nothing: diffusers' default, SD 1.5's."""


def open_folder(folder: Path, what: str) -> FileCheckpoint:
    """A pipeline as diffusers saves it; components may be missing.

    Raises:
        WeightsError: no pipeline of this family, a damaged file, or tensors that its configurations do not ask for.
    """
    pipeline = read_pipeline_class(folder)
    _refuse_sd2(folder)
    asked = COMPONENTS if PIPELINES[pipeline] == "sdxl" else COMPONENTS[:-1]
    homes: dict[str, Home] = {}
    files: list[tuple[str, Path]] = []
    for component in asked:
        if (folder / component).is_dir():
            found, paths = read_component(folder / component, component)
            homes |= found
            files += [(component, path) for path in paths]
    return FileCheckpoint(
        what=what,
        facts=_facts(folder, PIPELINES[pipeline], homes),
        homes=homes,
        files=tuple(files),
        config=folder,
        tells_prediction=True,
    )


def open_component(folder: Path, component: str, what: str, family: Family) -> FileCheckpoint:
    """A UNet or VAE alone: a folder of ``config.json`` and weights.

    Args:
        folder: the folder.
        component: ``unet`` or ``vae``.
        what: as the user named it.
        family: of the checkpoint that it becomes a part of; the folder does not tell.

    Raises:
        WeightsError: as ``open_folder``.
    """
    homes, paths = read_component(folder, component)
    return FileCheckpoint(
        what=what,
        facts=CheckpointFacts(
            layout="diffusers",
            family=family,
            inpainting=_is_inpainting(homes),
            dtypes=stored_dtypes({name: home.tensor() for name, home in homes.items()}),
            licence=_licence(folder),
        ),
        homes=homes,
        files=tuple((component, path) for path in paths),
        config=folder,
        tells_prediction=False,
        other_configs={component: folder},
    )


def read_component(folder: Path, component: str) -> tuple[dict[str, Home], list[Path]]:
    """Where each tensor of a component lies, by its name in a ``Checkpoint``; and the component's files.

    Raises:
        WeightsError: no safetensors, a shard missing or damaged, or tensors that ``config.json`` does not ask for.
    """
    files = weight_files(folder)
    if not files:
        raise _no_weights(folder, component)
    shards = SHARD.search(files[0].name)
    if shards is not None and int(shards[1]) != len(files):
        raise WeightsError(
            f"{folder}: holds {len(files)} of {shards[1]} shards of {component}.", "get the folder again"
        )
    homes: dict[str, Home] = {}
    for path in files:
        for key, stored in read_header(path).tensors.items():
            name = _name(component, key)
            if name in homes:
                raise WeightsError(f"{path}: holds {key}, which {homes[name].path.name} holds too.")
            if name:
                homes[name] = Home(path, stored)
    shapes = config_shapes(folder, component)
    refuse_differences(
        str(folder),
        {f"{component}.{name}": shape for name, shape in shapes.items()},
        {name: home.stored.shape for name, home in homes.items()},
    )
    return homes, files


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
    if component in IDLE:
        if IDLE[component].fullmatch(key):
            return ""
        # Since transformers 5.6 a CLIPTextModel has no text_model inside it.
        bare = component == "text_encoder" and not key.startswith("text_model.")
        return f"{component}.text_model.{key}" if bare else f"{component}.{key}"
    if component == "vae":
        key = re.sub(
            r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)", lambda match: OLD_ATTENTION[match[1]], key
        )
    return f"{component}.{key}"


def _facts(folder: Path, family: Family, homes: Mapping[str, Home]) -> CheckpointFacts:
    noise = read_config(folder / "scheduler" / "scheduler_config.json")
    predictions: dict[object, Prediction] = {"epsilon": "epsilon", "v_prediction": "v_prediction"}
    said = noise.get("prediction_type", "epsilon")
    if said not in predictions:
        raise WeightsError(
            f"{folder / 'scheduler' / 'scheduler_config.json'}: prediction_type is {said!r}; "
            f"known are {' and '.join(map(str, predictions))}."
        )
    return CheckpointFacts(
        layout="diffusers",
        family=family,
        prediction=predictions[said],
        zero_terminal_snr=bool(noise.get("rescale_betas_zero_snr", False)),
        inpainting=_is_inpainting(homes),
        dtypes=stored_dtypes({name: home.tensor() for name, home in homes.items()}),
        licence=_licence(folder),
    )


def _refuse_sd2(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    if path.is_file() and read_config(path).get("cross_attention_dim") == CONTEXT_OF_SD2:
        raise WeightsError(f"{folder}: looks like a Stable Diffusion 2 model. hotart-bench reads SDXL and SD 1.5.")


def _is_inpainting(homes: Mapping[str, Home]) -> bool:
    home = homes.get("unet.conv_in.weight")
    return home is not None and home.stored.shape[1] == INPAINTING_CHANNELS


def _licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card, where there is one."""
    try:
        card = (folder / "README.md").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    entry = re.search(r"^license:[ \t]*([^\s#].*?)[ \t]*$", front[1], re.MULTILINE) if front else None
    return entry[1].strip("'\"") if entry else None
