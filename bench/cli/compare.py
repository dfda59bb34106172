"""``compare``: what a finished run, or two of them, say."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from bench.cli import options
from bench.cli.grid_results import compare_grid_folder
from bench.cli.options import Metrics, RunFolder, SecondRun
from bench.cli.printing import DONE, Columns, Table, latex, print_json, print_tables, say, show, wrapped
from bench.comparability import common_metrics, run_labels
from bench.compare import (
    MIN_TAG_PROMPTS,
    compare_run,
    compare_runs,
    compare_sets,
    rank_variants,
    rate_changes,
    summarize_timings,
    timing_ratios,
    variant_pairs,
)
from bench.compare.finding import find_in_run, find_in_runs
from bench.compare.tags import ADVICE
from bench.compare.vote_tables import vote_notes, vote_tables
from bench.compare.votes import vote_results
from bench.errors import InvalidError, UsageError
from bench.formatting import (
    NONE,
    argument,
    decimals_for,
    holds,
    interval,
    listed,
    markdown,
    number,
    percent,
    plural,
    quantity,
    ratio_and_interval,
    set_letters,
    signed,
)
from bench.metrics.training_data import SAY_IT, SAY_IT_OF_JUDGE
from bench.records import (
    VOTES_METRIC,
    Delta,
    Finding,
    Interval,
    MetricFacts,
    Ranking,
    RateChange,
    Ratio,
    Run,
    SetDelta,
    TimingSummary,
    VoteResults,
)
from bench.store import load_run
from bench.store.grid import is_grid
from bench.suite.judges import is_of_judge

FORMATS = ("table", "csv", "markdown", "latex", "json")
Paired = TypeVar("Paired", Delta, Ratio)


Pairs = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="A:B,C:D",
        help="Compare A with B and C with D.  [default: each variant with the first, and spo with dpo]",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table, csv, markdown, latex (booktabs) or json; csv and json hold every tag.",
    ),
]


def compare(
    run: RunFolder,
    run2: SecondRun = None,
    pairs: Pairs = None,
    metrics: Metrics = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only prompts with this tag.")] = None,
    format_: Format = "table",
    json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> int:
    """Paired differences between variants, or between two runs.

    The prompt is the unit; the same prompt and noise stand on both sides of a pair. Three or more variants of a
    run are ranked as well, unless --pairs or --tag choose among them. Set metrics, which have one number of many
    images, stand in tables of their own. Of a grid, the difference under each setting, and whether it depends on them.

    Examples:
      hotart-bench compare reports/runs/mini
      hotart-bench compare reports/runs/grid-mini
      hotart-bench compare reports/runs/mini --pairs spo:dpo --tag portrait
      hotart-bench compare reports/runs/mini --format latex
      hotart-bench compare runs/new runs/old --format json
    """
    if json:
        runs = " ".join(argument(one) for one in (run, run2) if one is not None)
        raise UsageError(
            "compare has no --json: its JSON is --format json.", f"hotart-bench compare {runs} --format json"
        )
    options.check_known((format_,), "--format", FORMATS, "hotart-bench compare --help")
    if is_grid(run):
        if run2 is not None or tag is not None:
            flag = "--tag" if run2 is None else run2
            again = f"hotart-bench compare {argument(run)}"
            raise UsageError(f"{run} is a grid; {flag} goes with one of its runs.", again)
        return compare_grid_folder(run, split_pairs(pairs), options.split_names(metrics, "--metrics"), format_)
    candidate = load_run(run)
    reference = None if run2 is None else load_run(run2)
    names = split_pairs(pairs)
    chosen = options.split_names(metrics, "--metrics")
    tags = tag is not None or format_ in ("csv", "json")
    ratios: tuple[Ratio, ...] = ()
    timings: tuple[TimingSummary, ...] = ()
    rates: tuple[RateChange, ...] = ()
    if reference is None:
        deltas = compare_run(candidate, pairs=names, metrics=chosen, tags=tags)
        # Two runs have none: ratios hold within a run, measured side by side.
        ratios = timing_ratios(candidate, pairs=names or variant_pairs(candidate.info.suite))
        timings = summarize_timings(candidate)
        rates = (
            rate_changes(candidate, names or variant_pairs(candidate.info.suite), metrics=chosen) if tag is None else ()
        )
    else:
        deltas = compare_runs(candidate, reference, pairs=names, metrics=chosen, tags=tags)
    sets = _compare_sets(candidate, reference, names, chosen)
    if tag is not None:
        deltas = _with_tag(deltas, tag, candidate)
        sets = tuple(one for one in sets if one.tag == tag)
    whole = reference is None and names is None and tag is None
    rankings = rank_variants(candidate, metrics=chosen) if whole else ()
    votes = vote_results(candidate, names) if reference is None and tag is None and chosen is None else None
    if not deltas and not ratios and not sets and not (votes and votes.pairs):
        raise _nothing_to_compare(run, alone=reference is None and len(candidate.info.suite.variants) < 2)
    findings: tuple[Finding, ...] = ()
    if tag is None and (deltas or votes):
        found = names or tuple(dict.fromkeys(_variants_of(delta, reference) for delta in deltas))
        findings = find_in_run(candidate, found) if reference is None else find_in_runs(candidate, reference, found)
    if left_out := () if names else _left_out(candidate, reference, deltas):
        say(f"Not compared, since there are no scores on both sides: {listed(left_out)}.")
    results = deltas, ratios, timings, rankings, rates, findings, sets, votes
    _print_results(format_, candidate.info.metrics, tag, *results)
    return DONE


def _print_results(
    format_: str,
    metrics: Sequence[MetricFacts],
    tag: str | None,
    deltas: Sequence[Delta],
    ratios: Sequence[Ratio],
    timings: Sequence[TimingSummary],
    rankings: Sequence[Ranking],
    rates: Sequence[RateChange],
    findings: Sequence[Finding],
    sets: Sequence[SetDelta],
    votes: VoteResults | None,
) -> None:
    if format_ == "json":
        results = {"deltas": deltas, "ratios": ratios, "timings": timings, "rankings": rankings, "rates": rates}
        print_json({"findings": findings, **results, "sets": sets, "votes": votes})
        return
    if format_ == "csv":
        show(tidy_csv(deltas, ratios, rankings, rates, findings, sets, votes).removesuffix("\n"))
        return
    describe = {facts.name for facts in metrics if facts.higher_is_better is None}
    shown = [one for one in sets if one.tag == tag]
    tables = [
        *_pair_tables(deltas, ratios, timings, describe),
        *_set_tables(shown, metrics),
        *map(_ranking_table, rankings),
        *_rate_tables(rates),
        *(vote_tables(votes) if votes is not None else ()),
    ]
    _print_findings(format_, findings)
    notes = [*_footnotes(deltas, ratios, timings, rankings), *_set_footnotes(shown)]
    print_tables(format_, tables, notes + ([] if votes is None else vote_notes(votes)))


def _variants_of(delta: Delta, reference: Run | None) -> tuple[str, str]:
    """The names of a difference's variants, without the names of their runs."""
    if reference is None:
        return delta.candidate, delta.reference
    return delta.candidate.rpartition("@")[0], delta.reference.rpartition("@")[0]


def _print_findings(form: str, findings: Sequence[Finding]) -> None:
    """The findings, each its first sentence and below it what it rests on."""
    for one in findings:
        first, *others = one.sentences
        if form == "markdown":
            show("\n".join([f"**{markdown(first)}**", "", *(f"- {markdown(other)}" for other in others), ""]))
        elif form == "latex":
            show("\n".join(f"% {latex(sentence)}" for sentence in one.sentences) + "\n")
        else:
            show("\n".join([wrapped(first), *(wrapped(other, "  ") for other in others), ""]))


def _compare_sets(
    candidate: Run, reference: Run | None, names: Sequence[tuple[str, str]] | None, metrics: Sequence[str] | None
) -> tuple[SetDelta, ...]:
    if reference is None:
        return compare_sets(candidate, names or variant_pairs(candidate.info.suite), metrics=metrics)
    labels = run_labels(candidate, reference)
    shared = [facts.name for facts in common_metrics(candidate, reference, labels, metrics)]
    theirs = [variant.name for variant in reference.info.suite.variants]
    like_named = [(one.name, one.name) for one in candidate.info.suite.variants if one.name in theirs]
    suffixes = f"@{labels[0]}", f"@{labels[1]}"
    return compare_sets(candidate, names or like_named, reference=reference, suffixes=suffixes, metrics=shared)


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


def _nothing_to_compare(run: str, *, alone: bool) -> InvalidError:
    if alone:
        hint = f"hotart-bench compare {argument(run)} ANOTHER_RUN, or gate it against a baseline"
        return InvalidError(f"There is nothing to compare: {run} has one variant.", hint)
    hint = f"hotart-bench score {argument(run)}"
    return InvalidError("There is nothing to compare: no scores or timings on both sides.", hint)


def _left_out(candidate: Run, reference: Run | None, deltas: Sequence[Delta]) -> list[str]:
    """What would be compared by default, and is not."""
    if reference is None:
        found = {(delta.candidate, delta.reference) for delta in deltas}
        return [f"{pair[0]} against {pair[1]}" for pair in variant_pairs(candidate.info.suite) if pair not in found]
    names = {delta.candidate.rpartition("@")[0] for delta in deltas}
    return [variant.name for variant in candidate.info.suite.variants if variant.name not in names]


def _with_tag(deltas: tuple[Delta, ...], tag: str, run: Run) -> tuple[Delta, ...]:
    prompts = run.info.suite.prompts
    known = sorted({tag for prompt in prompts for tag in prompt.tags})
    options.check_known((tag,), "--tag", known, f"hotart-bench compare {argument(run.path)}")
    chosen = tuple(delta for delta in deltas if delta.tag == tag)
    if not chosen:
        count = sum(tag in prompt.tags for prompt in prompts)
        raise UsageError(f"--tag: {tag!r} is on {count} prompts of {run.path}; {MIN_TAG_PROMPTS} must have scores.")
    return chosen


# --- tables ----------------------------------------------------------------------------------


def _pair_tables(
    deltas: Sequence[Delta], ratios: Sequence[Ratio], timings: Sequence[TimingSummary], describe: set[str]
) -> Iterator[Table]:
    """Pair by pair the scores, then the times and the memory; ``describe``: metrics that no side can win."""
    both: list[Delta | Ratio] = [*deltas, *ratios]
    for candidate, reference in dict.fromkeys((item.candidate, item.reference) for item in both):
        scores = _of_pair(deltas, candidate, reference)
        title = f"{candidate} against {reference}{_sizes(scores)}"
        if scores:
            columns: Columns = {
                **_numbers("metric", "reference", "candidate", "delta", "interval", "wins"),
                "overlap": "name",
            }
            yield title, columns, [_delta_row(delta, delta.metric in describe) for delta in scores]
        times = _of_pair(ratios, candidate, reference)
        if times:
            columns = _numbers("median of", "reference", "candidate", "ratio", "interval")
            yield title, columns, _ratio_rows(times, timings)


def _of_pair(items: Sequence[Paired], candidate: str, reference: str) -> list[Paired]:
    return [item for item in items if (item.candidate, item.reference) == (candidate, reference)]


def _numbers(name: str, *headings: str) -> Columns:
    return {name: "name", **dict.fromkeys(headings, "number")}


def _sizes(deltas: Sequence[Delta]) -> str:
    """Prompts and images behind a pair's scores; a metric with less of them is counted in the footnotes."""
    if not deltas:
        return ""
    most = max(deltas, key=lambda delta: delta.samples)
    tag = "" if most.tag is None else f" tagged {most.tag}"
    groups = "" if most.groups is None else f" in {plural(most.groups, 'group')}"
    return f" ({plural(most.prompts, 'prompt')}{tag}{groups}, {plural(most.samples, 'pair')} of images)"


def _delta_row(delta: Delta, only_describes: bool) -> list[str]:
    found = delta.interval
    decimals = decimals_for((found.high - found.low) / 2 if found else abs(delta.mean))
    return [
        delta.metric,
        number(delta.reference_mean, decimals),
        number(delta.candidate_mean, decimals),
        signed(delta.mean, decimals),
        interval(found, decimals) + ("†" if holds(delta) else " "),
        "" if only_describes else percent(delta.win_rate),
        delta.training_overlap,
    ]


def _ratio_rows(ratios: Sequence[Ratio], timings: Sequence[TimingSummary]) -> list[list[str]]:
    summaries = {(summary.variant, summary.name): summary for summary in timings}
    rows = []
    for ratio in ratios:
        above, below = summaries[ratio.candidate, ratio.name], summaries[ratio.reference, ratio.name]
        name = ratio.name + ("*" if above.weak or below.weak else "")
        medians = [quantity(below.median, below.unit), quantity(above.median, above.unit)]
        value, between = ratio_and_interval(ratio.ratio, ratio.interval)
        rows.append([name, *medians, value, between or NONE])
    return rows


def _set_tables(sets: Sequence[SetDelta], metrics: Sequence[MetricFacts]) -> Iterator[Table]:
    """Pair by pair what metrics over tags, and distances, say of all prompts or of one tag."""
    units = {facts.name: facts.unit for facts in metrics}
    for pair in dict.fromkeys((one.candidate, one.reference) for one in sets):
        own = [one for one in sets if (one.candidate, one.reference) == pair]
        title = f"{pair[0]} against {pair[1]}, numbers of sets of images"
        rows = []
        for one in own:
            found = one.interval
            decimals = decimals_for((found.high - found.low) / 2 if found else abs(one.mean) / 10)
            apart = one.reference_value is None
            beside = one.scale if apart else one.reference_value
            rows.append(
                [
                    one.metric,
                    units[one.metric],
                    str(one.prompts),
                    number(beside, decimals) + ("‡" if one.scale is not None else " "),
                    number(one.candidate_value, decimals),
                    number(one.mean, decimals) if apart else signed(one.mean, decimals),
                    interval(found, decimals, not apart)
                    + ("†" if one.p_holm is not None and one.p_holm <= 0.05 else " "),
                ]
            )
        numbers = _numbers("metric", "prompts", "reference", "candidate", "delta or distance", "interval")
        yield title, {"metric": "name", "unit": "name", **numbers}, rows


def _set_footnotes(sets: Sequence[SetDelta]) -> list[str]:
    if not sets:
        return []
    notes = ["A distance is that of the candidate's images from the reference's; the intervals are 95%, over prompts."]
    if any(one.scale is not None for one in sets):
        notes.append("‡ between two noises of the reference: what a drift is held against.")
    return notes


def _ranking_table(ranking: Ranking) -> Table:
    left_out = f"; without a score: {', '.join(ranking.left_out)}" if ranking.left_out else ""
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
    columns = _numbers("variant", "strength", "interval", "won / tied / lost")
    title = f"Ranking by {ranking.metric} ({plural(ranking.prompts, 'prompt')}{left_out})"
    return title, {**columns, "set": "name"}, rows


def _rate_tables(rates: Sequence[RateChange]) -> Iterator[Table]:
    columns = _numbers("flagged by", "reference", "candidate", "change", "interval", "seen from")
    for pair in dict.fromkeys((one.candidate, one.reference) for one in rates):
        rows = [
            [
                f"{one.metric}, {one.threshold}",
                *(f"{100 * value:.1f} %" for value in (one.reference_rate, one.candidate_rate)),
                signed(100 * one.change, 1),
                f"[{signed(100 * one.interval.low, 1)}, {signed(100 * one.interval.high, 1)}]",
                NONE if one.smallest_visible is None else signed(100 * one.smallest_visible, 1),
            ]
            for one in rates
            if (one.candidate, one.reference) == pair
        ]
        yield f"Flagged images, {pair[0]} against {pair[1]}, in points of per cent", columns, rows


def _footnotes(
    deltas: Sequence[Delta], ratios: Sequence[Ratio], timings: Sequence[TimingSummary], rankings: Sequence[Ranking]
) -> list[str]:
    notes = []
    found = [delta.interval for delta in deltas if delta.interval is not None]
    if found:
        notes.append(f"Intervals: {found[0].level:.0%}, {found[0].method}.")
    spans = [ratio.interval for ratio in ratios if ratio.interval is not None]
    if spans:
        notes.append(f"Intervals of ratios: {spans[0].level:.0%}, {spans[0].method}; few rounds make them wide.")
    if any(holds(delta) for delta in deltas):
        tagged = any(delta.tag is not None for delta in deltas)
        family = "the tags of a metric" if tagged else "the metrics of a pair"
        notes.append(f"† holds at 5%, by Holm over {family}; --format json has the p-values.")
    if any(delta.small_sample is not None for delta in deltas):
        notes.append("Under 30 prompts these are a little narrow; --format json has t intervals too.")
    unknown = dict.fromkeys(delta.candidate for delta in deltas if delta.training_overlap == "unknown")
    if unknown:
        judged = any(is_of_judge(delta.metric) for delta in deltas if delta.training_overlap == "unknown")
        notes.append(
            f"Overlap unknown: {listed(list(unknown))}; {SAY_IT}" + (f"; {SAY_IT_OF_JUDGE}." if judged else ".")
        )
    if rankings:
        notes.append("Strength: log odds of winning a prompt, by Davidson's model.")
        notes.append("Variants that share a letter are not told apart at 5%, by Holm over the pairs.")
    tagged_share = [delta for delta in deltas if delta.tags_explain is not None]
    if tagged_share:
        most = max(tagged_share, key=lambda delta: delta.tags_explain or 0.0)
        notes.append(
            f"Tags explain {percent(most.tags_explain)} of the differences in {most.metric} between {most.candidate} "
            f"and {most.reference}. {ADVICE}"
        )
    missing = max((delta.missing for delta in deltas), default=0)
    if missing:
        notes.append(f"{plural(missing, 'pair')} of images left out of a metric: one side has no score.")
    if ratios and any(summary.weak for summary in timings):
        notes.append("* weak: few values, a wide spread or foreign load; --format json says which.")
    return notes


# --- one tidy table ----------------------------------------------------------------------------

TIDY = (
    "kind", "candidate", "reference", "name", "tag", "prompts", "samples", "missing", "reference_value",
    "candidate_value", "value", "low", "high", "level", "method", "wins", "ties", "losses", "win_rate", "d_z", "p",
    "p_holm", "p_bh",
    "training_overlap",
)  # fmt: skip
"""Columns of ``--format csv``. ``kind`` says what ``value`` is: the ``difference`` of two means, the ``ratio`` of two
medians, the change of a ``rate`` of flagged images, a ``strength``, where ``candidate`` is the ranked variant, or a
``set``: the difference of two numbers of a set, or the distance of two sets, where the reference's value is what it is
held against, or empty. A ``finding`` has its word as its name, and no value. Of ``votes`` it is the share of people's
votes that the candidate wins, with the number of votes as samples; of ``agreement`` how often the metric of that name
says what voters said."""


def tidy_csv(
    deltas: Sequence[Delta],
    ratios: Sequence[Ratio],
    rankings: Sequence[Ranking],
    rates: Sequence[RateChange] = (),
    findings: Sequence[Finding] = (),
    sets: Sequence[SetDelta] = (),
    votes: VoteResults | None = None,
) -> str:
    """Each result of a comparison as a row of unrounded values; a value that does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TIDY, restval="", lineterminator="\n")
    writer.writeheader()
    for finding in findings:
        pair = {"candidate": finding.candidate, "reference": finding.reference}
        writer.writerow({"kind": "finding", **pair, "name": finding.word})
    for delta in deltas:
        same = {name: getattr(delta, name) for name in TIDY if hasattr(delta, name)}
        values = {"reference_value": delta.reference_mean, "candidate_value": delta.candidate_mean, "value": delta.mean}
        writer.writerow({"kind": "difference", **same, "name": delta.metric, **values, **_ends(delta.interval)})
    for ratio in ratios:
        pair = {"candidate": ratio.candidate, "reference": ratio.reference, "name": ratio.name}
        writer.writerow({"kind": "ratio", **pair, "value": ratio.ratio, **_ends(ratio.interval)})
    for one in rates:
        same = {name: getattr(one, name) for name in ("candidate", "reference", "prompts")}
        name, samples = f"{one.metric}, {one.threshold}", one.images
        values = {"reference_value": one.reference_rate, "candidate_value": one.candidate_rate, "value": one.change}
        writer.writerow({"kind": "rate", **same, "name": name, "samples": samples, **values, **_ends(one.interval)})
    for ranking in rankings:
        of = {name: getattr(ranking, name) for name in ("prompts", "samples", "missing")}
        for place in ranking.strengths:
            row = {
                "kind": "strength",
                "candidate": place.variant,
                "name": ranking.metric,
                "value": place.strength,
                **of,
            }
            counts = {"wins": place.wins, "ties": place.ties, "losses": place.losses}
            writer.writerow({**row, **counts, **_ends(place.interval)})
    for found in sets:
        shared = {name: getattr(found, name) for name in TIDY if hasattr(found, name)}
        beside = found.scale if found.reference_value is None else found.reference_value
        sides = {"reference_value": beside, "candidate_value": found.candidate_value, "value": found.mean}
        about = {"kind": "set", "name": found.metric, "samples": found.images}
        writer.writerow({**shared, **about, **sides, **_ends(found.interval)})
    writer.writerows(_vote_rows(votes) if votes is not None else ())
    return text.getvalue()


def _vote_rows(votes: VoteResults) -> Iterator[Mapping[str, Any]]:
    for one in votes.pairs:
        shared = {name: getattr(one, name) for name in TIDY if hasattr(one, name)}
        many = {"samples": one.wins + one.ties + one.losses, "value": one.share}
        yield {**shared, "kind": "votes", "name": VOTES_METRIC, **many, **_ends(one.interval)}
    for beside in votes.agreement:
        about = {"kind": "agreement", "name": beside.metric, "prompts": beside.prompts, "samples": beside.votes}
        yield {**about, "value": beside.agreement, **_ends(beside.interval)}


def _ends(found: Interval | None) -> Mapping[str, Any]:
    if found is None:
        return {}
    return {"low": found.low, "high": found.high, "level": found.level, "method": found.method}
