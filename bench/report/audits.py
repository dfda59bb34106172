"""The report's audit: what was loaded for each variant, and what its LoRAs changed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import wording as text
from bench.records import Audit, ChangedModule, CheckpointFacts, Fingerprint, Lora, LoraAudit, PixelDifference, Run

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
    """One block's relative change; ``height`` is per cent of the variant's largest."""

    name: str
    change: str
    height: float


@dataclass(frozen=True)
class AuditView:
    """One variant: what its files are, and what was changed in them."""

    variant: str
    colour: int
    checkpoint: str
    loras: tuple[LoraView, ...]
    blocks: tuple[BlockBar, ...]
    highest: str
    runtime: str


def audit_views(run: Run) -> tuple[AuditView, ...]:
    """The audits of a run's variants, in the suite's order; those that were never loaded have none."""
    prints = {one.name: one for one in run.info.variants}
    return tuple(
        _view(index, prints[variant.name], audit)
        for index, variant in enumerate(run.info.suite.variants)
        if variant.name in prints and (audit := prints[variant.name].audit) is not None
    )


def _view(index: int, known: Fingerprint, audit: Audit) -> AuditView:
    top = max(audit.blocks.values(), default=0.0)
    return AuditView(
        variant=known.name,
        colour=index % 8,
        checkpoint=f"{describe(audit.checkpoint)}; run in {audit.dtype}.",
        loras=tuple(lora_view(lora, found) for lora, found in zip(known.loras, audit.loras, strict=True)),
        blocks=tuple(
            BlockBar(name, share(change), round(100 * change / top, 1) if top else 0.0)
            for name, change in audit.blocks.items()
        ),
        highest=share(top),
        runtime="" if audit.fused_against_runtime is None else difference(audit.fused_against_runtime),
    )


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
        rounded=text.percent(max((one.rounded_away or 0.0 for one in modules), default=0.0)),
    )


def weight_text(lora: Lora) -> str:
    """``0.8``, or with components and blocks of their own, ``0.8 (unet 1, IN04 0.5)``."""
    parts = {"unet": lora.unet, "text_encoder": lora.text_encoder, "text_encoder_2": lora.text_encoder_2}
    own = [f"{name} {weight:g}" for name, weight in (parts | lora.blocks).items() if weight is not None]
    return f"{lora.weight:g}" + (f" ({', '.join(own)})" if own else "")


def difference(found: PixelDifference) -> str:
    """What fusing does to the pixels, in a sentence."""
    return (
        f"Fused against run time, {text.plural(found.images, 'image')}: pixels differ by {found.mean:.3g} of 255 "
        f"levels in the mean and {found.max} at most; {100 * found.changed:.3g} % of the values differ at all."
    )


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
    low, high = min(values), max(values)
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"
