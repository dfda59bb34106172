"""Run -> what the report says, as text and numbers that the templates only lay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import formatting as text
from bench.compare import metric_means, summarize_timings, timing_ratios, variant_pairs
from bench.compare.pairing import usable_scores
from bench.plots.data import PlotData, data_of_run, headline_metrics
from bench.records import Category, Delta, Gate, MetricFacts, Run
from bench.report.audits import AuditView, audit_views
from bench.report.facts import Facts, command, cut_notes, duration, image_banners, provenance_facts, setting_facts, when
from bench.report.gate import GateView, gate_view
from bench.report.headline import Panel, TagTable, Tradeoff, judged, panels, tag_tables, tradeoff
from bench.report.pictures import (
    Grid,
    GridRow,
    Key,
    embed,
    grid_rows,
    grid_view,
    row_keys,
    scored_metrics,
    script_data,
    typical_row,
)
from bench.report.tables import (
    MetricView,
    PixelRow,
    RankingTable,
    SweepTable,
    TimingRow,
    VariantView,
    metric_views,
    pixel_rows,
    ranking_table,
    sweep_table,
    timing_rows,
    variant_views,
    weak_notes,
)

# What a run says, in plain sentences made from its paired differences.


def summary(data: PlotData) -> tuple[str, ...]:
    """One plain sentence a pair: on which judges better, on which worse, on which not told apart."""
    facts = {one.name: one for one in data.metrics}
    pairs = dict.fromkeys((one.candidate, one.reference) for one in data.deltas)
    decimals = {name: text.decimals_of_deltas(one for one in data.deltas if one.metric == name) for name in facts}
    return tuple(
        _sentence(pair, [one for one in data.deltas if (one.candidate, one.reference) == pair], facts, decimals)
        for pair in pairs
    )


def _sentence(
    pair: tuple[str, str], deltas: Sequence[Delta], facts: dict[str, MetricFacts], decimals: dict[str, int]
) -> str:
    groups: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    for delta in deltas:
        groups[judged(delta, facts[delta.metric])].append(
            f"{_WORDS[facts[delta.metric].category]} ({delta.metric} {text.signed(delta.mean, decimals[delta.metric])})"
        )
    clauses = []
    if groups["better"]:
        clauses.append(f"better than {pair[1]} on {text.joined(groups['better'])}")
    if groups["worse"]:
        clauses.append(f"worse {'' if clauses else f'than {pair[1]} '}on {text.joined(groups['worse'])}")
    if groups[""]:
        other = "" if clauses else f" from {pair[1]}"
        clauses.append(f"not told apart{other} on {text.joined(groups[''])}")
    return f"{pair[0]} is {'; '.join(clauses)}."


_WORDS: dict[Category, str] = {"preference": "preference", "aesthetic": "aesthetics", "alignment": "alignment"}


def cautions(data: PlotData) -> tuple[str, ...]:
    """What a reader must know before believing the headline: judges' standing, few prompts, missing scores."""
    found = []
    judges = [facts for facts in data.metrics if facts.category != "alignment"]
    kin = [facts.name for facts in judges if facts.training_overlap == "same data"]
    if kin:
        found.append(
            f"{text.joined(kin)} {'was' if len(kin) == 1 else 'were'} part of the training of preference-optimised "
            "variants (same data): a gain there is expected, and is no evidence of its own."
        )
    if judges and not any(facts.training_overlap == "none" for facts in judges):
        found.append("Every metric of preference or aesthetics in this run shares training data with the variants.")
    prompts = max((one.prompts for one in data.deltas), default=0)
    if 0 < prompts < 30:
        verb = "is" if prompts == 1 else "are"
        found.append(f"{text.plural(prompts, 'prompt')} {verb} few: read the intervals, not the means.")
    return tuple(found)


# Run -> what the report says, as text and numbers that the templates only lay out.

TAG_NOTE = (
    "Paired mean differences over the prompts with a tag, with 95 % intervals: Student's t under 30 prompts, the "
    "bootstrap's from there on. Many rows are looked at together and the intervals are not "
    "widened for that: about one in twenty misses by chance. † marks what holds at 5 % after Holm's correction over "
    "the tags of a pair and metric (sign-flip test)."
)


@dataclass(frozen=True)
class View:
    """Everything that the reports show, in reading order."""

    suite: str
    title: str
    kicker: str
    summary: tuple[str, ...]
    cautions: tuple[str, ...]
    tally: Facts
    banners: tuple[str, ...]
    gate: GateView | None
    typical: GridRow | None
    typical_note: str
    headline_note: str
    panels: tuple[Panel, ...]
    tradeoff: Tradeoff | None
    ranking: RankingTable | None
    sweep: SweepTable | None
    tag_note: str
    tag_tables: tuple[TagTable, ...]
    timing_note: str
    timings: tuple[TimingRow, ...]
    weak_notes: tuple[str, ...]
    pixels: tuple[PixelRow, ...]
    grid: Grid
    settings: Facts
    settings_notes: tuple[str, ...]
    variants: tuple[VariantView, ...]
    audits: tuple[AuditView, ...]
    metrics: tuple[MetricView, ...]
    cut_notes: tuple[str, ...]
    command: str
    provenance: Facts
    packages: Facts
    tool_version: str
    data: Mapping[str, Any]


def build_view(run: Run, deltas: Sequence[Delta], gate: Gate | None = None) -> View:
    """What the reports show of ``run``, of the deltas of ``compare_run`` and of a gate on it; embeds the images.

    Raises:
        InvalidError: a timing of 0 or less (see ``bench.compare.timing.timing_ratios``).
    """
    suite = run.info.suite
    data = data_of_run(run, deltas)
    summaries = summarize_timings(run)
    names = [variant.name for variant in suite.variants]
    pictures, broken = embed(run, row_keys(run))
    metrics = scored_metrics(run)
    rows = grid_rows(run, pictures, broken, metrics[0] if metrics else None)
    pairs = _pairs(run)
    typical, typical_note = _typical(run, rows)
    return View(
        suite=suite.name,
        title=text.joined(names) if len(names) <= 4 else f"{len(names)} variants",
        kicker=f"Suite {suite.name}, started on {when(run.info.start)}",
        summary=summary(data) or (_unjudged(run),),
        cautions=cautions(data),
        tally=_tally(run),
        banners=banners(run, broken),
        gate=None if gate is None else gate_view(run, gate, {(row.prompt_id, row.sample): row.index for row in rows}),
        typical=typical,
        typical_note=typical_note,
        headline_note=_headline_note(data),
        panels=panels(data),
        tradeoff=tradeoff(data),
        ranking=ranking_table(run),
        sweep=sweep_table(run, deltas),
        tag_note=TAG_NOTE,
        tag_tables=tag_tables(data, deltas),
        timing_note=_timing_note(names),
        timings=timing_rows(names, summaries, timing_ratios(run)),
        weak_notes=weak_notes(summaries),
        pixels=pixel_rows(run, metric_means(run), deltas),
        grid=grid_view(run, rows, pairs, pictures),
        settings=setting_facts(run),
        settings_notes=run.info.settings_notes,
        variants=variant_views(run),
        audits=audit_views(run),
        metrics=metric_views(run.info.metrics),
        cut_notes=cut_notes(run),
        command=command(run),
        provenance=provenance_facts(run, gate),
        packages=tuple(sorted(run.info.packages.items())),
        tool_version=run.info.packages.get("hotart-bench", ""),
        data=script_data(run, rows, pairs),
    )


def banners(run: Run, broken: Mapping[Key, str]) -> tuple[str, ...]:
    """What is wrong or unfinished about a run, most serious first."""
    info, found = run.info, []
    wanted = len(info.suite.prompts) * info.suite.samples * len(info.suite.variants)
    if info.status == "started":
        found.append(
            f"This run is not finished: {len(run.renders):,} of {wanted:,} images are recorded, and all below may "
            "change. The same command continues it."
        )
    if info.status == "failed":
        found.append("This run ended with an error. What was made until then is below; the same command continues it.")
    found += image_banners(run)
    if broken:
        found.append(f"{text.plural(len(broken), 'image file')} of the run folder could not be read.")
    if info.suite.limit is not None:
        found.append(f"Only the first {text.plural(info.suite.limit, 'prompt')}: a run for trying out.")
    return tuple(found)


def _pairs(run: Run) -> tuple[tuple[str, str], ...]:
    """The pairs to sort by, first the one that a reader asks for: spo, else the last variant, against the reference."""
    pairs = variant_pairs(run.info.suite)
    against = [pair for pair in pairs if pair[1] == run.info.suite.variants[0].name]
    first = next((pair for pair in against if pair[0] == "spo"), against[-1] if against else None)
    return tuple(sorted(pairs, key=lambda pair: pair != first))


def _typical(run: Run, rows: Sequence[GridRow]) -> tuple[GridRow | None, str]:
    metrics, pairs = headline_metrics(run.info.metrics), _pairs(run)
    if not metrics or not pairs:
        return None, ""
    row = typical_row(run, rows, metrics[0].name, pairs[0])
    candidate, reference = pairs[0]
    note = (
        f"The typical row, chosen by number: its difference in {metrics[0].name} between {candidate} and "
        f"{reference} is the median of all rows."
    )
    return row, note


def _unjudged(run: Run) -> str:
    scored = bool(usable_scores(run))
    if len(run.info.suite.variants) < 2:
        return "One variant: there is nothing to compare it with."
    return "No judge has scored both sides of a pair yet." if scored else "Nothing has been scored yet."


def _tally(run: Run) -> Facts:
    info = run.info
    made = sum(one.image is not None for one in run.renders)
    facts = [
        ("prompts", f"{len(info.suite.prompts):,}"),
        ("variants", str(len(info.suite.variants))),
        ("images", f"{made:,}"),
    ]
    if info.end is not None:
        facts.append(("from start to end", duration(info.start, info.end)))
    return tuple(facts)


def _headline_note(data: PlotData) -> str:
    method = next((one.interval.method for one in data.deltas if one.interval), "")
    small = any(one.small_sample for one in data.deltas)
    note = (
        "Preference and aesthetics on one axis, alignment with the prompt on the other. Images are paired by prompt "
        f"and {'sample' if data.suite.external_images else 'noise'}, the samples of a prompt averaged first. Dots are "
        "mean differences, bars 95 % intervals"
    )
    note += f" ({method})" if method else ""
    note += "; faint strokes are single prompts."
    return note + (" Under 30 prompts a t interval stands beside." if small else "")


def _timing_note(names: Sequence[str]) -> str:
    note = "Medians over all rounds, each in a fresh process."
    ratio = f" × is the ratio to {names[0]} with its 95 % interval (Student's t over rounds: few of them make it wide)."
    return note + (ratio if len(names) > 1 else "")
