"""A suite as a commented file, which ``load_suite`` reads back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.draft.families import DraftFamily
from bench.draft.sources import from_folder
from bench.draft.toml_text import field, inline, key
from bench.records import Lora, MeasurePlan, Settings, Suite, Variant
from bench.suite import load_suite
from bench.suite.limits import quantity_of

COMMENTS = {
    "samples": "images of each prompt, each from noise of its own",
    "guidance_scale": "the CFG scale",
    "sampler": 'and schedule = "...": see docs/samplers.md',
    "batch": 'images drawn at once; fewer where memory runs out, or "auto". It changes pixels, as all here does',
    "rounds": "0 leaves timing out",
}


def template(family: DraftFamily) -> Suite:
    """What a new suite of a family begins with: prompt sets, metrics, settings and limits of the shipped one."""
    return load_suite(family)


def suite_text(suite: Suite, folder: Path, heading: Sequence[str]) -> str:
    """The suite as TOML.

    Args:
        suite: its ``prompts`` are not written, but the names of their files.
        folder: where the file is to lie; relative sources start from there.
        heading: lines of comment at the top.

    Raises:
        UsageError: a name that TOML cannot hold.
    """
    blocks = [
        [f"# {line}".rstrip() for line in heading],
        [
            field("schema", suite.schema),
            field("name", suite.name),
            field("prompts", suite.prompt_files),
            _told("samples", suite.samples),
            field("seed", suite.seed),
            field("metrics", suite.metrics),
        ],
        ["[settings] # everything that changes pixels; the same for every variant", *_settings(suite.settings)],
        *_variants(suite.variants, folder),
        _limits(suite),
        ["[measure]", *_measure(suite.measure)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _told(name: str, value: object) -> str:
    line = field(name, value)
    return f"{line} # {COMMENTS[name]}" if name in COMMENTS else line


def _settings(settings: Settings) -> Iterator[str]:
    for one in msgspec.structs.fields(Settings):
        value = getattr(settings, one.name)
        if one.name in ("dtype", "batch") or value != one.default:  # these two are what a user changes first
            yield _told(one.name, "auto" if one.name == "batch" and value is None else value)


def _variants(variants: Sequence[Variant], folder: Path) -> Iterator[list[str]]:
    for number, variant in enumerate(variants):
        head = f"[variants.{key(variant.name)}]" + ("" if number else " # the reference of the others")
        lines = [head, field("checkpoint", from_folder(variant.checkpoint, folder))]
        loras = [_lora(lora, folder) for lora in variant.loras]
        lines += [f"loras = [{', '.join(loras)}]"] if loras else []
        yield [*lines, field("runtime", variant.runtime)] if variant.runtime is not None else lines


def _lora(lora: Lora, folder: Path) -> str:
    return inline({"path": from_folder(lora.path, folder), "weight": lora.weight})


def _limits(suite: Suite) -> list[str]:
    if not suite.limits:
        return []
    return [
        "# For `hotart-bench gate`: how much worse is still accepted. 0.15sd is 0.15 standard deviations of the",
        "# reference's prompt means; the margins are your decision.",
        "[limits]",
        *(field(one.name, one.text) for one in suite.limits),
    ]


def _measure(plan: MeasurePlan) -> list[str]:
    if not plan.rounds:
        return [_told("rounds", 0)]
    batches = [field("batches", plan.batches)] if plan.batches else []
    return [_told("rounds", plan.rounds), field("images", plan.images), field("warmups", plan.warmups), *batches]


def with_metrics(suite: Suite, metrics: Sequence[str]) -> Suite:
    """The suite with these metrics, and of its limits those that are on them or, where anything is timed, on times."""
    limits = tuple(
        one
        for one in suite.limits
        if one.name in metrics or (quantity_of(one.name) != "metric" and suite.measure.rounds > 0)
    )
    return msgspec.structs.replace(suite, metrics=tuple(metrics), limits=limits)
