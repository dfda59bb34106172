"""The recipe file as it is written: TOML, strict in its fields, types and values. Imports no torch.

An unknown or doubled field, a field that the method does not have, a wrong type or a number that cannot be is
refused before a weight is read, with the file, the field and, where there is one, the nearest match. Names of blocks
are checked against the UNet, once it is opened (``bench.merge.merged``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from bench import documents
from bench.errors import SuiteError
from bench.records import HEAVIEST_LORA, Component, Dtype, Lora, Record
from bench.records.suite import LeftOut

Method = Literal["weighted_sum", "add_difference", "slerp", "ties", "dare", "copy"]

SCHEMA = 1
"""Version of the recipe file."""

MAX_SEED = 2**63 - 1


class Metadata(Record, frozen=True):
    """``[metadata]``: what the merged file says of itself, each as ``modelspec.<name>``."""

    title: str | None = None
    author: str | None = None
    description: str | None = None
    license: str | None = None
    usage_hint: str | None = None
    trigger_phrase: str | None = None
    tags: str | None = None


class Recipe(Record, frozen=True):
    """A recipe file, checked; paths stand as the file has them."""

    schema: int
    method: Method
    models: tuple[str, ...]
    """The first gives whatever is not merged; ``ties`` and ``dare`` measure the others against it."""
    alpha: float | None = None
    """How much of the second model, of the difference, or of all the task vectors together."""
    blocks: dict[str, float] = msgspec.field(default_factory=dict)
    """Instead of ``alpha`` in blocks of the UNet, by name; ``BASE`` is what lies outside its blocks."""
    weights: tuple[float, ...] = ()
    """Of each model after the first, for ``ties`` and ``dare``; 1 each where the recipe has none."""
    density: float | None = None
    """Share, 0 to 1, of each task vector that ``ties`` keeps: its largest entries."""
    drop: float | None = None
    """Share, 0 to 1, of each task vector that ``dare`` drops."""
    seed: int | None = None
    """Which entries ``dare`` drops."""
    components: tuple[Component, ...] = ()
    """What is merged; none named means the UNet and the text encoders."""
    vae: str | None = None
    loras: tuple[Lora, ...] = ()
    dtype: Dtype | None = None
    """Precision of the output; None keeps that of each of the first model's tensors."""
    metadata: Metadata = Metadata()


METHODS: dict[Method, tuple[int, int | None, str, tuple[str, ...]]] = {
    "weighted_sum": (2, 2, "A (1 - alpha) + B alpha", ("alpha", "blocks", "components")),
    "add_difference": (3, 3, "A + alpha (B - C)", ("alpha", "blocks", "components")),
    "slerp": (2, 2, "from A to B on the sphere", ("alpha", "blocks", "components")),
    "ties": (2, None, "A + alpha TIES(B - A, ...)", ("alpha", "blocks", "components", "weights", "density")),
    "dare": (2, None, "A + alpha DARE(B - A, ...)", ("alpha", "blocks", "components", "weights", "drop", "seed")),
    "copy": (1, 1, "A", ()),
}
"""The least and most models that a method takes (None: any number), its formula, and the fields that not all have."""

REQUIRED = {"weighted_sum": "alpha", "add_difference": "alpha", "slerp": "alpha", "dare": "drop"}
DEFAULTS: dict[str, dict[str, Any]] = {"ties": {"alpha": 1.0, "density": 0.2}, "dare": {"alpha": 1.0, "seed": 0}}
"""The density is that of the paper; an alpha of 1 adds the task vectors as they are."""


def read_recipe(path: Path) -> Recipe:
    """A checked recipe file, what it leaves out filled in.

    Raises:
        SuiteError: no such file, not TOML, an unknown or doubled field, one that the method does not have, a wrong
            type, or a value that cannot be: a NaN alpha, a density of 2. The sentence names file, field and what is
            allowed.
        IncomparableError: its schema is newer than this program.
    """
    table = documents.read_toml(path)
    remake = f"a recipe begins with schema = {SCHEMA}"
    documents.refuse_other_schema(path, table.get("schema"), SCHEMA, "recipes", remake, invalid=SuiteError)
    _refuse_unknown(path, table)
    try:
        recipe = documents.convert(table, Recipe)
    except ValueError as error:
        raise SuiteError(f"{path}: {error}.") from error
    _check_method(path, recipe, table)
    defaults = {name: value for name, value in DEFAULTS.get(recipe.method, {}).items() if name not in table}
    recipe = msgspec.structs.replace(recipe, **defaults)
    _check_numbers(path, recipe)
    _check_names(path, recipe)
    return recipe


def _refuse_unknown(path: Path, table: Mapping[str, Any]) -> None:
    """Refuses unknown fields and choices; what is of a wrong type is left to the type check."""
    loras = table.get("loras")
    tables: list[tuple[str, Any, type]] = [("", table, Recipe), ("metadata.", table.get("metadata"), Metadata)]
    tables += [(f"loras[{index}].", item, Lora) for index, item in enumerate(loras if isinstance(loras, list) else ())]
    for place, inner, kind in tables:
        if (
            kind is Lora
            and isinstance(inner, dict)
            and ("step_range" in inner or isinstance(inner.get("weight"), list))
        ):
            raise SuiteError(
                f"{path}: {place.rstrip('.')} follows steps, and a schedule cannot be merged into a file.",
                "give the LoRA one weight, or let it run as a variant of a suite",
            )
        if isinstance(inner, dict):
            documents.refuse_unknown_fields(path, place, inner, kind)
            documents.refuse_unknown_choices(path, f"{place}leave_out", inner.get("leave_out"), get_args(LeftOut))
    documents.refuse_unknown_choice(path, "method", table.get("method"), get_args(Method))
    documents.refuse_unknown_choice(path, "dtype", table.get("dtype"), get_args(Dtype))
    documents.refuse_unknown_choices(path, "components", table.get("components"), get_args(Component))


def _check_method(path: Path, recipe: Recipe, table: Mapping[str, Any]) -> None:
    least, most, formula, fields = METHODS[recipe.method]
    if not least <= len(recipe.models) <= (most or len(recipe.models)):
        takes = f"{least}" if most == least else f"{least} or more"
        raise SuiteError(
            f"{path}: models names {len(recipe.models)}; the method {recipe.method} ({formula}) takes {takes}."
        )
    for name in table:
        takers = [method for method, (*_, others) in METHODS.items() if name in others]
        if takers and name not in fields:
            raise SuiteError(
                f"{path}: the method {recipe.method} ({formula}) has no {name}; it goes with {', '.join(takers)}."
            )
    required = REQUIRED.get(recipe.method)
    if required is not None and required not in table:
        raise SuiteError(f"{path}: the field {required} is missing; {recipe.method} is {formula}.")
    for name in ("components", "weights"):
        if table.get(name) == []:
            raise SuiteError(f"{path}: {name} is empty; leave it out, or name at least one.")
    if recipe.weights and len(recipe.weights) != len(recipe.models) - 1:
        raise SuiteError(
            f"{path}: weights names {len(recipe.weights)}; there are {len(recipe.models) - 1} models after the first."
        )


def _check_numbers(path: Path, recipe: Recipe) -> None:
    low, high = (0.0, 1.0) if recipe.method in ("weighted_sum", "slerp") else (-100.0, 100.0)
    numbers = [
        ("alpha", recipe.alpha, low, high),
        *((f"blocks.{name}", value, low, high) for name, value in recipe.blocks.items()),
        *((f"weights[{index}]", value, 0.0, 100.0) for index, value in enumerate(recipe.weights)),
        ("density", recipe.density, 0.0, 1.0),
        ("drop", recipe.drop, 0.0, 1.0),
        ("seed", recipe.seed, 0, MAX_SEED),
    ]
    for field, value, low, high in numbers:
        if value is not None and not low <= value <= high:  # also true of NaN
            raise SuiteError(f"{path}: {field} is {value}; allowed is {low:g} to {high:g}.")
    if recipe.density == 0.0 or recipe.drop == 1.0:
        field = "density is 0" if recipe.drop is None else "drop is 1"
        raise SuiteError(f"{path}: {field}, which keeps nothing of the other models.")
    if recipe.weights and not any(recipe.weights):
        raise SuiteError(f"{path}: weights are all 0, which keeps nothing of the other models.")
    for index, lora in enumerate(recipe.loras):
        parts = {name: getattr(lora, name) for name in ("weight", "unet", "text_encoder", "text_encoder_2")}
        for field, value in {**parts, **{f"blocks.{name}": value for name, value in lora.blocks.items()}}.items():
            if value is not None and not abs(value) <= HEAVIEST_LORA:  # NaN neither
                raise SuiteError(
                    f"{path}: loras[{index}].{field} is {value}; "
                    f"it must be a number from {-HEAVIEST_LORA:g} to {HEAVIEST_LORA:g}."
                )


def _check_names(path: Path, recipe: Recipe) -> None:
    for component in recipe.components:
        if recipe.components.count(component) > 1:
            raise SuiteError(f"{path}: components names {component!r} twice.")
    if recipe.vae is not None and "vae" in recipe.components:
        raise SuiteError(f"{path}: vae names where the VAE is taken from, so that components cannot merge it.")
    sources = [(f"models[{index}]", name) for index, name in enumerate(recipe.models)]
    sources += [("vae", recipe.vae)] if recipe.vae is not None else []
    sources += [(f"loras[{index}].path", lora.path) for index, lora in enumerate(recipe.loras)]
    for field, name in sources:
        if not name.strip() or "\0" in name:
            raise SuiteError(f"{path}: {field} is empty or holds a zero byte.")
