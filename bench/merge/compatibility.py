"""Whether the models of a recipe go together. Imports no torch; reads no weights.

Every refusal names all that differs at once: families, predictions, noise schedules, inpainting, components, tensors,
shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

from bench.checkpoints.blocks import check_blocks, count_blocks
from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.file_checkpoint import FileCheckpoint
from bench.errors import WeightsError
from bench.formatting import listed
from bench.merge.recipe import Recipe
from bench.records import Component

SHOWN = 3

_OF_PREDICTION = ("prediction", "zero_terminal_snr")

_FACTS = ("family", *_OF_PREDICTION, "inpainting")

_TEXT_ENCODERS: dict[str, tuple[Component, ...]] = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd15": ("text_encoder",),
}


def components_of(checkpoint: Checkpoint) -> tuple[Component, ...]:
    """The components that a checkpoint has tensors of."""
    found = {name.split(".", 1)[0] for name in checkpoint.tensors}
    return tuple(component for component in get_args(Component) if component in found)


def check_fit(path: Path, recipe: Recipe, models: Sequence[Checkpoint]) -> frozenset[Component]:
    """The components that are merged, once it is sure that the models can be.

    Args:
        path: the recipe's file, for the messages.
        recipe: what is asked.
        models: its models, in order.

    Raises:
        WeightsError: models of different families, predictions, schedules or kinds; a component, tensor or shape
            that one has and another has not.
        SuiteError: a block that the UNet does not have.
    """
    _refuse_other_kinds(path, models)
    merged = _merged_components(recipe, models[0])
    _refuse_missing_components(path, models, merged)
    for other in models[1:]:
        _refuse_other_tensors(path, models[0], other, merged)
    if recipe.blocks or any(lora.blocks for lora in recipe.loras):
        blocks = count_blocks(models[0].tensors)
        check_blocks(recipe.blocks, blocks, str(path))
        for index, lora in enumerate(recipe.loras):
            check_blocks(lora.blocks, blocks, f"{path}: loras[{index}]")
    return merged


def tells_prediction(model: Checkpoint) -> bool:
    """Whether a model's files say what its UNet predicts, and by which schedule; those of a UNet alone do not."""
    return not isinstance(model, FileCheckpoint) or model.tells_prediction


def _tells(model: Checkpoint, fact: str) -> bool:
    """Whether a model's files say a fact; those of a VAE alone are the same in every family."""
    return components_of(model) != ("vae",) and (fact not in _OF_PREDICTION or tells_prediction(model))


def _refuse_other_kinds(path: Path, models: Sequence[Checkpoint]) -> None:
    differing = []
    for fact in _FACTS:
        telling = [model for model in models if _tells(model, fact)]
        values = [getattr(model.facts, fact) for model in telling]
        if len(set(values)) > 1:
            of_each = (f"{value} ({model.what})" for value, model in zip(values, telling, strict=True))
            differing.append(f"{fact} is {', '.join(of_each)}")
    if differing:
        raise WeightsError(
            f"{path}: these models do not go together: {'; '.join(differing)}.",
            "merge models of one family that predict the same; a mean of such weights draws nothing",
        )


def _merged_components(recipe: Recipe, first: Checkpoint) -> frozenset[Component]:
    if recipe.method == "copy":
        return frozenset()
    if recipe.components:
        return frozenset(recipe.components)
    return frozenset({"unet", *_TEXT_ENCODERS[first.facts.family]})


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


def _refuse_other_tensors(path: Path, first: Checkpoint, other: Checkpoint, components: Collection[Component]) -> None:
    ours, theirs = (
        {name: tensor.shape for name, tensor in model.tensors.items() if name.split(".", 1)[0] in components}
        for model in (first, other)
    )
    shapes = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    differing = [
        f"{len(names)} {what}, such as {listed(names, SHOWN)}"
        for what, names in (
            (f"tensors that {other.what} lacks", ours.keys() - theirs.keys()),
            (f"tensors that {first.what} lacks", theirs.keys() - ours.keys()),
            ("tensors of other shapes", [f"{name} {list(ours[name])} and {list(theirs[name])}" for name in shapes]),
        )
        if names
    ]
    if differing:
        raise WeightsError(f"{path}: {first.what} and {other.what} do not go together: {'; '.join(differing)}.")
