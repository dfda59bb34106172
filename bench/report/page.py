"""Run -> what the reports show: records and sentences that the templates lay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import formatting as text
from bench.compare import metric_means, summarize_timings, timing_ratios, variant_pairs
from bench.compare.finding import find_in_run
from bench.compare.headline import headline_metrics
from bench.compare.pairing import usable_scores
from bench.compare.rates import rate_changes
from bench.compare.sweep import sweep_curve
from bench.measure import open_jobs
from bench.plots.data import PlotData, data_of_run
from bench.records import (
    Delta,
    Finding,
    Gate,
    Ranking,
    RateChange,
    Ratio,
    Run,
    SweepCurve,
    TimingName,
    TimingSummary,
    Verdict,
)
from bench.report.copies import EMBEDDED_PX
from bench.report.faces import face_data
from bench.report.facts import Facts, elapsed, image_banners, provenance_facts
from bench.report.gate import WorstPair, against, worst_pairs
from bench.report.headline import cautions, headline_note, summary
from bench.report.pictures import (
    MOST_STATIC_ROWS,
    GridRow,
    Key,
    Picture,
    embed,
    grid_note,
    grid_rows,
    row_keys,
    scored_metrics,
    script_data,
    typical_row,
)
from bench.report.sets import SetsView, sets_view
from bench.report.skills import SkillTable, skill_tables
from bench.report.steps import StepsView, steps_view
from bench.report.tables import DescriptiveRow, TagTable, descriptive_rows, rankings_of, tag_tables, weak_notes
from bench.report.votes import VotesView, votes_view
from bench.store import load_answers, load_faces, load_steps


@dataclass(frozen=True)
class View:
    """What the reports show of a run, computed once for both: records, and sentences about them."""

    run: Run
    gate: Gate | None
    title: str
    findings: tuple[Finding, ...]
    summary: tuple[str, ...]
    cautions: tuple[str, ...]
    banners: tuple[str, ...]
    tally: Facts
    provenance: Facts
    differences: PlotData
    headline_note: str
    rankings: tuple[Ranking, ...]
    votes: VotesView | None
    sets: SetsView | None
    sweep: SweepCurve | None
    steps: StepsView | None
    tag_tables: tuple[TagTable, ...]
    skill_tables: tuple[SkillTable, ...]
    timings: Mapping[TimingName, Mapping[str, TimingSummary]]
    """By quantity, then by variant."""
    ratios: Mapping[tuple[TimingName, str], Ratio]
    """To the first variant, by quantity and candidate."""
    weak_notes: tuple[str, ...]
    pixels: tuple[DescriptiveRow, ...]
    safety: tuple[DescriptiveRow, ...]
    faces: tuple[DescriptiveRow, ...]
    rates: tuple[RateChange, ...]
    rows: tuple[GridRow, ...]
    grid_note: str
    typical: GridRow | None
    typical_note: str
    worst: tuple[tuple[Verdict, list[WorstPair]], ...]
    worst_note: str
    data: Mapping[str, Any]
    """For the page's script."""

    @property
    def variants(self) -> list[str]:
        """The names of the suite's variants, in the order of their colours."""
        return [variant.name for variant in self.run.info.suite.variants]

    @property
    def static_rows(self) -> list[GridRow]:
        """The rows that ``report.html`` shows without its script: all, or of many those with pictures."""
        few = len(self.rows) <= MOST_STATIC_ROWS
        return [row for row in self.rows if few or any(cell.picture for cell in row.cells)]


Shown = tuple[Mapping[Key, Picture], Mapping[Key, str]]
"""The pictures of a page, and what is broken, as ``bench.report.pictures.embed`` gives them."""


def build_view(
    run: Run,
    deltas: Sequence[Delta],
    gate: Gate | None = None,
    beside: Shown | None = None,
    home: str = "",
    *,
    keep: bool = False,
) -> View:
    """What the reports show of ``run``, of the deltas of ``compare_run`` and of a gate on it.

    The images are embedded, unless ``beside`` has pictures that lie beside the page, whose way to the run's files
    begins with ``home``. With ``keep`` small copies of embedded ones are kept in the run folder.

    Raises:
        InvalidError: a timing of 0 or less (see ``bench.compare.timing.timing_ratios``).
    """
    suite = run.info.suite
    data = data_of_run(run, deltas)
    summaries = summarize_timings(run)
    timings: dict[TimingName, dict[str, TimingSummary]] = {}
    for one in summaries:
        timings.setdefault(one.name, {})[one.variant] = one
    names = [variant.name for variant in suite.variants]
    pictures, broken = embed(run, row_keys(run), keep=keep) if beside is None else beside
    metrics, means = scored_metrics(run), metric_means(run)
    rows = grid_rows(run, pictures, broken, metrics[0] if metrics else None)
    pairs = _pairs(run)
    typical, typical_note = _typical(run, rows, pairs)
    numbers = {(row.prompt.id, row.sample): row.index for row in rows}
    worst_note, worst = ("", ()) if gate is None else worst_pairs(run, gate, numbers)
    curve = sweep_curve(run, deltas)
    return View(
        run=run,
        gate=gate,
        title=text.joined(names) if len(names) <= 4 else f"{len(names)} variants",
        findings=find_in_run(run, variant_pairs(suite)),
        summary=summary(data) or (_without_comparison(run, gate),),
        cautions=cautions(data),
        banners=banners(run, broken),
        tally=_tally(run),
        provenance=provenance_facts(run, gate),
        differences=data,
        headline_note=headline_note(data),
        rankings=rankings_of(run),
        votes=votes_view(run),
        steps=steps_view(run, load_steps(run.path), deltas, variant_pairs(suite)),
        sets=sets_view(run, means, deltas),
        sweep=curve if curve is not None and any(point.deltas for point in curve.points) else None,
        tag_tables=tag_tables(data.metrics, deltas),
        skill_tables=skill_tables(run, load_answers(run.path)),
        timings=timings,
        ratios={(one.name, one.candidate): one for one in timing_ratios(run) if one.reference == names[0]},
        weak_notes=weak_notes(summaries),
        pixels=descriptive_rows(run, means, deltas),
        safety=descriptive_rows(run, means, deltas, "safety"),
        faces=descriptive_rows(run, means, deltas, "faces"),
        rates=rate_changes(run, variant_pairs(suite)),
        rows=rows,
        grid_note=grid_note(run, pictures, beside is not None),
        typical=typical,
        typical_note=typical_note,
        worst=worst,
        worst_note=worst_note,
        data=script_data(run, rows, pairs, home)
        | {
            "faces": face_data(run, [(row.prompt.id, row.sample) for row in rows], load_faces(run.path)),
            "copies": EMBEDDED_PX if beside is None and any(one.reduced for one in pictures.values()) else 0,
        },
    )


def banners(run: Run, broken: Mapping[Key, str]) -> tuple[str, ...]:
    """What is wrong or unfinished about a run, most serious first."""
    info, found = run.info, []
    wanted = len(info.suite.prompts) * info.suite.samples * len(info.suite.variants)
    if info.status == "started":
        lacking = "" if len(run.renders) < wanted else ", and what is missing are scores or image files"
        found.append(
            f"This run is not finished: {len(run.renders):,} of {wanted:,} images are recorded{lacking}. All below may "
            "change; the same command continues it."
        )
    waiting = open_jobs(info.suite, info.suite.variants, run.timings, info.machine.device)
    if waiting and info.status == "complete":
        planned = info.suite.measure.rounds * len(info.suite.variants)
        found.append(
            f"Not all timings are there: {len(waiting):,} of {planned:,} rounds are missing. hotart-bench measure "
            "takes them; [measure] rounds = 0 in the suite leaves timing out."
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


def _typical(run: Run, rows: Sequence[GridRow], pairs: Sequence[tuple[str, str]]) -> tuple[GridRow | None, str]:
    metrics = headline_metrics(run.info.metrics)
    if not metrics or not pairs:
        return None, ""
    candidate, reference = pairs[0]
    note = (
        f"The typical row, chosen by number: its difference in {metrics[0].name} between {candidate} and "
        f"{reference} is the median of all rows."
    )
    return typical_row(run, rows, metrics[0].name, pairs[0]), note


def _without_comparison(run: Run, gate: Gate | None) -> str:
    if len(run.info.suite.variants) < 2:
        if gate is not None:
            return f"One variant: {against(gate)[0].lower()}{against(gate)[1:]}"
        return "One variant, so nothing in this run to compare it with; hotart-bench gate compares it with a baseline."
    if usable_scores(run):
        return "No metric has scores of both sides of a pair yet."
    return "Nothing has been scored yet."


def _tally(run: Run) -> Facts:
    info = run.info
    made = sum(one.image is not None for one in run.renders)
    facts = [("prompts", f"{len(info.suite.prompts):,}"), ("variants", str(len(info.suite.variants)))]
    facts.append(("images", f"{made:,}"))
    return (*facts, *([] if info.end is None else [("from start to end", elapsed(info.start, info.end))]))
