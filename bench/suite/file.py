"""The suite file as it is written: TOML, strict in its fields, types and values.

An unknown or doubled field, a wrong type or a value that cannot be is refused before anything is rendered,
with the field and, where there is one, the nearest match.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from bench import documents
from bench.documents import read_toml, refuse_other_schema, refuse_unknown_choice, refuse_unknown_fields
from bench.errors import SuiteError, UsageError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed
from bench.records import HEAVIEST_LORA, SCHEMA, Dtype, Lora, Plan, Sampler, Schedule, Settings, TimingName
from bench.records.base import KARRAS_SAMPLERS
from bench.suite.limits import parse_limit

MAX_SEED = 2**63 - 1
MAX_STEPS = 499
"""With more, a sampler that spaces 1,000 timesteps evenly from the clean end starts half way, or past the last one."""
UPGRADE = (
    'write schema = 2, guidance_scale for guidance, and sampler = "dpmpp_2m" (or "dpmpp_2m_sde") with '
    'schedule = "karras" for dpmpp_2m_karras (dpmpp_2m_sde_karras)'
)
"""What to change in a suite of schema 1."""
SAMPLERS = tuple(name for name in get_args(Sampler) if name != "none")


class VariantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[variants.<name>]`` of a suite file."""

    checkpoint: str
    revision: str | None = None
    loras: tuple[Lora, ...] = ()
    fuse: bool = True
    unet: str | None = None
    vae: str | None = None


class SuiteFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A suite file as it is written; ``load_suite`` makes a ``Suite`` of it."""

    schema: int
    name: str
    prompts: tuple[str, ...]
    settings: Settings
    variants: dict[str, VariantTable]
    samples: int = 1
    seed: int = 0
    metrics: tuple[str, ...] = ()
    limits: dict[str, str] = {}
    measure: Plan = Plan()
    compare_unfused: bool = True
    """Whether one image a LoRA file is drawn with unfused LoRAs too; it changes no pixels of the run."""
    keep_training_prompts: bool = False
    """Keep prompts that SPO was trained on, which are left out otherwise (``bench.suite.training_prompts``)."""


def read_suite_file(path: Path, known_metrics: Collection[str] | None) -> SuiteFile:
    """A checked suite file.

    Args:
        path: the ``.toml`` file.
        known_metrics: the metrics there are, or None to leave metric names unchecked.

    Raises:
        SuiteError: not readable, not TOML, an unknown or doubled field, a wrong type, or a value of the right
            type that cannot be: a width of 63, a NaN guidance, a variant named "..". The sentence names file,
            field, what is allowed and the nearest match.
        IncomparableError: its schema is newer than this program.
    """
    table = read_toml(path)
    refuse_other_schema(path, table.get("schema"), SCHEMA, "suites", UPGRADE, invalid=SuiteError)
    for place, inner, kind in _tables(table):
        refuse_unknown_fields(path, place, inner, kind)
    _refuse_unknown_choices(path, table)
    _read_auto_batch(table)
    try:
        suite = documents.convert(table, SuiteFile)
    except ValueError as error:
        hint = 'limits are texts, such as "0.1sd"' if str(error).startswith("limits") else ""
        raise SuiteError(f"{path}: {error}.", hint) from error
    _check_values(str(path), suite, known_metrics)
    return suite


def _tables(table: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], type]]:
    yield "", table, SuiteFile
    # What is no table where one belongs is left to the type check, which knows how to say it.
    for name, kind in (("settings", Settings), ("measure", Plan)):
        if isinstance(table.get(name), dict):
            yield f"{name}.", table[name], kind
    variants = table.get("variants")
    for name, inner in variants.items() if isinstance(variants, dict) else ():
        if not isinstance(inner, dict):
            continue
        yield f"variants.{name}.", inner, VariantTable
        loras = inner.get("loras")
        for index, item in enumerate(loras if isinstance(loras, list) else ()):
            if isinstance(item, dict):
                yield f"variants.{name}.loras[{index}].", item, Lora


def _read_auto_batch(table: dict[str, Any]) -> None:
    settings = table.get("settings")
    if isinstance(settings, dict) and settings.get("batch") == "auto":
        settings["batch"] = None


def _refuse_unknown_choices(path: Path, table: Mapping[str, Any]) -> None:
    settings = table.get("settings")
    for name, choices in (("sampler", SAMPLERS), ("schedule", get_args(Schedule)), ("dtype", get_args(Dtype))):
        refuse_unknown_choice(
            path, f"settings.{name}", settings.get(name) if isinstance(settings, dict) else None, choices
        )


def _check_values(file: str, suite: SuiteFile, known_metrics: Collection[str] | None) -> None:
    if not is_good_name(suite.name):
        raise SuiteError(f"{file}: name is {suite.name!r}; a suite's name is {NAME_RULE}.")
    _check_ranges(file, suite)
    _check_settings(file, suite)
    _check_variants(file, suite)
    _check_lists(file, suite)
    _check_metrics(file, suite, known_metrics)
    _check_limits(file, suite)


def _check_ranges(file: str, suite: SuiteFile) -> None:
    settings, plan = suite.settings, suite.measure
    ranges: tuple[tuple[str, float, float, float], ...] = (
        ("samples", suite.samples, 1, 10_000),
        ("seed", suite.seed, 0, MAX_SEED),
        ("settings.width", settings.width, 8, 8192),
        ("settings.height", settings.height, 8, 8192),
        ("settings.steps", settings.steps, 1, MAX_STEPS),
        ("settings.guidance_scale", settings.guidance_scale, 0, 100),
        ("settings.batch", 1 if settings.batch is None else settings.batch, 1, 1024),
        ("settings.eta", settings.eta, 0, 1),
        ("measure.rounds", plan.rounds, 1, 1000),
        ("measure.images", plan.images, 1, 1000),
        ("measure.warmups", plan.warmups, 0, 100),
    )
    for field, value, low, high in ranges:
        if not low <= value <= high:  # also true of NaN
            raise SuiteError(f"{file}: {field} is {value}; allowed is {low} to {high}.")


def _check_settings(file: str, suite: SuiteFile) -> None:
    settings = suite.settings
    for field, pixels in (("width", settings.width), ("height", settings.height)):
        if pixels % 8:
            near = max(8, round(pixels / 8) * 8)
            raise SuiteError(f"{file}: settings.{field} is {pixels}; it must be a multiple of 8, such as {near}.")
    if settings.schedule == "karras" and settings.sampler not in KARRAS_SAMPLERS:
        raise SuiteError(
            f"{file}: the sampler {settings.sampler} cannot follow the schedule karras; "
            f"{listed(KARRAS_SAMPLERS)} can, or leave the schedule out."
        )
    if settings.eta and settings.sampler != "ddim":
        raise SuiteError(
            f"{file}: settings.eta is {settings.eta}, but only the sampler ddim has an eta, "
            f"not {settings.sampler}; leave it out or set it to 0."
        )


def _check_variants(file: str, suite: SuiteFile) -> None:
    if not suite.variants:
        raise SuiteError(f"{file}: there is no variant; add [variants.base] with a checkpoint.")
    folded: dict[str, str] = {}
    for name, variant in suite.variants.items():
        if not is_good_name(name):
            raise SuiteError(f"{file}: the variant name {name!r} will not do; it is {NAME_RULE}.")
        other = folded.setdefault(name.lower(), name)
        if other != name:
            raise SuiteError(
                f"{file}: the variants {other!r} and {name!r} differ only in case; "
                "their images would share a folder on some systems."
            )
        texts = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
        texts |= {f"loras[{index}].path": lora.path for index, lora in enumerate(variant.loras)}
        for field, text in texts.items():
            if text is not None and (not text.strip() or "\0" in text):
                raise SuiteError(f"{file}: variants.{name}.{field} is empty or holds a zero byte.")
        for index, lora in enumerate(variant.loras):
            _check_lora_weights(f"{file}: variants.{name}.loras[{index}]", lora)


def _check_lora_weights(where: str, lora: Lora) -> None:
    # Names of blocks depend on the checkpoint's UNet, and are checked where that is read.
    weights = {name: getattr(lora, name) for name in ("weight", "unet", "text_encoder", "text_encoder_2")}
    weights |= {f"blocks.{name}": weight for name, weight in lora.blocks.items()}
    for name, weight in weights.items():
        if weight is not None and not abs(weight) <= HEAVIEST_LORA:  # NaN neither
            raise SuiteError(
                f"{where}.{name} is {weight}; it must be a number from {-HEAVIEST_LORA:g} to {HEAVIEST_LORA:g}."
            )


def _check_lists(file: str, suite: SuiteFile) -> None:
    if not suite.prompts:
        raise SuiteError(f'{file}: prompts is empty; name at least one prompt file, such as "mini.jsonl".')
    for field, names in (("prompts", suite.prompts), ("metrics", suite.metrics)):
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise SuiteError(f"{file}: {field} names {doubled[0]!r} twice.")


def _check_metrics(file: str, suite: SuiteFile, known: Collection[str] | None) -> None:
    for name in suite.metrics if known is not None else ():
        if known is not None and name not in known:
            raise SuiteError(
                f"{file}: unknown metric {name!r}{did_you_mean(name, known)}; there are {listed(known)}.",
                "hotart-bench list metrics",
            )


def _check_limits(file: str, suite: SuiteFile) -> None:
    allowed = (*suite.metrics, *get_args(TimingName))
    for name, value in suite.limits.items():
        if name not in allowed:
            raise SuiteError(
                f"{file}: limits.{name} is neither a metric of this suite nor a timing"
                f"{did_you_mean(name, allowed)}; allowed are {', '.join(allowed)}."
            )
        if name == "compile" and not suite.settings.compile:
            raise SuiteError(f"{file}: limits.compile is set, but nothing is compiled: settings.compile is false.")
        try:
            parse_limit(name, value)
        except UsageError as error:
            raise SuiteError(f"{file}: {error}", error.hint) from error
