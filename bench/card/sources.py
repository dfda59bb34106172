"""What a variant was made of: each file or repository with its hashes, the licence that it names, and who says so.

Headers are read, no tensor is, and nothing is downloaded. A file that is not here any more, or is another one than the
run recorded, is named with the hash of the run and no licence.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec

from bench import documents
from bench import formatting as text
from bench.card.licences import REPOSITORIES
from bench.checkpoints.diffusers_folder import card_licence
from bench.checkpoints.locate import RANDOM, SHIPPED, Place, find_checkpoint, find_lora
from bench.checkpoints.safetensors_files import read_header
from bench.errors import HotartError, UsageError
from bench.formatting import did_you_mean
from bench.merge.load import RECIPE, located
from bench.merge.recipe import Recipe, read_recipe
from bench.records import Fingerprint, Variant, WeightFile

OWN_LICENCE = "apache-2.0"
"""Of the embedded family, which is part of this package."""
MERGE_MARKS = ("hotart.recipe", "modelspec.merged_from", "sd_merge_recipe", "sd_merge_models")
"""Metadata of a file that says that it is a merge."""


@dataclass(frozen=True)
class Source:
    """One thing that went in."""

    role: str
    """``checkpoint``, ``UNet``, ``LoRA × 0.8``; of a recipe's, with the recipe it is of."""
    name: str
    """As a Hub id, a shipped name, or a file's name without folders."""
    repository: str | None = None
    """Of the Hub."""
    hashes: tuple[str, ...] = ()
    """sha256 of its files."""
    licence: str | None = None
    said_by: str = ""
    note: str = ""
    """What is wrong with it, as a clause."""
    merged: bool = False
    """Whether it says of itself that it is a merge."""
    recipe: str = ""
    """The recipe that it was made by, as JSON; empty of what is no merge of ours."""


def find_sources(
    variant: Variant, known: Fingerprint | None, weights_dir: Path | None, said: Mapping[str, str]
) -> tuple[Source, ...]:
    """Everything that a variant was made of, the sources of recipes and of merged files after these.

    Args:
        variant: of the run's suite.
        known: its fingerprint in the run, for the hashes; None of external images.
        weights_dir: a folder to look in before the Hub's cache.
        said: licences by name or repository, which count before all else.

    Raises:
        UsageError: a name in ``said`` that nothing here has.
    """
    if known is None:
        return ()
    files: dict[str, list[WeightFile]] = {}
    for file in known.files:
        files.setdefault(_role_of(file.component, variant), []).append(file)
    found = list(_checkpoint("checkpoint", variant.checkpoint, variant.revision, weights_dir, files.get("checkpoint")))
    for role, name in (("UNet", variant.unet), ("VAE", variant.vae)):
        if name is not None:
            found += _checkpoint(role, name, None, weights_dir, files.get(role))
    for number, lora in enumerate(variant.loras):
        place = _place(functools.partial(find_lora, lora.path, weights_dir))
        weight = text.lora(lora).removeprefix(lora.path).strip()
        found.append(_source(f"LoRA {weight}", lora.path, place, files.get(f"lora:{number}")))
    for name in dict.fromkeys(name for _, name in variant.unet_steps if name):
        found += _checkpoint("UNet of some steps", name, None, weights_dir, None)
    return _with_said(found, said)


def _role_of(component: str, variant: Variant) -> str:
    """Which source a file of a fingerprint is of."""
    if component.startswith("lora:"):
        return component
    own = {"unet": ("UNet", variant.unet), "vae": ("VAE", variant.vae)}.get(component)
    return own[0] if own is not None and own[1] is not None else "checkpoint"


def _place(find: Callable[[], Place]) -> Place | str:
    """Where a source lies, or why it cannot be found."""
    try:
        return find()
    except HotartError as error:
        return error.message


def _checkpoint(
    role: str,
    name: str,
    revision: str | None,
    weights_dir: Path | None,
    files: Sequence[WeightFile] | None,
    above: tuple[Path, ...] = (),
) -> list[Source]:
    """A checkpoint, and what it was made of where it is a recipe or a merged file that says so.

    ``above`` are the recipes that it is a source of.
    """
    place = _place(functools.partial(find_checkpoint, name, revision, weights_dir))
    one = _source(role, name, place, files)
    path = place.path if isinstance(place, Place) else None
    if path is not None and Path(path).suffix == RECIPE:
        if Path(path) in above:  # no run could be made of it, but the file may be another one by now
            return [replace(one, note="is a recipe that is a source of itself")]
        return _of_recipe_file(one, Path(path), weights_dir, files or (), (*above, Path(path)))
    if one.recipe:
        return [one, *_of_header(one.recipe, one.name)]
    return [one]


def _source(role: str, name: str, place: Place | str, files: Sequence[WeightFile] | None) -> Source:
    one = Source(role=role, name=own_name(name), hashes=tuple(dict.fromkeys(file.sha256 for file in files or ())))
    if name in SHIPPED or name.partition(":")[0] in SHIPPED:
        return replace(one, licence=OWN_LICENCE, said_by="this package")
    if name in RANDOM:
        return replace(one, note="is random numbers")
    if isinstance(place, str):
        return replace(one, note="is not here any more")
    repository = place.repository
    one = replace(one, repository=repository, name=repository or one.name)
    path = None if place.path is None else Path(place.path)
    if path is not None and path.is_dir():
        named = card_licence(path)
        one = one if named is None else replace(one, licence=named, said_by="its model card")
    elif path is not None and path.is_file() and path.suffix != RECIPE:
        one = _with_header(one, path, files or ())
    elif path is None:
        one = replace(one, note="is not on this machine")
    if one.licence is None and repository in REPOSITORIES:
        one = replace(one, licence=REPOSITORIES[repository], said_by=f"known of {repository}")
    return one


def _with_header(one: Source, path: Path, files: Sequence[WeightFile]) -> Source:
    """What the header of a file says, where it still is the file of the run."""
    if files and path.stat().st_size not in {file.size_bytes for file in files}:
        return replace(one, note="is another file by now than the run had, so that its header was not read")
    try:
        metadata = read_header(path).metadata
    except HotartError as error:
        return replace(one, note=_unreadable(error, path))
    licence = metadata.get("modelspec.license", "").strip()
    return replace(
        one,
        licence=licence or None,
        said_by="its header" if licence else "",
        merged=any(mark in metadata for mark in MERGE_MARKS),
        recipe=metadata.get("hotart.recipe", ""),
    )


def _unreadable(error: HotartError, path: Path) -> str:
    """Why a file cannot be read, without the folders that it lies in."""
    return f"cannot be read: {error.message.replace(str(path), path.name).rstrip('.')}"


def own_name(name: str) -> str:
    """A source as a card may name it: of a path the last part, a Hub id or a shipped name as it is."""
    windows = PureWindowsPath(name)
    if windows.is_absolute():
        return windows.name or name
    path = PurePosixPath(name)
    is_file = ":" not in name and path.suffix in (RECIPE, ".safetensors")
    return path.name or name if is_file or name.startswith((".", "/", "~")) else name


# A recipe, which is a file, or stands in the header of the file that was made by it.


def _of_recipe_file(
    one: Source, path: Path, weights_dir: Path | None, files: Sequence[WeightFile], above: tuple[Path, ...]
) -> list[Source]:
    """A recipe and its sources; whatever it is not made of by itself, its own licence is what it says of itself."""
    try:
        recipe = read_recipe(path)
    except HotartError as error:
        return [replace(one, note=_unreadable(error, path))]
    licence = recipe.metadata.license
    own = replace(
        one, merged=True, recipe=_recipe_json(recipe), licence=licence, said_by="the recipe" if licence else ""
    )
    return [own, *_recipe_sources(recipe, path, weights_dir, files, above)]


def _recipe_json(recipe: Recipe) -> str:
    """A recipe as JSON with its sources by their own names; neither its comments nor folders of this machine."""
    table = msgspec.to_builtins(recipe)
    table["models"] = [own_name(name) for name in recipe.models]
    table["vae"] = None if recipe.vae is None else own_name(recipe.vae)
    table["loras"] = [{**one, "path": own_name(one["path"])} for one in table["loras"]]
    return documents.dumps(_said_fields(table))


def _said_fields(value: Any) -> Any:
    """Without what is empty, all the way down."""
    if isinstance(value, dict):
        return {key: _said_fields(one) for key, one in value.items() if one not in (None, "", [], (), {})}
    return [_said_fields(one) for one in value] if isinstance(value, list | tuple) else value


def _recipe_sources(
    recipe: Recipe, path: Path, weights_dir: Path | None, files: Sequence[WeightFile], above: tuple[Path, ...]
) -> list[Source]:
    def of(name: str) -> list[WeightFile]:
        return [file for file in files if PurePosixPath(file.name).name == PurePosixPath(name).name]

    found: list[Source] = []
    named = [(f"model {number} of {path.name}", name) for number, name in enumerate(recipe.models, start=1)]
    named += [(f"VAE of {path.name}", recipe.vae)] if recipe.vae is not None else []
    for role, name in named:
        found += _checkpoint(role, located(name, path.parent), None, weights_dir, of(name), above)
    for lora in recipe.loras:
        where = located(lora.path, path.parent)
        place = _place(functools.partial(find_lora, where, weights_dir))
        weight = text.lora(lora).removeprefix(lora.path).strip()
        found.append(_source(f"LoRA {weight} of {path.name}", where, place, of(lora.path)))
    return found


def _of_header(recipe: str, name: str) -> list[Source]:
    """The sources that the recipe in a merged file's header names, with their hashes; its files may lie anywhere."""
    try:
        table = documents.loads(recipe)
    except ValueError:
        return []
    return [*_header_sources(table, name)] if isinstance(table, dict) else []


def _header_sources(table: Mapping[str, Any], of: str) -> Iterable[Source]:
    models = table.get("models")
    sources = [(f"model {place} of {of}", one) for place, one in enumerate(_list(models), start=1)]
    sources += [(f"VAE of {of}", table["vae"])] if isinstance(table.get("vae"), dict) else []
    for role, one in sources:
        if not isinstance(one, dict):
            continue
        if "models" in one:
            yield from _header_sources(one, of)
            continue
        hashes = [str(file.get("sha256")) for file in _list(one.get("files")) if isinstance(file, dict)]
        yield _named(role, str(one.get("source", "")), tuple(dict.fromkeys(hashes)))
    for one in _list(table.get("loras")):
        if isinstance(one, dict):
            weight, path, digest = one.get("weight", 1.0), str(one.get("path", "")), str(one.get("sha256"))
            yield _named(f"LoRA × {weight} of {of}", path, (digest,))


def _named(role: str, name: str, hashes: tuple[str, ...]) -> Source:
    """A source that only its name is known of."""
    place = _place(functools.partial(find_checkpoint, name, None, None))
    repository = place.repository if isinstance(place, Place) else None
    family = name.partition(":")[0]
    known = OWN_LICENCE if family in SHIPPED else REPOSITORIES.get(repository or "")
    said = "" if known is None else "this package" if family in SHIPPED else f"known of {repository}"
    shown = repository or own_name(name)
    return Source(role=role, name=shown, repository=repository, hashes=hashes, licence=known, said_by=said)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


# What the maker says of licences.


def _with_said(found: Sequence[Source], said: Mapping[str, str]) -> tuple[Source, ...]:
    names = {one.name: one for one in found} | {one.repository: one for one in found if one.repository}
    for name in said:
        if name not in names:
            known = [str(one) for one in names]
            raise UsageError(
                f"--license-of: nothing that went in is called {name!r}{did_you_mean(name, known)}; "
                f"there are {', '.join(known)}.",
                "hotart-bench card --help",
            )
    return tuple(_said(one, said) for one in found)


def _said(one: Source, said: Mapping[str, str]) -> Source:
    key = one.repository if one.repository in said else one.name
    return replace(one, licence=said[key], said_by="the maker") if key is not None and key in said else one


def recipe_text(found: Sequence[Source]) -> str:
    """The recipe of the first source that has one, over lines; empty without."""
    recipe = next((one.recipe for one in found if one.recipe), "")
    try:
        return json.dumps(documents.loads(recipe), ensure_ascii=False, indent=2) if recipe else ""
    except ValueError:  # the header of a file from elsewhere may say anything
        return recipe
