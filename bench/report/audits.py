"""The report's audit: what was loaded for each variant, and what its LoRAs changed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import formatting as text
from bench.records import (
    Audit,
    ChangedModule,
    CheckpointFacts,
    Fingerprint,
    Lora,
    LoraAudit,
    MergeAudit,
    Run,
)
from bench.records.weights import NoiseSchedule

KINDS = {
    "lora": "LoRA",
    "tucker": "LoCon (Tucker)",
    "loha": "LoHa",
    "lokr": "LoKr",
    "diff": "difference",
    "norm": "norm difference",
    "bias": "bias difference",
}
LAYOUTS = {
    "diffusers": "diffusers folder",
    "single-file": "single file",
    "random": "random weights",
    "recipe": "merge by a recipe",
}


@dataclass(frozen=True)
class LoraView:
    """One LoRA file and what it changed, as a row of a table."""

    name: str
    layout: str
    keys: str
    kinds: str
    ranks: str
    scale: str
    change: str
    rounded: str
    notes: str


def lora_rows(known: Fingerprint, audit: Audit) -> list[LoraView]:
    """The LoRAs that a variant's recipe fuses, then its own."""
    rows = [lora_view(lora, found) for lora, found in zip(known.loras, audit.loras, strict=True)]
    if audit.merge is None:
        return rows
    given = zip(audit.merge.fused_loras, audit.merge.loras, strict=True)
    return [*(lora_view(lora, found, ", in the recipe") for lora, found in given), *rows]


def lora_view(lora: Lora, found: LoraAudit, note: str = "") -> LoraView:
    """One LoRA's audit as text."""
    modules = found.modules
    rounded = [one.rounded_away for one in modules if one.rounded_away is not None]
    return LoraView(
        name=text.lora(lora) + note,
        layout=found.layout,
        keys=", ".join(f"{component} {count:,}" for component, count in found.applied.items()),
        kinds=_kinds(modules),
        ranks=_ranks(modules),
        scale=_range([one.scale for one in modules]),
        change=change_text(modules),
        rounded=text.percent(max(rounded)) if rounded else text.NONE,
        notes=" ".join(found.notes),
    )


def block_changes(audit: Audit) -> dict[str, Mapping[str, float]]:
    """Each block's relative change, by what caused it."""
    found: dict[str, Mapping[str, float]] = {}
    if audit.merge is not None:
        found[f"Change from {audit.merge.base or audit.merge.models[0]} by the recipe"] = audit.merge.blocks
    if audit.blocks:
        found["Change by the variant's LoRAs"] = audit.blocks
    return found


def recipe_text(merge: MergeAudit) -> str:
    """What a recipe says, and how much of it rounding left, in a sentence or two."""
    said = [f"Recipe: {merge.method} of {text.joined(merge.models)}"]
    said += [f"{name} {_value(value)}" for name, value in merge.fields.items()]
    lost = merge.rounded_away
    rounded = "" if lost is None else f" Rounded away, of the numbers that it changes: {text.percent(lost)}."
    return "; ".join(said) + "." + rounded


def _value(value: Any) -> str:
    """A recipe's value in words: ``0.3``, ``IN04 0.5, M00 0``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def predicts(facts: CheckpointFacts) -> str:
    """What a UNet predicts, and which file says so where it is another than the checkpoint's own."""
    source = f" (says {facts.prediction_from})" if facts.prediction_from else ""
    return {"epsilon": "predicts noise", "v_prediction": "predicts v"}[facts.prediction] + source


def describe(facts: CheckpointFacts) -> str:
    """A checkpoint in one line: layout, family, what its UNet predicts, precision, licence."""
    words = [LAYOUTS[facts.layout], {"sdxl": "SDXL", "sd15": "SD 1.5"}[facts.family]]
    words.append(predicts(facts))
    words += ["zero terminal SNR"] if facts.zero_terminal_snr else []
    words += ["a noise schedule of its own"] if facts.noise != NoiseSchedule() else []
    words += ["inpainting"] if facts.inpainting else []
    stored = sorted(set(facts.dtypes.values()))
    words += [f"stored in {', '.join(stored)}"] if stored else []
    words += [f"licence {facts.licence}"] if facts.licence else []
    words += [f"left aside: {text.joined(facts.left_aside)}"] if facts.left_aside else []
    line = ", ".join(words)
    return f"{facts.title}: {line}" if facts.title else line[0].upper() + line[1:]


def unfused(run: Run, audit: Audit) -> str:
    """How far fusing LoRAs moves pixels, in a sentence, or that it was not compared; empty without LoRAs."""
    found = audit.fused_against_unfused
    if found is not None:
        steps = f" in {found.steps} steps" if found.steps not in (None, run.info.suite.settings.steps) else ""
        return (
            f"Fused against unfused LoRAs, first image of prompt {found.prompt_id}{steps}: pixels differ by "
            f"{found.mean:.3g} of 255 levels in the mean and {found.max} at most; "
            f"{100 * found.changed:.3g} % of the values differ at all."
        )
    has_loras = bool(audit.loras) or (audit.merge is not None and bool(audit.merge.loras))
    if has_loras and not run.info.suite.compare_unfused:
        return "Fused and unfused LoRAs were not compared (compare_unfused = false)."
    return ""


def change_text(modules: Sequence[ChangedModule]) -> str:
    """Median and largest relative change over the modules."""
    found = [(one.relative_change, one.module) for one in modules if one.relative_change is not None]
    if not found:
        return text.NONE
    largest, module = max(found)
    return f"median {share(statistics.median(change for change, _ in found))}, at most {share(largest)} ({module})"


def share(value: float) -> str:
    """A relative change in per cent, three digits."""
    return f"{100 * value:.3g} %"


def _kinds(modules: Iterable[ChangedModule]) -> str:
    counts = Counter(KINDS[one.kind] + (" with DoRA" if one.dora else "") for one in modules)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def _ranks(modules: Sequence[ChangedModule]) -> str:
    ranks = [float(one.rank) for one in modules if one.rank is not None]
    alphas = [one.alpha for one in modules if one.alpha is not None]
    return f"{_range(ranks)}, {_range(alphas) if alphas else 'alpha = rank'}" if ranks else text.NONE


def _range(values: Sequence[float]) -> str:
    if not values:
        return text.NONE
    low, high = (f"{end:.4g}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
