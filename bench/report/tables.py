"""The report's tables: variants, metrics, timings, pixel statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import formatting as text
from bench.compare import rank_variants
from bench.compare.sweep import PIXEL_SHIFT, sweep_curve
from bench.plots import TIMING_TITLES
from bench.plots.data import headline_metrics
from bench.records import (
    Delta,
    Fingerprint,
    Interval,
    Lora,
    MetricFacts,
    MetricMean,
    Ranking,
    Ratio,
    Run,
    SweepPoint,
    TimingName,
    TimingSummary,
    Variant,
    WeightFile,
)
from bench.report.headline import way

# The report's tables: variants, metrics, timings, pixel statistics.

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
    training_overlap: str
    category: str
    unit: str
    direction: str
    range: str
    encoder: str
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
        version=facts.full_version,
        summary=facts.summary,
        training_overlap=facts.training_overlap,
        category=facts.category,
        unit=facts.unit,
        direction=("descriptive", "higher is better ↑", "lower is better ↓")[way(facts)],
        range=f"{ends[0]} to {ends[1]}" if bounded else "unbounded",
        encoder=facts.encoder or "",
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
        named.append(TIMING_TITLES[name] + ("" if len(weak) == len(measured) else f" of {text.joined(weak)}"))
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


# The report's ranking: three or more variants by the prompts they win, one column a judge.


@dataclass(frozen=True)
class RankingCell:
    """One variant's strength by one judge, and the letters of the tied sets it is in."""

    strength: str
    interval: str
    letters: str


@dataclass(frozen=True)
class RankingRow:
    """One variant; None where a judge has no score of it."""

    variant: str
    colour: int
    cells: tuple[RankingCell | None, ...]


@dataclass(frozen=True)
class RankingTable:
    """The variants, the strongest by the first judge first."""

    note: str
    metrics: tuple[str, ...]
    rows: tuple[RankingRow, ...]


def ranking_table(run: Run) -> RankingTable | None:
    """The judges' rankings of the run's variants; None where there are fewer than three to rank."""
    judges = [facts.name for facts in headline_metrics(run.info.metrics)]
    rankings = sorted(rank_variants(run, metrics=judges), key=lambda one: judges.index(one.metric))
    if not rankings:
        return None
    names = [variant.name for variant in run.info.suite.variants]
    order = dict.fromkeys([one.variant for one in rankings[0].strengths] + names)
    columns = [_cells(one) for one in rankings]
    return RankingTable(
        note=_note(rankings),
        metrics=tuple(one.metric for one in rankings),
        rows=tuple(
            RankingRow(name, names.index(name) % 8, tuple(column.get(name) for column in columns)) for name in order
        ),
    )


def _cells(ranking: Ranking) -> dict[str, RankingCell]:
    decimals = text.decimals_for(max(one.interval.high - one.interval.low for one in ranking.strengths) / 2)
    return {
        one.variant: RankingCell(
            text.signed(one.strength, decimals),
            text.interval(one.interval, decimals),
            text.set_letters(one.variant, ranking.tied_sets),
        )
        for one in ranking.strengths
    }


def _note(rankings: list[Ranking]) -> str:
    counts = sorted({one.prompts for one in rankings})
    prompts = text.plural(counts[-1], "prompt") if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} prompts"
    return (
        f"How often a variant is better, not by how much: any two meet on {prompts}, and one wins or they tie. "
        "Strengths are log odds by Davidson's model with 95 % intervals; one point more wins 2.7 prompts for each "
        "that is lost. "
        "Variants that share a letter are not told apart (sign-flip test at 5 %, Holm over the pairs)."
    )


# The report's section on a sweep: a row a weight.


@dataclass(frozen=True)
class SweepRow:
    """One weight: differences to the weight 0 as text, in the order of the table's metrics."""

    weight: str
    cells: tuple[str, ...]
    shift: str
    on_front: bool


@dataclass(frozen=True)
class SweepTable:
    """The weights of a swept LoRA, rising."""

    lora: str
    note: str
    metrics: tuple[str, ...]
    rows: tuple[SweepRow, ...]


def sweep_table(run: Run, deltas: Sequence[Delta]) -> SweepTable | None:
    """The table of a run of ``hotart-bench sweep``; None for another run, or before anything was scored."""
    curve, sweep = sweep_curve(run, deltas), run.info.suite.sweep
    if curve is None or sweep is None or not any(point.deltas for point in curve.points):
        return None
    names = [facts.name for facts in headline_metrics(run.info.metrics)]
    shown = [name for name in names if any(name in point.deltas for point in curve.points)]
    return SweepTable(
        lora=sweep.lora,
        note=_sweep_note(curve.goals, [point for point in curve.points if point.on_front]),
        metrics=tuple(shown),
        rows=tuple(_row(point, shown) for point in curve.points),
    )


def _sweep_note(goals: Sequence[str], front: Sequence[SweepPoint]) -> str:
    told = "Differences to the weight 0, with 95 % intervals."
    if goals:
        best = text.joined([f"{point.weight:g}" for point in front]) if front else "none"
        wanted = text.joined(["how little the pixels move" if name == PIXEL_SHIFT else name for name in goals])
        told += (
            f" On the Pareto front (★: {best}) is a weight that no other one matches in {wanted} while beating it in "
            "one of these, by the means."
        )
    return (
        f"{told} The pixel shift is the root mean square difference of the statistics of the pixels, in standard "
        "deviations of the prompts at weight 0."
    )


def _row(point: SweepPoint, metrics: Sequence[str]) -> SweepRow:
    return SweepRow(
        weight=f"{point.weight:g}",
        cells=tuple(_cell(point, name) for name in metrics),
        shift=text.NONE if point.pixel_shift is None else text.number(point.pixel_shift, 2),
        on_front=point.on_front,
    )


def _cell(point: SweepPoint, metric: str) -> str:
    delta = point.deltas.get(metric)
    if delta is None:
        return "0" if point.weight == 0 else text.NONE
    decimals = text.decimals_of_deltas([delta])
    return f"{text.signed(delta.mean, decimals)} {text.interval(delta.interval, decimals)}"
