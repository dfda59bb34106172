"""What the figures draw: one run's variants, or two runs' variants side by side, as named series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.comparability import differences, run_labels, timing_facts
from bench.compare.headline import headline_metrics
from bench.compare.pairing import ImageScores, PromptPair, pair_prompts, usable_scores
from bench.compare.timing import summarize_timings
from bench.formatting import joined
from bench.records import Delta, MetricFacts, Over, Run, Suite, TimingSummary


@dataclass(frozen=True)
class Series:
    """One variant of one run: its name in the figures, its scores by metric, its timings by name."""

    label: str
    scores: Mapping[str, ImageScores]
    timings: Mapping[str, TimingSummary]


@dataclass(frozen=True)
class PlotData:
    """The series in the order of their colours, the suite they share, the headline's metrics, the deltas."""

    suite: Suite
    metrics: tuple[MetricFacts, ...]
    series: tuple[Series, ...]
    deltas: tuple[Delta, ...]
    """Over all prompts only, in the order of ``metrics``."""

    def index(self, label: str) -> int:
        """Place of the series called ``label``, which decides its colour."""
        return [one.label for one in self.series].index(label)

    def second(self, delta: Delta) -> bool:
        """Whether the candidate was set against another reference before: drawn hollow, to tell it apart."""
        return any(
            one.metric == delta.metric and one.candidate == delta.candidate and one.reference != delta.reference
            for one in self.deltas[: self.deltas.index(delta)]
        )

    def by_metric(self) -> list[tuple[MetricFacts, list[Delta]]]:
        """The metrics that have differences, each with its differences in their order."""
        found = [(facts, [one for one in self.deltas if one.metric == facts.name]) for facts in self.metrics]
        return [(facts, deltas) for facts, deltas in found if deltas]

    def paired(self, metric: str, candidate: str, reference: str) -> tuple[PromptPair, ...]:
        """Each prompt's paired means of two series, in the suite's order."""
        above, below = (self.series[self.index(label)].scores.get(metric, {}) for label in (candidate, reference))
        over: Over = next((facts.over for facts in self.metrics if facts.name == metric), "image")
        return pair_prompts(self.suite, above, below, over)

    def prompt_means(self, metric: str, label: str) -> tuple[float, ...]:
        """Each prompt's mean over its scored samples, in the suite's order."""
        return tuple(prompt.candidate for prompt in self.paired(metric, label, label))


def overlaps(deltas: Sequence[Delta]) -> str:
    """The training overlap of a metric with the candidates of its differences: one word, or each with its candidates.

    ``same data``, or ``same data with spo and dpo, none with retouched``; empty without differences.
    """
    by_label: dict[str, list[str]] = {}
    for one in deltas:
        names = by_label.setdefault(one.training_overlap, [])
        if one.candidate not in names:
            names.append(one.candidate)
    if len(by_label) < 2:
        return "".join(by_label)
    return ", ".join(f"{label} with {joined(names)}" for label, names in by_label.items())


def data_of_run(run: Run, deltas: Sequence[Delta]) -> PlotData:
    """The variants of one run, with the deltas of ``compare_run``."""
    return _data(run.info.suite, headline_metrics(run.info.metrics), _series(run, ""), deltas)


def data_of_runs(candidate: Run, reference: Run, deltas: Sequence[Delta]) -> PlotData:
    """The variants of two runs, ``variant@run``, that the deltas of ``compare_runs`` speak of.

    Without their timings where ``machine_differences`` finds anything.

    Raises:
        UsageError: both are one run folder.
    """
    ours, theirs = run_labels(candidate, reference)
    series = {one.label: one for one in (*_series(reference, f"@{theirs}"), *_series(candidate, f"@{ours}"))}
    # Each pair side by side, the reference first: the first of all is drawn in grey.
    order = dict.fromkeys(name for delta in deltas for name in (delta.reference, delta.candidate))
    spoken_of = tuple(series[name] for name in order)
    if machine_differences(candidate, reference):
        spoken_of = tuple(replace(one, timings={}) for one in spoken_of)
    shared = [facts for facts in candidate.info.metrics if any(one.metric == facts.name for one in deltas)]
    return _data(candidate.info.suite, headline_metrics(shared), spoken_of, deltas)


def machine_differences(candidate: Run, reference: Run) -> list[str]:
    """How the environments of two runs differ, so that their timings do not compare; one clause a fact."""
    theirs, ours = (timing_facts(run.info.machine, run.info.packages) for run in (reference, candidate))
    return differences(theirs, ours, ("there", "here"))


def _data(
    suite: Suite, metrics: tuple[MetricFacts, ...], series: tuple[Series, ...], deltas: Sequence[Delta]
) -> PlotData:
    overall = tuple(delta for facts in metrics for delta in deltas if delta.tag is None and delta.metric == facts.name)
    return PlotData(suite=suite, metrics=metrics, series=series, deltas=overall)


def _series(run: Run, suffix: str) -> tuple[Series, ...]:
    table = usable_scores(run)
    summaries = summarize_timings(run)
    return tuple(
        Series(
            label=variant.name + suffix,
            scores={metric: found for (name, metric), found in table.items() if name == variant.name},
            timings={one.name: one for one in summaries if one.variant == variant.name},
        )
        for variant in run.info.suite.variants
    )
