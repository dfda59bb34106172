"""``compare``: what a finished run, or two of them, say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar, cast, get_args

import msgspec
import typer

from bench.cli import options
from bench.cli.options import AsJson, Metrics, RunFolder, SecondRun
from bench.cli.printing import Column, print_json, print_table, printable, say
from bench.cli.verbs import group, verb
from bench.errors import UsageError
from bench.formatting import decimals_for, holds, interval, number, percent, plural, quantity, set_letters, signed
from bench.records import Delta, MetricFacts, Ranking, Ratio, Record, Run, TimingSummary

# A comparison as tables: for each pair of variants the scores, then the times and the memory.

Paired = TypeVar("Paired", Delta, Ratio)


class Comparison(Record, frozen=True):
    """What ``compare`` found; ``--json`` prints it as it is."""

    deltas: tuple[Delta, ...]
    """With ``--tag`` those of the tag; with ``--json`` alone those of all prompts and of every tag."""
    ratios: tuple[Ratio, ...] = ()
    """Timings of candidate over reference. None for two runs: ratios hold within a run, side by side."""
    timings: tuple[TimingSummary, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    """Of the three or more variants of one run; none with ``--tag`` or ``--pairs``, which choose among them."""


def print_comparison(comparison: Comparison, metrics: Sequence[MetricFacts]) -> None:
    """Prints a comparison on stdout, pair by pair; ``metrics`` tell which way is better."""
    pairs = dict.fromkeys((item.candidate, item.reference) for item in comparison.deltas + comparison.ratios)
    if not pairs:
        say("There is nothing to compare: no two variants with scores or timings.")
    for candidate, reference in pairs:
        deltas = _of_pair(comparison.deltas, candidate, reference)
        print(printable(f"{candidate} against {reference}{_behind(deltas)}\n"))
        if deltas:
            _print_deltas(deltas, {facts.name: facts.higher_is_better for facts in metrics})
        ratios = _of_pair(comparison.ratios, candidate, reference)
        if ratios:
            _print_ratios(ratios, comparison.timings)
    for ranking in comparison.rankings:
        _print_ranking(ranking)
    for note in _footnotes(comparison):
        print(note)


def _of_pair(items: Sequence[Paired], candidate: str, reference: str) -> list[Paired]:
    return [item for item in items if (item.candidate, item.reference) == (candidate, reference)]


def _behind(deltas: Sequence[Delta]) -> str:
    """What stands behind a pair's scores; a metric with less of it is counted in the footnotes."""
    if not deltas:
        return ""
    most = max(deltas, key=lambda delta: delta.samples)
    tag = "" if most.tag is None else f" tagged {most.tag}"
    return f" ({plural(most.prompts, 'prompt')}{tag}, {plural(most.samples, 'pair')} of images)"


def _print_deltas(deltas: Sequence[Delta], better: dict[str, bool | None]) -> None:
    headings = ("reference", "candidate", "delta", "interval", "wins")
    columns = [Column("metric"), *(Column(heading, number=True) for heading in headings)]
    print_table(columns, [_delta_row(delta, better.get(delta.metric)) for delta in deltas])
    print()


def _delta_row(delta: Delta, higher_is_better: bool | None) -> list[str]:
    found = delta.interval
    decimals = decimals_for((found.high - found.low) / 2 if found else abs(delta.mean))
    return [
        delta.metric,
        number(delta.reference_mean, decimals),
        number(delta.candidate_mean, decimals),
        signed(delta.mean, decimals),
        interval(found, decimals) + ("†" if holds(delta) else " "),
        # Of a metric that only describes, no side can win.
        "" if higher_is_better is None else percent(delta.win_rate),
    ]


def _print_ratios(ratios: Sequence[Ratio], timings: Sequence[TimingSummary]) -> None:
    summaries = {(summary.variant, summary.name): summary for summary in timings}
    rows = []
    for ratio in ratios:
        above, below = summaries[ratio.candidate, ratio.name], summaries[ratio.reference, ratio.name]
        rows.append(
            [
                ratio.name + ("*" if above.weak or below.weak else ""),
                quantity(below.median, below.unit),
                quantity(above.median, above.unit),
                f"{ratio.ratio:.3f}",
                interval(ratio.interval, 3, sign=False),
            ]
        )
    headings = ("reference", "candidate", "ratio", "interval")
    print_table([Column("median of"), *(Column(heading, number=True) for heading in headings)], rows)
    print()


def _print_ranking(ranking: Ranking) -> None:
    left_out = f"; without a score: {', '.join(ranking.left_out)}" if ranking.left_out else ""
    print(printable(f"Ranking by {ranking.metric} ({plural(ranking.prompts, 'prompt')}{left_out})\n"))
    decimals = decimals_for(max(one.interval.high - one.interval.low for one in ranking.strengths) / 2)
    rows = [
        [
            one.variant,
            signed(one.strength, decimals),
            interval(one.interval, decimals),
            f"{one.wins:,} / {one.ties:,} / {one.losses:,}",
            set_letters(one.variant, ranking.tied_sets),
        ]
        for one in ranking.strengths
    ]
    headings = ("strength", "interval", "won / tied / lost")
    print_table([Column("variant"), *(Column(heading, number=True) for heading in headings), Column("set")], rows)
    print()


def _footnotes(comparison: Comparison) -> list[str]:
    notes = []
    found = [delta.interval for delta in comparison.deltas if delta.interval is not None]
    if found:
        notes.append(f"Intervals: {found[0].level:.0%}, {found[0].method}.")
    spans = [ratio.interval for ratio in comparison.ratios if ratio.interval is not None]
    if spans:
        notes.append(f"Intervals of ratios: {spans[0].level:.0%}, {spans[0].method}; few rounds make them wide.")
    if any(holds(delta) for delta in comparison.deltas):
        tagged = any(delta.tag is not None for delta in comparison.deltas)
        family = "the tags of a metric" if tagged else "the metrics of a pair"
        notes.append(f"† holds at 5%, by Holm over {family}; --json has the p-values.")
    if any(delta.small_sample is not None for delta in comparison.deltas):
        notes.append("Under 30 prompts these are a little narrow; --json has t intervals as well.")
    if comparison.rankings:
        notes.append("Strength: log odds of winning a prompt, by Davidson's model.")
        notes.append("Variants that share a letter are not told apart at 5%, by Holm over the pairs.")
    missing = max((delta.missing for delta in comparison.deltas), default=0)
    if missing:
        notes.append(f"{plural(missing, 'pair')} of images left out of a metric: one side has no score.")
    if comparison.ratios and any(summary.weak for summary in comparison.timings):
        notes.append("* weak: few values, a wide spread or foreign load; --json says which.")
    return notes


# ``compare`` and ``plot``: what a finished run, or two of them, say.

app = group("What finished runs say.")

PairsFlag = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="A:B,C:D",
        help="Compare A with B and C with D.  [default: each variant with the first, and spo with dpo]",
    ),
]


@verb(
    app,
    "compare",
    "hotart-bench compare reports/runs/mini",
    "hotart-bench compare reports/runs/mini --pairs spo:dpo --tag portrait",
    "hotart-bench compare runs/new runs/old --json",
)
def compare(
    run: RunFolder,
    run2: SecondRun = None,
    pairs: PairsFlag = None,
    metrics: Metrics = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only prompts with this tag.")] = None,
    json: AsJson = False,
) -> None:
    """Paired differences between variants, or between two runs.

    The prompt is the unit; the same prompt and noise stand on both sides of a pair. Three or more variants of a
    run are ranked as well, unless --pairs or --tag choose among them.
    """
    from bench.compare import compare_run, compare_runs, rank_variants
    from bench.store import load_run

    candidate = load_run(run)
    reference = None if run2 is None else load_run(run2)
    names = split_pairs(pairs)
    chosen = options.split_names(metrics, "--metrics")
    by_tag = json or tag is not None
    if reference is None:
        deltas = compare_run(candidate, pairs=names, metrics=chosen, tags=by_tag)
    else:
        deltas = compare_runs(candidate, reference, pairs=names, metrics=chosen, tags=by_tag)
    if tag is not None:
        deltas = _with_tag(deltas, tag, candidate)
    comparison = Comparison(deltas=deltas) if reference else _with_timings(deltas, candidate, names)
    if reference is None and names is None and tag is None:
        comparison = msgspec.structs.replace(comparison, rankings=rank_variants(candidate, metrics=chosen))
    if json:
        print_json(comparison)
    else:
        print_comparison(comparison, candidate.info.metrics)


@verb(
    app,
    "plot",
    "hotart-bench plot reports/runs/mini",
    "hotart-bench plot reports/runs/mini -o figures --format svg",
    "hotart-bench plot runs/new runs/old -o figures --dpi 300",
)
def plot(
    run: RunFolder,
    run2: SecondRun = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where to.  [default: plots in the folder of RUN]"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="png, svg or pdf.")] = "png",
    dpi: Annotated[int, typer.Option("--dpi", metavar="N", help="Dots per inch of a PNG, 50 to 1200.")] = 150,
) -> None:
    """Draw the comparison plots of a run, or of two."""
    from bench.compare import compare_run, compare_runs
    from bench.compare.sweep import sweep_curve
    from bench.plots import write_plots, write_plots_for_runs, write_sweep_plot
    from bench.plots.data import unlike_machines
    from bench.plots.gate import write_gate_plot
    from bench.plots.style import Format
    from bench.report import gate_of
    from bench.store import load_run

    options.check_known((format_,), "--format", get_args(Format), "hotart-bench plot --help")
    fmt = cast(Format, format_)
    candidate = load_run(run)
    home = Path(candidate.path)
    if run2 is None:
        deltas = compare_run(candidate, tags=False)
        written = write_plots(candidate, deltas, output or home / "plots", fmt, dpi)
        gate = gate_of(candidate)
        if gate is not None:
            written += write_gate_plot(gate, output or home / "plots", fmt, dpi)
        curve = sweep_curve(candidate, deltas)
        if curve is not None:
            written += write_sweep_plot(curve, candidate.info.metrics, output or home / "plots", fmt, dpi)
    else:
        reference = load_run(run2)
        folder = output or home / f"plots-against-{Path(reference.path).resolve().name}"
        deltas = compare_runs(candidate, reference, tags=False)
        written = write_plots_for_runs(candidate, reference, deltas, folder, fmt, dpi)
        if unlike := unlike_machines(candidate, reference):
            say(f"Latency and memory are left out: the runs are of unlike machines ({'; '.join(unlike)}).")
    for path in written:
        print(printable(str(path)))
    if not written:
        say("There is nothing to draw: no scores and no timings.")


def split_pairs(text: str | None) -> tuple[tuple[str, str], ...] | None:
    """``spo:dpo,spo:base`` as (candidate, reference) pairs; UsageError where it is not of that form."""
    pairs = []
    for pair in options.split_names(text, "--pairs") or ():
        candidate, colon, reference = pair.partition(":")
        if not (candidate and colon and reference) or ":" in reference:
            raise UsageError(
                f"--pairs: {pair!r} is not of the form CANDIDATE:REFERENCE, such as spo:base.",
                "hotart-bench compare --help",
            )
        pairs.append((candidate, reference))
    return tuple(pairs) or None


def _with_tag(deltas: tuple[Delta, ...], tag: str, run: Run) -> tuple[Delta, ...]:
    from bench.compare import MIN_TAG_PROMPTS

    prompts = run.info.suite.prompts
    known = sorted({tag for prompt in prompts for tag in prompt.tags})
    options.check_known((tag,), "--tag", known, f"hotart-bench compare {run.path}")
    chosen = tuple(delta for delta in deltas if delta.tag == tag)
    if not chosen:
        count = sum(tag in prompt.tags for prompt in prompts)
        raise UsageError(f"--tag: {tag!r} is on {count} prompts of {run.path}; {MIN_TAG_PROMPTS} must have scores.")
    return chosen


def _with_timings(deltas: tuple[Delta, ...], run: Run, pairs: tuple[tuple[str, str], ...] | None) -> Comparison:
    from bench.compare import summarize_timings, timing_ratios, variant_pairs

    chosen = variant_pairs(run.info.suite) if pairs is None else pairs
    return Comparison(deltas=deltas, ratios=timing_ratios(run, pairs=chosen), timings=summarize_timings(run))
