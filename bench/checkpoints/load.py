"""Opens what is not a recipe: a single file, a diffusers folder, random weights, or a composite of several.

``bench.merge.load`` lies above and opens whatever a variant names. No torch before a tensor is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.checkpoints import configurations
from bench.checkpoints.checkpoint import (
    Checkpoint,
    SourceCheckpoint,
    component_of,
    noise_facts,
    refuse_differences,
    stored_dtypes,
)
from bench.checkpoints.configurations import read_config
from bench.checkpoints.diffusers_folder import open_folder
from bench.checkpoints.families import (
    COMPONENTS,
    CONV_IN,
    component_shapes,
    family_components,
    of_component,
)
from bench.checkpoints.locate import RANDOM, Place
from bench.checkpoints.random_weights import open_random
from bench.checkpoints.single_file import open_single
from bench.errors import WeightsError
from bench.formatting import listed
from bench.records import Component

UNET_FIELDS: dict[str, Any] = dict.fromkeys(
    (
        "in_channels",
        "out_channels",
        "cross_attention_dim",
        "addition_embed_type",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
    )
)
VAE_FIELDS = {"latent_channels": 4, "scaling_factor": 0.18215}
"""Fields of a configuration that the other components have to agree with, and what diffusers takes where it is silent:
0.18215 multiplies the latents of SD 1.5's VAE."""


def open_place(place: Place) -> Checkpoint:
    """A checkpoint that lies on this machine; components may be missing in it.

    Raises:
        WeightsError: it is damaged, or not a checkpoint.
    """
    if place.what in RANDOM:
        return open_random(place.what.removeprefix("random:"))
    path = Path(place.path or "")
    return open_folder(path, place.what) if path.is_dir() else open_single(path, place.what)


def compose(base: Checkpoint, parts: Mapping[Component, Checkpoint]) -> Checkpoint:
    """A checkpoint with some components replaced.

    Raises:
        WeightsError: a part does not go with the rest: other shapes, another family, another scale of the latents.
    """
    for component, part in parts.items():
        _refuse_misfit(base, component, part)
    sources: dict[str, Checkpoint] = {component: parts.get(component, base) for component in COMPONENTS}
    tensors = {
        name: tensor
        for component, source in sources.items()
        for name, tensor in source.tensors.items()
        if component_of(name) == component
    }
    # The file of a whole checkpoint goes by the part that is taken of it.
    files = [file for file in base.files if file[0] not in parts]
    for component, part in parts.items():
        files += [(component, path) for label, path in part.files if label == component or label not in COMPONENTS]
    order: dict[str, int] = {component: number for number, component in enumerate(COMPONENTS)}
    identities = {"base": base.identity} | {component: part.identity for component, part in parts.items()}
    configs = {component: own_config(part, component) for component, part in parts.items()}
    speaker = sources["unet"] if sources["unet"].tells_prediction else base
    return SourceCheckpoint(
        what=", ".join([base.what, *(f"{component} of {part.what}" for component, part in parts.items())]),
        facts=msgspec.structs.replace(
            base.facts,
            **noise_facts(speaker),
            inpainting=sources["unet"].facts.inpainting,
            dtypes=stored_dtypes(tensors),
        ),
        tensors=tensors,
        files=tuple(sorted(files, key=lambda file: order.get(file[0], -1))),
        config=base.config,
        read=lambda name: sources[component_of(name)].read(name),
        other_configs={component: folder for component, folder in configs.items() if folder is not None},
        identity="; ".join(f"{component}: {identity}" for component, identity in identities.items() if identity),
        sources=sources,
    )


def own_config(source: Checkpoint, component: str) -> Path | None:
    """The folder of a component's own ``config.json``; None for a single file, which takes its checkpoint's."""
    if component in source.other_configs:
        return source.other_configs[component]
    return None if source.facts.layout == "single-file" else source.config / component


def refuse_incomplete(checkpoint: Checkpoint) -> None:
    """Raises WeightsError where a checkpoint lacks a component, with the way to give it."""
    present = {component_of(name) for name in checkpoint.tensors}
    missing = [component for component in family_components(checkpoint.facts.family) if component not in present]
    if not missing:
        return
    if any(component.startswith("text_encoder") for component in missing):
        how = f'name a whole checkpoint, and this one\'s UNet in it: checkpoint = ..., unet = "{checkpoint.what}"'
    else:
        how = " and ".join(f'{component} = "owner/name"' for component in missing) + " beside checkpoint = ..."
    raise WeightsError(f"{checkpoint.what}: holds no .safetensors weights for {listed(missing)}.", how)


def _refuse_misfit(base: Checkpoint, component: Component, part: Checkpoint) -> None:
    found = of_component(component, part.tensors)
    if not found:
        raise WeightsError(f"{part.what}: holds no weights for {component}.")
    own = own_config(part, component)
    if own is None:
        _refuse_other_shapes(base, component, part)
    elif (base.config / component).is_dir():  # else there is nothing to differ from
        theirs, ours = (
            read_config(folder / "config.json", configurations.COMPONENTS[component])
            for folder in (own, base.config / component)
        )
        fields = UNET_FIELDS if component == "unet" else VAE_FIELDS
        pairs = {name: (theirs.get(name, usual), ours.get(name, usual)) for name, usual in fields.items()}
        odd = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if odd:
            raise WeightsError(
                f"{part.what}: does not go with {base.what} as its {component}: "
                f"{', '.join(f'{name} = {value}' for name, (value, _) in odd.items())}; there it is "
                f"{', '.join(str(value) for _, value in odd.values())}.",
                "take one of the checkpoint's own family",
            )


def _refuse_other_shapes(base: Checkpoint, component: Component, part: Checkpoint) -> None:
    """Refuses a component of a single file that the checkpoint's own configuration does not describe.

    Raises:
        WeightsError: other shapes; or the same shapes but another family, whose latents have another scale.
    """
    found = of_component(component, part.tensors)
    expected = of_component(component, base.tensors) or component_shapes(component, base.config / component)
    if part.facts.inpainting or base.facts.inpainting:  # which of them takes a mask is seen from the whole
        expected = {name: found.get(name, shape) if name == CONV_IN else shape for name, shape in expected.items()}
    refuse_differences(f"{part.what}, taken as {component} of {base.what}", expected, found)
    # A lone UNet or VAE does not tell its family.
    whole = {"unet", "vae"} <= {component_of(name) for name in part.tensors}
    if whole and part.facts.family != base.facts.family:
        raise WeightsError(
            f"{part.what}: is of {part.facts.family}, and {base.what} of {base.facts.family}: its {component} does not "
            "go with the rest, though its shapes do.",
            "take one of the checkpoint's own family",
        )
