"""A recipe as a checkpoint: whether its models go together, and what is known of the result before a tensor is read.

No torch before that; ``bench.merge.compute`` reads the tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench import documents
from bench.checkpoints.blocks import BlockMap, check_blocks, count_blocks
from bench.checkpoints.checkpoint import (
    PREDICTION_FACTS,
    Checkpoint,
    SourceCheckpoint,
    Tensor,
    component_of,
    noise_facts,
    stored_dtypes,
)
from bench.checkpoints.families import COMPONENTS, CONV_IN, family_components, inpainting_shape
from bench.checkpoints.load import own_config
from bench.errors import WeightsError
from bench.formatting import listed
from bench.lora.algorithms import Adapter, weights_of
from bench.merge.recipe import Recipe
from bench.records import CheckpointFacts, Component, Lora

if TYPE_CHECKING:
    import torch

    from bench.merge.compute import Computation

NO_ARITHMETIC = ("schema", "models", "vae", "loras", "dtype", "metadata")
"""Fields of a recipe that ``identity`` leaves out or puts another way: names of sources, what is done on writing."""

ADD_TO_INPAINTING = (
    'method = "add_difference" with models = [INPAINTING, CUSTOM, BASE] makes an inpainting model of a custom one'
)
INPAINTING_NOTE = (
    f"the difference is added to the first channels of {CONV_IN}; those of the mask and the masked image stay."
)


class Fused(NamedTuple):
    """A LoRA of a recipe, read and matched to the first model."""

    lora: Lora
    adapter: Adapter


class Merged:
    """What a recipe makes of its models: a ``Checkpoint`` whose tensors are computed when they are read.

    ``read`` gives float32, not yet rounded to the recipe's ``dtype``, so that a recipe within a recipe is rounded
    once, at the end; what is taken as it is from one model has the precision that it is stored in.
    """

    tells_prediction = True

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        models: Sequence[Checkpoint],
        vae: Checkpoint | None = None,
        loras: Sequence[Fused] = (),
    ) -> None:
        """Takes the recipe's file (for messages), the recipe, and its sources, opened.

        Raises:
            WeightsError, SuiteError: the models do not go together (``check_compatibility``).
        """
        self.path, self.recipe = path, recipe
        self.models, self.vae, self.loras = tuple(models), vae, tuple(loras)
        self.merged = check_compatibility(path, recipe, models)
        tensors = dict(models[0].tensors)
        if vae is not None:
            tensors = {name: tensor for name, tensor in tensors.items() if component_of(name) != "vae"}
            tensors |= {name: tensor for name, tensor in vae.tensors.items() if component_of(name) == "vae"}
        self.tensors: Mapping[str, Tensor] = {
            name: Tensor(tensor.shape, recipe.dtype or tensor.dtype) for name, tensor in tensors.items()
        }
        has_unet = any(component_of(name) == "unet" for name in tensors)
        self.blocks: BlockMap | None = count_blocks(tensors) if has_unet else None

    @property
    def what(self) -> str:
        """The recipe's file."""
        return str(self.path)

    @property
    def facts(self) -> CheckpointFacts:
        """Those of the first model, in the precision of the output."""
        first, metadata = self.models[0].facts, self.recipe.metadata
        speaker = next((model for model in self.models if model.tells_prediction), self.models[0])
        return msgspec.structs.replace(
            first,
            layout="recipe",
            **noise_facts(speaker),
            dtypes=stored_dtypes(self.tensors),
            licence=metadata.license or first.licence,
            title=metadata.title or first.title,
        )

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        """The models, and the VAE where it is taken from elsewhere."""
        return self.models if self.vae is None else (*self.models, self.vae)

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Those of the models, of the VAE and of the LoRAs, in the order of the recipe."""
        of_models = [file for source in self.sources for file in source.files]
        return (*of_models, *(("lora", one.adapter.path) for one in self.loras))

    @property
    def config(self) -> Path:
        """The first model's."""
        return self.models[0].config

    @property
    def other_configs(self) -> Mapping[str, Path]:
        """The first model's, and that of a VAE taken from elsewhere."""
        own = None if self.vae is None else own_config(self.vae, "vae")
        return {**self.models[0].other_configs, **({} if own is None else {"vae": own})}

    @property
    def identity(self) -> str:
        """The arithmetic, and which of ``files`` belong to which source, as canonical JSON."""
        facts: dict[str, Any] = msgspec.to_builtins(self.recipe)
        kept = {name: value for name, value in facts.items() if name not in NO_ARITHMETIC}
        kept["components"] = sorted(self.merged)
        kept["loras"] = [weights_of(one.lora) for one in self.loras]
        kept["scales"] = [one.adapter.scales for one in self.loras]
        kept["sources"] = [(len(source.files), source.identity) for source in self.sources]
        return documents.canonical({**kept, "vae": self.vae is not None}).decode()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done that the recipe does not show, in sentences; of the recipes that it is made of first."""
        inner = [note for source in self.sources if isinstance(source, Merged) for note in source.notes]
        wider = adds_to_inpainting(self.recipe, self.models) and "unet" in self.merged
        own = [f"{self.path.name}: {INPAINTING_NOTE}"] if wider else []
        return (*inner, *own, *(f"{one.adapter.path.name}: {note}" for one in self.loras for note in one.adapter.notes))

    def without_loras(self) -> Merged:
        """The same recipe without its LoRAs."""
        return Merged(self.path, msgspec.structs.replace(self.recipe, loras=()), self.models, self.vae)

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One tensor: merged, changed by the LoRAs in their order, or as its one source has it.

        Args:
            name: the tensor's.
            dtype: what the result is rounded to, once; None leaves it as it was computed or stored.

        Raises:
            WeightsError: an input or the result holds values that are not finite, or cannot be read.
        """
        return self._computation.read(name, dtype)

    @functools.cached_property
    def _computation(self) -> Computation:
        from bench.merge.compute import Computation  # torch, which is not needed before a tensor is read

        return Computation(self)


def recipe_in(checkpoint: Checkpoint) -> Merged | None:
    """The recipe that a checkpoint is of, in whole or in part; None without one. Where there are two, the UNet's."""
    return recipe_of(checkpoint, "unet") or recipe_of(checkpoint, "text_encoder")


def recipe_of(checkpoint: Checkpoint, component: str) -> Merged | None:
    """The recipe that makes a component; None where it is taken as files have it."""
    source = checkpoint
    if isinstance(source, SourceCheckpoint):
        source = source.sources.get(component, source)
    return source if isinstance(source, Merged) else None


# --- whether the models of a recipe go together; each refusal names all that differs at once -------------------------


def components_of(checkpoint: Checkpoint) -> tuple[Component, ...]:
    """The components that a checkpoint has tensors of."""
    found = {component_of(name) for name in checkpoint.tensors}
    return tuple(component for component in COMPONENTS if component in found)


def check_compatibility(path: Path, recipe: Recipe, models: Sequence[Checkpoint]) -> frozenset[Component]:
    """The components that are merged, once it is sure that the models can be.

    Args:
        path: the recipe's file, for the messages.
        recipe: the recipe.
        models: its models, in order.

    Raises:
        WeightsError: models of different families, predictions, schedules or kinds; a component, tensor or shape
            that one has and another has not.
        SuiteError: a block that the UNet does not have.
    """
    wider = adds_to_inpainting(recipe, models)
    _refuse_other_facts(path, models, ("family", *PREDICTION_FACTS, *([] if wider else ["inpainting"])))
    if recipe.method == "copy":
        merged: frozenset[Component] = frozenset()
    else:
        every = frozenset(family_components(models[0].facts.family)) - {"vae"}
        merged = frozenset(recipe.components) or every
    _refuse_missing_components(path, models, merged)
    for other in models[1:]:
        _refuse_other_tensors(path, models[0], other, merged, wider=wider)
    if recipe.blocks or any(lora.blocks for lora in recipe.loras):
        blocks = count_blocks(models[0].tensors)
        check_blocks(recipe.blocks, blocks, str(path))
        for index, lora in enumerate(recipe.loras):
            check_blocks(lora.blocks, blocks, f"{path}: loras[{index}]")
    return merged


def adds_to_inpainting(recipe: Recipe, models: Sequence[Checkpoint]) -> bool:
    """Whether a difference of ordinary models is added to an inpainting model, whose first convolution has more inputs.

    The first of its input channels are those of an ordinary model, the rest are of the mask and the masked image.
    """
    return recipe.method == "add_difference" and [model.facts.inpainting for model in models] == [True, False, False]


def _refuse_other_facts(path: Path, models: Sequence[Checkpoint], facts: Sequence[str]) -> None:
    differing = []
    for fact in facts:
        # A VAE alone is the same in every family, and a UNet alone does not say what it predicts.
        telling = [
            model
            for model in models
            if components_of(model) != ("vae",) and (fact not in PREDICTION_FACTS or model.tells_prediction)
        ]
        values = {model.what: getattr(model.facts, fact) for model in telling}
        if len({getattr(model.facts, fact) for model in telling}) > 1:
            differing.append(f"{fact} is {', '.join(f'{value} ({what})' for what, value in values.items())}")
    if differing:
        raise WeightsError(
            f"{path}: these models do not go together: {'; '.join(differing)}.",
            ADD_TO_INPAINTING
            if differing[0].startswith("inpainting")
            else "merge models of one family that predict the same; a mean of such weights draws nothing",
        )


def _refuse_missing_components(path: Path, models: Sequence[Checkpoint], merged: Collection[Component]) -> None:
    lacking = {model.what: sorted(set(merged) - set(components_of(model))) for model in models}
    said = [f"{what} has no {', '.join(missing)}" for what, missing in lacking.items() if missing]
    if not said:
        return
    common = [name for name in sorted(merged) if all(name in components_of(model) for model in models)]
    hint = ", ".join(f'"{name}"' for name in common)
    raise WeightsError(
        f"{path}: {'; '.join(said)}, and the recipe merges {', '.join(sorted(merged))}.",
        f"set components = [{hint}] in the recipe: the rest comes from the first model" if common else "",
    )


def _refuse_other_tensors(
    path: Path, first: Checkpoint, other: Checkpoint, components: Collection[Component], *, wider: bool
) -> None:
    ours, theirs = (
        {name: tensor.shape for name, tensor in model.tensors.items() if component_of(name) in components}
        for model in (first, other)
    )
    if wider and CONV_IN in theirs:
        theirs[CONV_IN] = inpainting_shape(theirs[CONV_IN])
    shapes = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    differing = [
        f"{len(names)} {what}, such as {listed(names, 3)}"
        for what, names in (
            (f"tensors that {other.what} lacks", ours.keys() - theirs.keys()),
            (f"tensors that {first.what} lacks", theirs.keys() - ours.keys()),
            ("tensors of other shapes", [f"{name} {list(ours[name])} and {list(theirs[name])}" for name in shapes]),
        )
        if names
    ]
    if differing:
        raise WeightsError(f"{path}: {first.what} and {other.what} do not go together: {'; '.join(differing)}.")
