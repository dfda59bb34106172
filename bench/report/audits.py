"""The report's audit: what was loaded for each variant, and what its LoRAs changed."""

from __future__ import annotations

import dataclasses
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
    """One LoRA of a variant as a row of a table."""

    name: str
    layout: str
    keys: str
    kinds: str
    ranks: str
    scale: str
    change: str
    rounded: str


@dataclass(frozen=True)
class BlockBar:
    """One block's relative change; ``height`` is per cent of the picture's largest."""

    name: str
    change: str
    height: float


@dataclass(frozen=True)
class BlockPicture:
    """Every block's change by one cause."""

    cause: str
    bars: tuple[BlockBar, ...]
    highest: str


@dataclass(frozen=True)
class AuditView:
    """One variant: what its files are, and what was changed in them."""

    variant: str
    colour: int
    checkpoint: str
    merge: str
    """How a recipe made it, in a sentence; empty of any other checkpoint."""
    loras: tuple[LoraView, ...]
    """Those that its recipe fuses, then its own."""
    pictures: tuple[BlockPicture, ...]
    unfused: str
    """How far fusing the LoRAs moves pixels, in a sentence; empty where this was not to be seen with this variant."""


def audit_views(run: Run) -> tuple[AuditView, ...]:
    """The audits of a run's variants, in the suite's order; those that were never loaded have none."""
    prints = {one.name: one for one in run.info.variants}
    return tuple(
        _view(index, prints[variant.name], audit, compared=run.info.suite.compare_unfused)
        for index, variant in enumerate(run.info.suite.variants)
        if variant.name in prints and (audit := prints[variant.name].audit) is not None
    )


def _view(index: int, known: Fingerprint, audit: Audit, *, compared: bool) -> AuditView:
    merge = audit.merge
    fused = [] if merge is None else zip(merge.given, merge.loras, strict=True)
    first = "" if merge is None else merge.base or merge.models[0]
    pictures = [] if merge is None else [_picture(f"Change from {first} by the recipe", merge.blocks)]
    if audit.blocks:
        pictures.append(_picture("Change by the variant's LoRAs", audit.blocks))
    return AuditView(
        variant=known.name,
        colour=index % 8,
        checkpoint=f"{describe(audit.checkpoint)}; run in {audit.dtype}.",
        merge="" if merge is None else recipe_text(merge),
        loras=(
            *(dataclasses.replace(view, name=f"{view.name}, in the recipe") for view in _rows(fused)),
            *_rows(zip(known.loras, audit.loras, strict=True)),
        ),
        pictures=tuple(pictures),
        unfused=_unfused(audit, compared),
    )


def recipe_text(merge: MergeAudit) -> str:
    """What a recipe says, and how much of it rounding left, in a sentence or two."""
    said = [f"Recipe: {merge.method} of {text.joined(merge.models)}"]
    said += [f"{name} {_value(value)}" for name, value in merge.asked.items()]
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


def _rows(pairs: Iterable[tuple[Lora, LoraAudit]]) -> list[LoraView]:
    """Rows of several LoRAs."""
    return [lora_view(lora, found) for lora, found in pairs]


def _picture(cause: str, blocks: Mapping[str, float]) -> BlockPicture:
    top = max(blocks.values(), default=0.0)
    bars = [
        BlockBar(name, share(change), round(100 * change / top, 1) if top else 0.0) for name, change in blocks.items()
    ]
    return BlockPicture(cause, tuple(bars), share(top))


def describe(facts: CheckpointFacts) -> str:
    """A checkpoint in one line: layout, family, what its UNet predicts, precision, licence."""
    words = [LAYOUTS[facts.layout], {"sdxl": "SDXL", "sd15": "SD 1.5"}[facts.family]]
    words.append({"epsilon": "predicts noise", "v_prediction": "predicts v"}[facts.prediction])
    words += ["zero terminal SNR"] if facts.zero_terminal_snr else []
    words += ["inpainting"] if facts.inpainting else []
    stored = sorted(set(facts.dtypes.values()))
    words += [f"stored in {', '.join(stored)}"] if stored else []
    words += [f"licence {facts.licence}"] if facts.licence else []
    line = ", ".join(words)
    return f"{facts.title}: {line}" if facts.title else line[0].upper() + line[1:]


def lora_view(lora: Lora, found: LoraAudit) -> LoraView:
    """One LoRA's audit as text."""
    modules = found.modules
    return LoraView(
        name=f"{lora.path} × {weight_text(lora)}",
        layout=found.layout,
        keys=", ".join(f"{component} {count:,}" for component, count in found.applied.items()),
        kinds=_kinds(modules),
        ranks=_ranks(modules),
        scale=_range([one.scale for one in modules]),
        change=change_text(modules),
        rounded=_rounded([one.rounded_away for one in modules if one.rounded_away is not None]),
    )


def weight_text(lora: Lora) -> str:
    """``0.8``, or with components and blocks of their own, ``0.8 (unet 1, IN04 0.5)``."""
    parts = {"unet": lora.unet, "text_encoder": lora.text_encoder, "text_encoder_2": lora.text_encoder_2}
    own = [f"{name} {weight:g}" for name, weight in (parts | lora.blocks).items() if weight is not None]
    return f"{lora.weight:g}" + (f" ({', '.join(own)})" if own else "")


def _unfused(audit: Audit, compared: bool) -> str:
    """How far fusing LoRAs moves pixels, or that this was not to be compared."""
    found = audit.fused_against_unfused
    if found is not None:
        return (
            f"Fused against unfused LoRAs, first image of prompt {found.prompt_id}: pixels differ by "
            f"{found.mean:.3g} of 255 levels in the mean and {found.max} at most; "
            f"{100 * found.changed:.3g} % of the values differ at all."
        )
    has_loras = bool(audit.loras) or (audit.merge is not None and bool(audit.merge.loras))
    return "Fused and unfused LoRAs were not compared (compare_unfused = false)." if has_loras and not compared else ""


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


def _rounded(shares: Sequence[float]) -> str:
    return text.percent(max(shares)) if shares else text.NONE


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
    low, high = min(values), max(values)
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"
