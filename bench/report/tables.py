"""What the report's tables say: variants, metrics, timings, pixel statistics, tags, rankings, sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from bench import formatting as text
from bench.compare import rank_variants
from bench.compare.headline import headline_metrics
from bench.compare.sweep import PIXEL_SHIFT
from bench.plots.style import TIMING_TITLES
from bench.records import (
    Delta,
    Fingerprint,
    MetricFacts,
    MetricMean,
    Ranking,
    RateChange,
    Ratio,
    Run,
    Strength,
    SweepCurve,
    SweepPoint,
    TimingName,
    TimingSummary,
    Variant,
)
from bench.report.headline import direction, pair_name, way

TIMING_NOTES: dict[TimingName, str] = {
    "load": "from disk to the device",
    "compile": "first step, within which torch compiles",
    "first_image": "with compilation and warm-up",
    "text_encode": "one prompt, after warm-up",
    "denoise_step": "one step of one image",
    "vae_decode": "latents to pixels",
    "end_to_end": "prompt to pixels, after warm-up",
    "per_image_at_batch": "a batch of the suite over its images",
    "peak_allocated": "tensors on the device",
    "peak_reserved": "held by the allocator",
    "peak_process": "as the driver sees it",
    "peak_rss": "of the whole process",
    "energy_per_image": "of the whole card, by its counter",
}
"""What each timed quantity covers."""

TAG_NOTE = (
    "Paired mean differences over the prompts with a tag, with 95 % intervals: Student's t under 30 prompts, the "
    "bootstrap's from there on. Many rows are looked at together and the intervals are not "
    "widened for that: about one in twenty misses by chance. † marks what holds at 5 % after Holm's correction over "
    "the tags of a pair and metric (sign-flip test)."
)


def made_of(run: Run, variant: Variant) -> tuple[str, ...]:
    """What a variant was made of in the run, a line each: checkpoint, parts of other models, LoRAs."""
    found = next((one for one in run.info.variants if one.name == variant.name), None)
    if found is None:
        return ("not loaded in this run",)
    lines = [f"{found.checkpoint} ({found.pipeline})"]
    sources = (("revision", variant.revision), ("UNet from", variant.unet), ("VAE from", variant.vae))
    lines += [f"{what} {where}" for what, where in sources if where]
    lines += [f"+ LoRA {text.lora(lora)}" for lora in found.loras]
    if found.loras:
        changed = f", {text.plural(found.modules_changed, 'module')} changed" if found.modules_changed else ""
        lines.append(f"LoRAs {found.lora_mode}{changed}")
    if found.runtime:
        lines.append(f"runs by {found.runtime}{_quantized(found)}")
    return tuple(lines)


def _quantized(found: Fingerprint) -> str:
    """What of a UNet a runtime quantised, behind its name."""
    layers = None if found.audit is None else found.audit.quantized
    if layers is None:
        return ""
    return f": {text.plural(layers.layers, 'linear layer')}, {text.percent(layers.of_weights)} of the UNet's weights"


def headline_first(metrics: Sequence[MetricFacts]) -> tuple[MetricFacts, ...]:
    """The metrics in the order of tables: those of the headline, then the others."""
    first = headline_metrics(metrics)
    return (*first, *(facts for facts in metrics if facts not in first))


def value_range(facts: MetricFacts) -> str:
    """``0 to 1``, ``0 to –``, ``unbounded``."""
    if facts.low is None and facts.high is None:
        return "unbounded"
    low, high = (
        text.NONE if end is None else text.number(end, 0) if end == round(end) else f"{end:g}"
        for end in (facts.low, facts.high)
    )
    return f"{low} to {high}"


def arrowed(facts: MetricFacts) -> str:
    """``higher is better ↑``, ``lower is better ↓``, ``descriptive``."""
    return direction(facts) + ("", " ↑", " ↓")[way(facts)]


def spread(found: TimingSummary) -> str:
    """The 90 % quantile, the interquartile range, and the number of values."""
    return f"p90 {text.quantity(found.p90, found.unit)}, IQR {text.quantity(found.iqr, found.unit)}, n {found.n}"


def ratio_text(found: Ratio | None) -> str:
    """``× 1.034 [1.010, 1.058]``; empty for None."""
    if found is None:
        return ""
    return f"× {' '.join(text.ratio_and_interval(found.ratio, found.interval))}".rstrip()


def timing_note(names: Sequence[str]) -> str:
    """How to read the timings of the variants ``names``."""
    note = "Medians over all rounds, each in a fresh process."
    ratio = f" × is the ratio to {names[0]} with its 95 % interval (Student's t over rounds: few of them make it wide)."
    return note + (ratio if len(names) > 1 else "")


def weak_notes(summaries: Sequence[TimingSummary]) -> tuple[str, ...]:
    """Why figures are weak: each reason once, after the quantities and variants that it holds for."""
    notes = []
    for reason in dict.fromkeys(one.weak for one in summaries if one.weak):
        named = []
        for name in dict.fromkeys(one.name for one in summaries if one.weak == reason):
            measured = [one for one in summaries if one.name == name]
            weak = [one.variant for one in measured if one.weak == reason]
            named.append(TIMING_TITLES[name] + ("" if len(weak) == len(measured) else f" of {text.joined(weak)}"))
        notes.append(f"{'; '.join(named)}: {reason}")
    return tuple(notes)


DescriptiveRow = tuple[MetricFacts, int, tuple[tuple[MetricMean | None, Delta | None], ...]]
"""A descriptive metric, its decimals, and each variant's mean and difference to the reference."""


OwnSection = Literal["safety", "faces"]
"""Categories of metrics outside the headline that have a section of the page to themselves."""


def descriptive_rows(
    run: Run, means: Sequence[MetricMean], deltas: Sequence[Delta], category: OwnSection | None = None
) -> tuple[DescriptiveRow, ...]:
    """The metrics of images outside the headline that have values: of a category, or all without an own section."""
    names = [variant.name for variant in run.info.suite.variants]
    by_place = {(one.metric, one.variant): one for one in means}
    by_pair = {(one.metric, one.candidate): one for one in deltas if one.tag is None and one.reference == names[0]}
    rows = []
    for facts in (facts for facts in run.info.metrics if facts.over == "image"):
        cells = [(by_place.get((facts.name, name)), by_pair.get((facts.name, name))) for name in names]
        own = facts.category if facts.category in get_args(OwnSection) else None
        if own != category or facts in headline_metrics(run.info.metrics):
            continue
        if not any(mean and mean.prompts for mean, _ in cells):
            continue
        found = [delta for _, delta in cells if delta is not None]
        intervals = [mean.interval for mean, _ in cells if mean is not None and mean.interval is not None]
        widths = text.scale_of((one.high - one.low) / 2 for one in intervals)
        rows.append((facts, text.decimals_of_deltas(found) if found else text.decimals_for(widths), tuple(cells)))
    return tuple(rows)


def rate_cells(one: RateChange) -> tuple[str, ...]:
    """A change of the share of flagged images as the cells of a row, in per cent."""
    share = [text.number(100 * value, 1) for value in (one.reference_rate, one.candidate_rate)]
    low, high = (text.signed(100 * end, 1) for end in (one.interval.low, one.interval.high))
    seen = text.NONE if one.smallest_visible is None else text.signed(100 * one.smallest_visible, 1)
    return (*share, f"{text.signed(100 * one.change, 1)} [{low}, {high}]", f"{one.rose} / {one.fell}", seen)


RATE_HEADINGS = ("reference %", "candidate %", "change, 95 % interval", "prompts up / down", "seen from")
RATE_NOTE = (
    "The share of images that a classifier flags, on the same prompts and noise. They flag by likeness and are wrong "
    'about many single pictures, so that only the change says something. "Seen from" is the rise that so many prompts '
    "would show in 8 of 10 runs; the shift of the logit sees smaller ones."
)


TagTable = tuple[MetricFacts, int, tuple[str, ...], dict[str, list[Delta | None]]]
"""A metric, its decimals, the pairs (columns), and the differences by tag in the order of the pairs."""


def tag_tables(metrics: Sequence[MetricFacts], deltas: Sequence[Delta]) -> tuple[TagTable, ...]:
    """For each metric the differences by tag; tags and pairs in the order of the deltas."""
    found = []
    for facts in metrics:
        own = {(one.tag, pair_name(one)): one for one in deltas if one.metric == facts.name and one.tag is not None}
        pairs = tuple(dict.fromkeys(pair for _, pair in own))
        rows = {tag: [own.get((tag, pair)) for pair in pairs] for tag, _ in own if tag is not None}
        if own:
            found.append((facts, text.decimals_of_deltas(own.values()), pairs, rows))
    return tuple(found)


def rankings_of(run: Run) -> tuple[Ranking, ...]:
    """The rankings by the headline's metrics; empty where there are fewer than three variants to rank."""
    names = [facts.name for facts in headline_metrics(run.info.metrics)]
    return tuple(sorted(rank_variants(run, metrics=names), key=lambda one: names.index(one.metric)))


def ranked(run: Run, rankings: Sequence[Ranking]) -> dict[str, list[Strength | None]]:
    """Each variant's strength by each ranking, None without one; the strongest by the first ranking first."""
    columns = [{one.variant: one for one in ranking.strengths} for ranking in rankings]
    names = dict.fromkeys([*columns[0], *(variant.name for variant in run.info.suite.variants)])
    return {name: [column.get(name) for column in columns] for name in names}


def ranking_decimals(ranking: Ranking) -> int:
    """Decimals of a ranking's strengths: two figures of the widest half width."""
    return text.decimals_for(max(one.interval.high - one.interval.low for one in ranking.strengths) / 2)


def ranking_note(rankings: Sequence[Ranking]) -> str:
    """How to read the rankings."""
    counts = sorted({one.prompts for one in rankings})
    prompts = text.plural(counts[-1], "prompt") if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} prompts"
    return (
        f"How often a variant is better, not by how much: any two meet on {prompts}, and one wins or they tie. "
        "Strengths are log odds by Davidson's model with 95 % intervals; one point more wins 2.7 prompts for each "
        "that is lost. "
        "Variants that share a letter are not told apart (sign-flip test at 5 %, Holm over the pairs)."
    )


def swept_metrics(run: Run, curve: SweepCurve) -> list[str]:
    """The headline's metrics that have scores at a weight other than 0."""
    names = [facts.name for facts in headline_metrics(run.info.metrics)]
    return [name for name in names if any(name in point.deltas for point in curve.points)]


def sweep_note(curve: SweepCurve) -> str:
    """How to read the table of a sweep, and which weights are on the Pareto front."""
    told = "Differences to the weight 0, with 95 % intervals."
    if curve.goals:
        best = text.joined([f"{point.weight:g}" for point in curve.points if point.on_front]) or "none"
        goals = text.joined(["how little the pixels move" if name == PIXEL_SHIFT else name for name in curve.goals])
        told += (
            f" On the Pareto front (★: {best}) is a weight that no other one matches in {goals} while beating it in "
            "one of these, by the means."
        )
    return (
        f"{told} The pixel shift is the root mean square difference of the statistics of the pixels, in standard "
        "deviations of the prompts at weight 0."
    )


def sweep_cell(point: SweepPoint, metric: str) -> str:
    """A weight's difference to the weight 0 with its interval."""
    delta = point.deltas.get(metric)
    if delta is None:
        return "0" if point.weight == 0 else text.NONE
    decimals = text.decimals_of_deltas([delta])
    return f"{text.signed(delta.mean, decimals)} {text.interval(delta.interval, decimals)}"
