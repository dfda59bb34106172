"""From what the flags name to the suites of ``init`` and ``quick``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import documents
from bench.draft.families import DraftFamily, find_family, look_at, look_at_lora
from bench.draft.sources import make_variants, read_checkpoint, read_lora, stem_of, with_runtimes
from bench.draft.suite_text import template
from bench.formatting import joined
from bench.metrics.declare import Scored, SetMetric
from bench.metrics.registry import Registry
from bench.records import MeasurePlan, Prompt, Suite, Variant
from bench.suite import prompts_folder, read_prompts

QUICK_PROMPTS = 8
"""Of portraits, and of landscapes."""
QUICK_SETS = {"mini": ("mini.jsonl", "mini.jsonl"), "sdxl": ("portraits.jsonl", "landscapes.jsonl")}
QUICK_SETS["sd15"] = QUICK_SETS["sdxl"]


class Draft(NamedTuple):
    """What ``--checkpoint`` and ``--lora`` ask for."""

    family: DraftFamily
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]
    """What was assumed, and what the user should know of the files."""
    lost: tuple[str, ...] = ()
    """Of the notes, those on files that are not here, and that nothing could fetch."""


def make_draft(
    checkpoints: Sequence[str], loras: Sequence[str], weights_dir: Path | None, runtimes: Sequence[str] = ()
) -> Draft:
    """The variants and their family.

    Args:
        checkpoints: as ``--checkpoint`` names them, the reference first.
        loras: as ``--lora`` does.
        weights_dir: local weights instead of downloads.
        runtimes: as ``--runtime`` does.

    Raises:
        UsageError: nothing is named, something twice, a weight or runtime that is none, or checkpoints of two families.
        WeightsError: a file that is here is no checkpoint.
    """
    sources = [read_checkpoint(text) for text in checkpoints]
    found = [read_lora(text) for text in loras]
    variants = with_runtimes(make_variants(sources, [lora for lora, _ in found]), runtimes)
    known = [look_at(source, weights_dir) for source in sources]
    family, assumed = find_family(known)
    unfit = [look_at_lora(lora, known[0], weights_dir) for lora, _ in found]
    unsaid = [lora.path for lora, said in found if not said]
    weights = (f"Weight 1.0 for {joined(unsaid)}; :0.8 at the end sets another.",) if unsaid else ()
    alone = ("There is one variant, and nothing to compare it with: add --checkpoint, --lora or --runtime.",)
    notes = (
        *(note for one in known for note in one.notes),
        *assumed,
        *filter(None, unfit),
        *weights,
        *(alone if len(variants) < 2 else ()),
    )
    lost = tuple(note for one in known if one.lost for note in one.notes)
    return Draft(family, variants, notes, lost)


def init_suite(draft: Draft, name: str) -> Suite:
    """A suite for a whole comparison: the shipped one of the family with other variants."""
    return msgspec.structs.replace(template(draft.family), name=stem_of(name, "suite"), variants=draft.variants)


# quick


def quick_suite(draft: Draft, name: str, prompt_file: str) -> Suite:
    """A suite for a first look: 8 portraits and 8 landscapes once each, nothing timed, batches as memory allows."""
    whole = template(draft.family)
    batch = 2 * QUICK_PROMPTS if draft.family == "mini" else None
    return msgspec.structs.replace(
        whole,
        name=name,
        variants=draft.variants,
        prompt_files=(prompt_file,),
        prompts=quick_prompts(draft.family),
        samples=1,
        settings=msgspec.structs.replace(whole.settings, batch=batch),
        measure=MeasurePlan(rounds=0),
    )


def quick_name(draft: Draft) -> str:
    """What a quick run is called: as its variants are."""
    plain = [one.name for one in draft.variants if not one.loras and one.runtime is None]
    first = len(plain[0]) + 1
    changed = (one for one in draft.variants if one.name not in plain)
    ends = [one.name[first:] for one in changed if one.checkpoint == draft.variants[0].checkpoint]
    name = "-".join(["quick", *plain, *ends])
    if len(name) <= 80:
        return name
    return f"{name[:70].rstrip('._-')}-{documents.sha256_of(name.encode())[:8]}"


def quick_prompts(family: DraftFamily) -> tuple[Prompt, ...]:
    """The first 8 portraits and 8 landscapes of the shipped sets in turns, so that the first few have both."""
    portraits, landscapes = (
        [prompt for prompt in read_prompts(prompts_folder() / name) if tag in prompt.tags][:QUICK_PROMPTS]
        for name, tag in zip(QUICK_SETS[family], ("portrait", "landscape"), strict=True)
    )
    return tuple(prompt for pair in zip(portraits, landscapes, strict=True) for prompt in pair)


def prompts_text(prompts: Sequence[Prompt]) -> str:
    """Prompts as a prompt file, one a line; questions are left out."""
    lines = []
    for prompt in prompts:
        fields = {"id": prompt.id, "prompt": prompt.text, "negative": prompt.negative, "tags": list(prompt.tags)}
        fields |= {"group": prompt.group, "probes": prompt.probes}
        lines.append(documents.dumps({name: value for name, value in fields.items() if value}))
    return "\n".join(lines) + "\n"


def usable_metrics(suite: Suite, registry: Registry) -> tuple[str, ...]:
    """The suite's metrics that have a number with its samples and variants."""
    return tuple(name for name in suite.metrics if _has_numbers(registry.scored[name], suite))


def _has_numbers(one: Scored, suite: Suite) -> bool:
    if one.needs_reference and len(suite.variants) < 2:
        return False
    needed = one.min_samples if isinstance(one, SetMetric) else 2 if one.needs_other_samples else 1
    return needed <= suite.samples
