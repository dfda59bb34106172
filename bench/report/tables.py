"""The report's tables: variants, metrics, timings, pixel statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import wording as text
from bench.plots.costs import TIMING_TITLES
from bench.plots.data import headline_metrics
from bench.records import (
    Delta,
    Fingerprint,
    Interval,
    Lora,
    MetricFacts,
    MetricMean,
    Ratio,
    Run,
    TimingName,
    TimingSummary,
    Variant,
    WeightFile,
)
from bench.report.headline import way

_TIMING_NOTES: dict[TimingName, str] = {
    "load": "from disk to the device",
    "compile": "first step, within which torch compiles",
    "first_image": "with compilation and warm-up",
    "text_encode": "one prompt, after warm-up",
    "denoise_step": "one step of one image",
    "vae_decode": "latents to pixels",
    "end_to_end": "prompt to pixels, after warm-up",
    "peak_allocated": "tensors on the device",
    "peak_reserved": "held by the allocator",
    "peak_process": "as the driver sees it",
    "peak_rss": "of the whole process",
    "energy_per_image": "of the whole card, by its counter",
}


@dataclass(frozen=True)
class VariantView:
    """One variant: what it is made of and which weights."""

    name: str
    colour: int
    is_reference: bool
    made_of: tuple[str, ...]
    digest: str
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class MetricView:
    """One metric's facts as text."""

    name: str
    version: str
    summary: str
    standing: str
    axis: str
    unit: str
    direction: str
    range: str
    tower: str
    trained_on: str
    licence: str
    reference: str


@dataclass(frozen=True)
class TimingCell:
    """One variant's figure of one timed quantity; ``width`` is per cent of the row's largest median."""

    colour: int
    median: str
    spread: str
    width: float
    ratio: str
    weak: str


@dataclass(frozen=True)
class TimingRow:
    """One timed quantity; None where a variant was not measured."""

    title: str
    note: str
    cells: tuple[TimingCell | None, ...]


@dataclass(frozen=True)
class PixelCell:
    """One variant's mean of one statistic, and its difference to the reference."""

    mean: str
    delta: str


@dataclass(frozen=True)
class PixelRow:
    """One descriptive metric."""

    name: str
    unit: str
    cells: tuple[PixelCell, ...]


def variant_views(run: Run) -> tuple[VariantView, ...]:
    """The suite's variants with their fingerprints, where the run has them."""
    prints = {one.name: one for one in run.info.variants}
    return tuple(
        _variant_view(index, variant, prints.get(variant.name)) for index, variant in enumerate(run.info.suite.variants)
    )


def _variant_view(index: int, variant: Variant, found: Fingerprint | None) -> VariantView:
    if found is None:
        return VariantView(variant.name, index % 8, index == 0, ("not loaded in this run",), "", ())
    made_of = [f"{found.checkpoint} ({found.pipeline})"]
    sources = (("revision", variant.revision), ("UNet from", variant.unet), ("VAE from", variant.vae))
    made_of += [f"{what} {where}" for what, where in sources if where]
    made_of += [f"+ LoRA {lora.path} × {_lora_weights(lora)}" for lora in found.loras]
    if found.loras:
        changed = f", {text.plural(found.modules_changed, 'module')} changed" if found.modules_changed else ""
        made_of.append(f"LoRAs {found.lora_mode}{changed}")
    return VariantView(variant.name, index % 8, index == 0, tuple(made_of), found.digest, found.files)


def _lora_weights(lora: Lora) -> str:
    """``0.8``, and in brackets the weights of components and blocks that are others."""
    parts = (("UNet", lora.unet), ("text encoder", lora.text_encoder), ("text encoder 2", lora.text_encoder_2))
    own = [(name, weight) for name, weight in (*parts, *lora.blocks.items()) if weight is not None]
    said = ", ".join(f"{name} × {_weight(weight)}" for name, weight in own)
    return _weight(lora.weight) + (f" ({said})" if said else "")


def _weight(weight: float) -> str:
    return f"{weight:g}".replace("-", text.MINUS)


def metric_views(metrics: Sequence[MetricFacts]) -> tuple[MetricView, ...]:
    """The metrics' facts, the headline's first."""
    first = headline_metrics(metrics)
    return tuple(_metric_view(facts) for facts in (*first, *(one for one in metrics if one not in first)))


def _metric_view(facts: MetricFacts) -> MetricView:
    ends = [
        text.NONE if end is None else text.number(end, 0) if end == round(end) else f"{end:g}"
        for end in (facts.low, facts.high)
    ]
    bounded = facts.low is not None or facts.high is not None
    return MetricView(
        name=facts.name,
        version=facts.version,
        summary=facts.summary,
        standing=facts.standing,
        axis=facts.axis,
        unit=facts.unit,
        direction=("descriptive", "higher is better ↑", "lower is better ↓")[way(facts)],
        range=f"{ends[0]} to {ends[1]}" if bounded else "unbounded",
        tower=facts.tower or "",
        trained_on=facts.trained_on,
        licence=facts.licence,
        reference=facts.reference,
    )


def timing_rows(
    names: Sequence[str], summaries: Sequence[TimingSummary], ratios: Sequence[Ratio]
) -> tuple[TimingRow, ...]:
    """Timed quantities in their order, a cell for each of the variants ``names``."""
    by_place = {(one.name, one.variant): one for one in summaries}
    by_pair = {(one.name, one.candidate): one for one in ratios if one.reference == names[0]}
    rows = []
    for name in dict.fromkeys(one.name for one in summaries):
        top = max(one.median for one in summaries if one.name == name)
        cells = [
            None if found is None else _timing_cell(index % 8, found, by_pair.get((name, variant)), top)
            for index, variant in enumerate(names)
            for found in [by_place.get((name, variant))]
        ]
        rows.append(TimingRow(TIMING_TITLES[name], _TIMING_NOTES[name], tuple(cells)))
    return tuple(rows)


def _timing_cell(colour: int, found: TimingSummary, ratio: Ratio | None, top: float) -> TimingCell:
    spread = f"p90 {text.quantity(found.p90, found.unit)}, IQR {text.quantity(found.iqr, found.unit)}, n {found.n}"
    written = ""
    if ratio is not None:
        written = f"× {ratio.ratio:.3f} {_plain(ratio.interval)}".rstrip()
    width = round(100 * found.median / top, 1) if top > 0 else 0.0
    return TimingCell(colour, text.quantity(found.median, found.unit), spread, width, written, found.weak or "")


def _plain(found: Interval | None) -> str:
    return "" if found is None else text.interval(found, 3, sign=False)


def weak_notes(summaries: Sequence[TimingSummary]) -> tuple[str, ...]:
    """Why figures are weak: each reason once, after the quantities and variants that it holds for."""
    reasons = dict.fromkeys(one.weak for one in summaries if one.weak)
    return tuple(f"{_whom(reason, summaries)}: {reason}" for reason in reasons)


def _whom(reason: str, summaries: Sequence[TimingSummary]) -> str:
    named = []
    for name in dict.fromkeys(one.name for one in summaries if one.weak == reason):
        measured = [one for one in summaries if one.name == name]
        weak = [one.variant for one in measured if one.weak == reason]
        named.append(TIMING_TITLES[name] + ("" if len(weak) == len(measured) else f" of {text.listed(weak)}"))
    return "; ".join(named)


def pixel_rows(run: Run, means: Sequence[MetricMean], deltas: Sequence[Delta]) -> tuple[PixelRow, ...]:
    """The descriptive metrics (axes pixels and distance) by variant, with the difference to the reference."""
    names = [variant.name for variant in run.info.suite.variants]
    by_place = {(one.metric, one.variant): one for one in means}
    by_pair = {(one.metric, one.candidate): one for one in deltas if one.tag is None and one.reference == names[0]}
    rows = []
    for facts in run.info.metrics:
        own = [by_place.get((facts.name, name)) for name in names]
        if facts in headline_metrics(run.info.metrics) or not any(one and one.prompts for one in own):
            continue
        others = [by_pair[facts.name, name] for name in names if (facts.name, name) in by_pair]
        decimals = text.decimals_of_deltas(others) if others else _mean_decimals(own)
        cells = []
        for name, mean in zip(names, own, strict=True):
            delta = by_pair.get((facts.name, name))
            change = f"{text.signed(delta.mean, decimals)} {text.interval(delta.interval, decimals)}" if delta else ""
            cells.append(PixelCell(text.number(mean.mean if mean else None, decimals), change))
        rows.append(PixelRow(facts.name, facts.unit, tuple(cells)))
    return tuple(rows)


def _mean_decimals(means: Sequence[MetricMean | None]) -> int:
    intervals = [one.interval for one in means if one is not None and one.interval is not None]
    return text.decimals_for(text.scale_of((one.high - one.low) / 2 for one in intervals))
