"""What recipes are made of, found without opening a weight; for ``doctor`` and ``fetch``. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bench.records import Variant
from bench.variants import sources
from bench.variants.recipes.file import read_recipe
from bench.variants.recipes.opening import RECIPE, located
from bench.variants.sources import Place


def every_place(variant: Variant, weights_dir: Path | None) -> tuple[Place, ...]:
    """Everything a variant is made of, and everything its recipes are, theirs too; each place once.

    Raises:
        WeightsError: a path or name that can be nothing of the kind.
        SuiteError: a recipe that cannot be read as one.
    """
    found: dict[str, Place] = {}
    waiting = list(sources.places(variant, weights_dir).values())
    while waiting:
        place = waiting.pop(0)
        if place.what in found:  # a recipe that is a source of itself too; opening it says so
            continue
        found[place.what] = place
        if place.path is not None and Path(place.path).suffix == RECIPE:
            waiting = [*_ingredients(Path(place.path), weights_dir), *waiting]
    return tuple(found.values())


def _ingredients(path: Path, weights_dir: Path | None) -> list[Place]:
    recipe = read_recipe(path)
    models = [*recipe.models, *([] if recipe.vae is None else [recipe.vae])]
    places = [sources.find_checkpoint(located(name, path.parent), None, weights_dir) for name in models]
    return places + [sources.find_lora(located(lora.path, path.parent), weights_dir) for lora in recipe.loras]
