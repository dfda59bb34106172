"""A variant's weights as one ``Checkpoint``, whatever they are made of. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.checkpoints import locate as sources
from bench.checkpoints.checkpoint import Checkpoint, Tensor
from bench.checkpoints.diffusers_folder import VAE_SCALE, open_component, open_folder
from bench.checkpoints.families import COMPONENTS, config_shapes, read_config
from bench.checkpoints.file_checkpoint import FileCheckpoint, refuse_differences, stored_dtypes
from bench.checkpoints.random_weights import open_random
from bench.checkpoints.single_file import INPAINTING_CHANNELS, open_single
from bench.errors import WeightsError
from bench.formatting import listed
from bench.records import CheckpointFacts, Variant

if TYPE_CHECKING:
    import torch

FACING = (
    "in_channels",
    "out_channels",
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)

"""Fields of a UNet's configuration that the other components have to agree with."""


@dataclass(frozen=True)
class CompositeCheckpoint:
    """A ``Checkpoint`` whose components come from several."""

    what: str
    facts: CheckpointFacts
    base: Checkpoint
    parts: Mapping[str, Checkpoint]
    """Where each component comes from that ``base`` does not give."""
    config: Path
    other_configs: Mapping[str, Path]

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its name."""
        return {
            name: tensor
            for component in COMPONENTS
            for name, tensor in self.parts.get(component, self.base).tensors.items()
            if name.startswith(f"{component}.")
        }

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Component and path of every weight file; that of a whole checkpoint goes by the part taken of it."""
        used = [file for file in self.base.files if file[0] not in self.parts]
        for component, part in self.parts.items():
            used += [(component, path) for label, path in part.files if label == component or label not in COMPONENTS]
        return tuple(sorted(used, key=lambda file: COMPONENTS.index(file[0]) if file[0] in COMPONENTS else -1))

    @property
    def identity(self) -> str:
        """What the base and the parts are beside their files."""
        named = {"base": self.base.identity} | {component: part.identity for component, part in self.parts.items()}
        return "; ".join(f"{component}: {identity}" for component, identity in named.items() if identity)

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, in the precision it is stored in."""
        return self.parts.get(name.split(".", 1)[0], self.base).read(name)


def open_checkpoint(variant: Variant, weights_dir: Path | None) -> Checkpoint:
    """What a variant is rendered from, LoRAs apart; fetched from the Hub where it is missing.

    Raises:
        WeightsError: a source is missing, damaged or nothing of the kind; a component is missing or does not go with
            the rest; or the UNet is an inpainting one, which renders no image from a prompt alone.
    """
    checkpoint = open_source(variant.checkpoint, variant.revision, weights_dir, variant.unet, variant.vae)
    if checkpoint.facts.inpainting:
        raise WeightsError(
            f"{variant.unet or variant.checkpoint}: is an inpainting model ({INPAINTING_CHANNELS} input channels): "
            "it fills in a masked image, and renders none from a prompt alone."
        )
    return checkpoint


def open_source(
    name: str, revision: str | None, weights_dir: Path | None, unet: str | None = None, vae: str | None = None
) -> Checkpoint:
    """A whole checkpoint, its UNet and VAE taken from elsewhere where that is asked for; fetched where missing.

    Args:
        name: as a suite or recipe names it.
        revision: of a Hub repository; ``owner/name@revision`` will do too.
        weights_dir: a folder to look in before the Hub.
        unet: another source of the UNet.
        vae: another source of the VAE.

    Raises:
        WeightsError: as ``open_checkpoint``, but inpainting models are opened.
    """
    base = open_named(name, revision, weights_dir)
    others = {"unet": unet, "vae": vae}
    parts = {
        component: open_part(component, other, weights_dir, base)
        for component, other in others.items()
        if other is not None
    }
    whole = assemble(base, parts) if parts else base
    refuse_incomplete(whole)
    return whole


def assemble(base: Checkpoint, parts: Mapping[str, Checkpoint]) -> Checkpoint:
    """A checkpoint with some components replaced.

    Raises:
        WeightsError: a part does not go with the rest: other shapes, another family, another scale of the latents.
    """
    for component, part in parts.items():
        _refuse_misfit(base, component, part)
    unet = parts.get("unet", base)
    speaker = base if isinstance(unet, FileCheckpoint) and not unet.tells_prediction else unet
    whole = CompositeCheckpoint(
        what=", ".join([base.what, *(f"{component} of {part.what}" for component, part in parts.items())]),
        facts=base.facts,
        base=base,
        parts=parts,
        config=base.config,
        other_configs={
            component: folder
            for component, part in parts.items()
            if (folder := own_config(part, component)) is not None
        },
    )
    facts = msgspec.structs.replace(
        base.facts,
        prediction=speaker.facts.prediction,
        zero_terminal_snr=speaker.facts.zero_terminal_snr,
        inpainting=unet.facts.inpainting,
        dtypes=stored_dtypes(whole.tensors),
    )
    return replace(whole, facts=facts)


def own_config(source: Checkpoint, component: str) -> Path | None:
    """The folder of a component's own ``config.json``; None for a single file, which takes its checkpoint's."""
    if component in source.other_configs:
        return source.other_configs[component]
    return None if source.facts.layout == "single-file" else source.config / component


def refuse_incomplete(checkpoint: Checkpoint) -> None:
    """Raises WeightsError where a checkpoint lacks a component, with the way to give it."""
    wanted = COMPONENTS if checkpoint.facts.family == "sdxl" else COMPONENTS[:-1]
    held = {name.split(".", 1)[0] for name in checkpoint.tensors}
    missing = [component for component in wanted if component not in held]
    if not missing:
        return
    if any(component.startswith("text_encoder") for component in missing):
        how = f'name a whole checkpoint, and this one\'s UNet in it: checkpoint = ..., unet = "{checkpoint.what}"'
    else:
        how = " and ".join(f'{component} = "owner/name"' for component in missing) + " beside checkpoint = ..."
    raise WeightsError(f"{checkpoint.what}: holds no .safetensors weights for {listed(missing)}.", how)


def scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The noise schedule that a checkpoint was trained with, for a scheduler's ``from_config``.

    The scheduler configuration of its folder or family, with ``prediction_type`` and ``rescale_betas_zero_snr`` as its
    files mark it. A model trained to zero terminal SNR has to begin at the last step, where there is nothing but noise;
    diffusers' "leading" spacing never gets there, so that it is "trailing" then (Lin et al. 2023, "Common Diffusion
    Noise Schedules and Sample Steps are Flawed", section 3.3).

    Raises:
        WeightsError: the file is missing or cannot be read.
    """
    config = read_config(checkpoint.config / "scheduler" / "scheduler_config.json")
    facts = checkpoint.facts
    if facts.prediction != config.get("prediction_type", "epsilon"):
        config["prediction_type"] = facts.prediction
    if facts.zero_terminal_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def open_named(name: str, revision: str | None, weights_dir: Path | None) -> Checkpoint:
    """What a suite or recipe names, fetched where it is missing; components may be missing in it.

    Raises:
        WeightsError: as ``open_source``.
    """
    place = sources.fetch(sources.find_checkpoint(name, revision, weights_dir))
    path = Path(place.path or "")
    if name in sources.RANDOM:
        return open_random(name.removeprefix("random:"))
    if path.suffix == ".toml":
        from bench.merge.load import open_recipe

        return open_recipe(path, weights_dir)
    return open_folder(path, name) if path.is_dir() else open_single(path, name)


def open_part(component: str, name: str, weights_dir: Path | None, base: Checkpoint) -> Checkpoint:
    """A source of one component for a checkpoint: also a folder of that component alone, which knows no family.

    Raises:
        WeightsError: as ``open_source``.
    """
    place = sources.fetch(sources.find_checkpoint(name, None, weights_dir))
    path = Path(place.path or "")
    if path.is_dir() and not (path / "model_index.json").is_file():
        inner = path / component
        return open_component(inner if inner.is_dir() else path, component, name, base.facts.family)
    return open_named(name, None, weights_dir)


def _refuse_other_family(base: Checkpoint, component: str, part: Checkpoint) -> None:
    """Raises WeightsError where files of one shape are of two families: the scale of their latents differs."""
    if _is_whole(part) and part.facts.family != base.facts.family:
        raise WeightsError(
            f"{part.what}: is of {part.facts.family}, and {base.what} of {base.facts.family}: its {component} does not "
            "go with the rest, though its shapes do.",
            "take one of the checkpoint's own family",
        )


def _is_whole(source: Checkpoint) -> bool:
    """Whether a source has the parts that tell its family; a lone VAE looks the same in both."""
    return {"unet", "vae"} <= {name.split(".", 1)[0] for name in source.tensors}


def _refuse_misfit(base: Checkpoint, component: str, part: Checkpoint) -> None:
    held = {name: tensor.shape for name, tensor in part.tensors.items() if name.startswith(f"{component}.")}
    if not held:
        raise WeightsError(f"{part.what}: holds no weights for {component}.")
    own = own_config(part, component)
    if own is None:
        shapes = {
            f"{component}.{name}": shape for name, shape in config_shapes(base.config / component, component).items()
        }
        if part.facts.inpainting and component == "unet":
            first = shapes["unet.conv_in.weight"]
            shapes["unet.conv_in.weight"] = (first[0], INPAINTING_CHANNELS, *first[2:])
        refuse_differences(f"{part.what}, taken as {component} of {base.what}", shapes, held)
        _refuse_other_family(base, component, part)
        return
    if not (base.config / component).is_dir():
        return  # a folder without the component that is replaced: there is nothing to differ from
    theirs, ours = read_config(own / "config.json"), read_config(base.config / component / "config.json")
    defaults: dict[str, Any] = {"latent_channels": 4, "scaling_factor": VAE_SCALE}
    fields = FACING if component == "unet" else tuple(defaults)
    odd = [field for field in fields if theirs.get(field, defaults.get(field)) != ours.get(field, defaults.get(field))]
    if odd:
        said = ", ".join(f"{field} = {theirs.get(field, defaults.get(field))}" for field in odd)
        raise WeightsError(
            f"{part.what}: does not go with {base.what} as its {component}: {said}; there it is "
            f"{', '.join(str(ours.get(field, defaults.get(field))) for field in odd)}.",
            "take one of the checkpoint's own family",
        )
