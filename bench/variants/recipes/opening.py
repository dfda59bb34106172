"""From a recipe's file to what it makes: every source is found and opened, recipes too. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bench.errors import SuiteError
from bench.records import Lora
from bench.suite.text_files import exists
from bench.variants import sources
from bench.variants.adapters import read_adapter
from bench.variants.checkpoint import Checkpoint
from bench.variants.checkpoints.opening import assemble, open_named, open_part
from bench.variants.pickles import PICKLES
from bench.variants.recipes.file import read_recipe
from bench.variants.recipes.merged import Fused, Merged

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
