"""What recipes are made of, found without opening a weight; for ``doctor`` and ``fetch``. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bench.checkpoints import locate as sources
from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.load import assemble, open_named, open_part
from bench.checkpoints.locate import PICKLES, Place
from bench.documents import exists
from bench.errors import SuiteError
from bench.lora.parse import read_adapter
from bench.merge.merged import Fused, Merged
from bench.merge.recipe import read_recipe
from bench.records import Lora, Variant

# From a recipe's file to what it makes: every source is found and opened, recipes too. Imports no torch.

RECIPE = ".toml"

SUFFIXES = (*sources.FILES, *PICKLES)


def open_recipe(path: Path, weights_dir: Path | None, within: tuple[Path, ...] = ()) -> Merged:
    """A recipe as a checkpoint, whose tensors are computed when they are read.

    Args:
        path: the recipe. Relative paths in it are meant from its folder.
        weights_dir: local weights, asked before the Hub.
        within: the recipes that this one is a source of, outermost first.

    Raises:
        SuiteError: a recipe that cannot be read as one, or that is, in the end, a source of itself.
        WeightsError: a source that is missing, damaged or of another kind than the others; a LoRA that does not fit.
    """
    path = path.absolute()
    chain = (*within, path)
    if path.resolve() in [other.resolve() for other in within]:
        raise SuiteError(f"{path}: is a source of itself: {' -> '.join(step.name for step in chain)}.")
    recipe = read_recipe(path)
    first, *others = (located(name, path.parent) for name in recipe.models)
    models = [_open(first, None, weights_dir, chain)]
    models += [_open(name, models[0], weights_dir, chain) for name in others]
    vae = None
    if recipe.vae is not None:
        vae = _open(located(recipe.vae, path.parent), models[0], weights_dir, chain, "vae")
        assemble(models[0], {"vae": vae})  # which refuses one that does not go with the rest
    loras = [_open_lora(lora, models[0], path.parent, weights_dir) for lora in recipe.loras]
    return Merged(path, recipe, models, vae, loras)


def located(name: str, folder: Path) -> str:
    """A source as an absolute path where there is such a path beside the recipe, or it can be nothing else."""
    path = folder / Path(name).expanduser()
    is_path = exists(path) or name.startswith((".", "/", "~")) or (":" not in name and Path(name).suffix in SUFFIXES)
    return str(path.absolute()) if is_path else name


def _open(
    what: str,
    first: Checkpoint | None,
    weights_dir: Path | None,
    chain: tuple[Path, ...],
    component: str = "unet",
) -> Checkpoint:
    """A source of a recipe; beside the first model, a component alone will do, which is then of that one's family."""
    if Path(what).suffix == RECIPE:
        return open_recipe(Path(what), weights_dir, chain)
    return open_named(what, None, weights_dir) if first is None else open_part(component, what, weights_dir, first)


def _open_lora(lora: Lora, first: Checkpoint, folder: Path, weights_dir: Path | None) -> Fused:
    what = located(lora.path, folder)
    file = Path(sources.fetch(sources.find_lora(what, weights_dir)).path or "")
    return Fused(lora, what, file, read_adapter(file, first.tensors))


# What recipes are made of, found without opening a weight; for ``doctor`` and ``fetch``. Imports no torch.


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
