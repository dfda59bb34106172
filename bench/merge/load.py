"""Opens whatever a variant names: a checkpoint, a checkpoint with parts of others, or a recipe with all its sources.

No weight is read, and no torch imported, before a tensor is.
"""

from __future__ import annotations

from pathlib import Path

from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.diffusers_folder import open_component
from bench.checkpoints.families import INPAINTING_CHANNELS
from bench.checkpoints.load import compose, open_place, refuse_incomplete
from bench.checkpoints.locate import FILES, PICKLES, Place, fetch, find_checkpoint, find_lora, places
from bench.documents import exists, resolved
from bench.errors import SuiteError, WeightsError
from bench.lora.parse import read_adapter
from bench.merge.merged import Fused, Merged
from bench.merge.recipe import read_recipe
from bench.records import Component, Variant

RECIPE = ".toml"


def open_checkpoint(variant: Variant, weights_dir: Path | None) -> Checkpoint:
    """What a variant is rendered from, without its LoRAs; fetched from the Hub where it is missing.

    Raises:
        WeightsError: a source is missing, damaged or not a checkpoint; a component is missing or does not go with
            the rest; or the UNet is an inpainting one, which renders no image from a prompt alone.
        SuiteError: as ``open_recipe``.
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
    """A whole checkpoint, its UNet and VAE taken from elsewhere where those are named; fetched where missing.

    Args:
        name: as a suite or recipe names it.
        revision: of a Hub repository; ``owner/name@revision`` will do too.
        weights_dir: a folder to look in before the Hub.
        unet: another source of the UNet.
        vae: another source of the VAE.

    Raises:
        WeightsError, SuiteError: as ``open_checkpoint``, but inpainting models are opened.
    """
    whole = open_named(name, revision, weights_dir)
    named: dict[Component, str | None] = {"unet": unet, "vae": vae}
    parts = {part: open_part(part, other, weights_dir, whole) for part, other in named.items() if other is not None}
    if parts:
        whole = compose(whole, parts)
    refuse_incomplete(whole)
    return whole


def open_named(name: str, revision: str | None, weights_dir: Path | None, within: tuple[Path, ...] = ()) -> Checkpoint:
    """What a suite or recipe names, a recipe too; fetched where it is missing. Components may be missing in it.

    Args:
        name: as a suite or recipe names it.
        revision: of a Hub repository.
        weights_dir: a folder to look in before the Hub.
        within: the recipes that it is a source of, outermost first.

    Raises:
        WeightsError: it is missing, damaged or not a checkpoint.
        SuiteError: as ``open_recipe``.
    """
    place = fetch(find_checkpoint(name, revision, weights_dir))
    path = Path(place.path or "")
    return open_recipe(path, weights_dir, within) if path.suffix == RECIPE else open_place(place)


def open_part(
    component: Component, name: str, weights_dir: Path | None, base: Checkpoint, within: tuple[Path, ...] = ()
) -> Checkpoint:
    """A source of one component for a checkpoint: also a folder of that component alone, which has no family.

    Raises:
        WeightsError, SuiteError: as ``open_named``.
    """
    path = Path(fetch(find_checkpoint(name, None, weights_dir)).path or "")
    if path.is_dir() and not (path / "model_index.json").is_file():
        inner = path / component
        return open_component(inner if inner.is_dir() else path, component, name, base.facts.family)
    return open_named(name, None, weights_dir, within)


def open_recipe(path: Path, weights_dir: Path | None, within: tuple[Path, ...] = ()) -> Merged:
    """A recipe as a checkpoint, whose tensors are computed when they are read.

    Args:
        path: the recipe. Relative paths in it start from its folder.
        weights_dir: a folder to look in before the Hub.
        within: the recipes that this one is a source of, outermost first.

    Raises:
        SuiteError: a recipe that cannot be read as one, or that is, in the end, a source of itself.
        WeightsError: a source that is missing, damaged or of another kind than the others; a LoRA that does not fit.
    """
    path = path.absolute()
    chain = (*within, path)
    if resolved(path) in map(resolved, within):
        raise SuiteError(f"{path}: is a source of itself: {' -> '.join(step.name for step in chain)}.")
    recipe = read_recipe(path)
    names = [located(name, path.parent) for name in recipe.models]
    models = [open_named(names[0], None, weights_dir, chain)]
    models += [open_part("unet", name, weights_dir, models[0], chain) for name in names[1:]]
    vae = None
    if recipe.vae is not None:
        vae = open_part("vae", located(recipe.vae, path.parent), weights_dir, models[0], chain)
        compose(models[0], {"vae": vae})  # which refuses one that does not go with the rest
    loras = []
    for lora in recipe.loras:
        file = Path(fetch(find_lora(located(lora.path, path.parent), weights_dir)).path or "")
        loras.append(Fused(lora, read_adapter(file, models[0].tensors, lora.leave_out)))
    return Merged(path, recipe, models, vae, loras)


def located(name: str, folder: Path) -> str:
    """A source as an absolute path where there is such a path next to the recipe, or it cannot be anything else."""
    path = folder / Path(name).expanduser()
    looks_so = name.startswith((".", "/", "~")) or (":" not in name and Path(name).suffix in (*FILES, *PICKLES))
    return str(path.absolute()) if looks_so or exists(path) else name


def every_place(variant: Variant, weights_dir: Path | None) -> tuple[Place, ...]:
    """Everything that a variant is made of, and its recipes in turn; each place once. For ``doctor`` and ``fetch``.

    Raises:
        WeightsError: a path or name that cannot be one of these.
        SuiteError: a recipe that cannot be read as one.
    """
    found: dict[str, Place] = {}
    waiting = list(places(variant, weights_dir).values())
    while waiting:
        place = waiting.pop(0)
        if place.what in found:  # also a recipe that is a source of itself; opening it says so
            continue
        found[place.what] = place
        if place.path is not None and Path(place.path).suffix == RECIPE:
            waiting = [*_sources(Path(place.path), weights_dir), *waiting]
    return tuple(found.values())


def _sources(path: Path, weights_dir: Path | None) -> list[Place]:
    recipe = read_recipe(path)
    models = [*recipe.models, *([] if recipe.vae is None else [recipe.vae])]
    found = [find_checkpoint(located(name, path.parent), None, weights_dir) for name in models]
    return found + [find_lora(located(lora.path, path.parent), weights_dir) for lora in recipe.loras]
