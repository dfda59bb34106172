"""How many prompts and samples target margins need, from the spread that a pilot run shows.

The power is the gate's own (``bench.stats.bounds``), so a run of the planned size passes as often as it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

from bench.comparability import check_names
from bench.compare.pairing import usable_scores
from bench.errors import InvalidError, UsageError
from bench.formatting import joined as listed
from bench.formatting import percent, plural
from bench.plan.pilot import (
    Components,
    Pilot,
    choose_pairs,
    read_pilot,
    refuse_other_settings,
    seconds_a_cell,
    variance_components,
)
from bench.records import Limit, MetricPlan, PlannedRun, PlannedSize, Run, SizePlan, Suite, TimingName
from bench.stats.bounds import power_of_pass, prompts_for
from bench.suite.limits import check_metric_limit, parse_limit

__all__ = ["SAMPLES", "Components", "plan_sizes", "variance_components"]

SAMPLES = (1, 2, 4, 8)

"""Samples a prompt that are planned for; the suite's own number is added."""

GOOD_PILOT = 30

"""With fewer prompts the plan says how little its standard deviations are worth."""


def plan_sizes(
    suite: Suite,
    pilot: Run,
    *,
    margins: Mapping[str, str] | None = None,
    power: float = 0.8,
    candidate: str | None = None,
    reference: str | None = None,
) -> SizePlan:
    """Prompts at 1, 2, 4 and 8 samples with which each gated metric passes at a true loss of 0, and their time.

    The paired differences d of a pilot are taken apart into a part of the prompt and one of the sample
    (``variance_components``); at m samples the prompts' differences have the standard deviation
    s = sqrt(between^2 + within^2 / m), and n prompts are enough when the gate's one-sided 95 % bound holds the
    margin with the target probability: n ~ (z_0.95 + z_power)^2 s^2 / margin^2. A limit in standard
    deviations is one of the reference's prompt means at m samples, as the gate takes it.

    Args:
        suite: what is to be gated: its limits, variants, prompts and samples.
        pilot: a run of any prompts with the suite's settings, which may be a limited one.
        margins: limits as a suite writes them, by metric; they go before the suite's own.
        power: probability, in (0, 1), that a metric passes when nothing was lost.
        candidate: variant of the pilot; None means each that is compared with the reference.
        reference: variant of the pilot; None means its first.

    Raises:
        UsageError: an unknown variant or metric, no gated metric, a limit that cannot be.
        IncomparableError: the pilot was rendered with other settings.
        InvalidError: the pilot has one prompt, no scores of a gated metric, or its scores never differ.
    """
    if not 0 < power < 1:
        raise UsageError(f"The power is {power:g}; it is a probability between 0 and 1, such as 0.8.")
    refuse_other_settings(suite, pilot)
    limits = _gated_limits(suite, pilot, margins or {})
    pairs = choose_pairs(pilot, candidate, reference)
    table = usable_scores(pilot)
    metrics = tuple(
        _plan_metric(read_pilot(pilot, table, pair, limit.name), limit, suite, power)
        for pair in pairs
        for limit in limits
    )
    pace_s = seconds_a_cell(suite, pilot)
    return SizePlan(
        suite=suite.source or suite.name,
        pilot=pilot.path,
        pilot_id=pilot.info.id,
        power=power,
        metrics=metrics,
        runs=_runs(suite, metrics, pace_s),
        prompts_now=len(suite.prompts),
        samples_now=suite.samples,
        notes=_notes(suite, pilot, metrics, power, pace_s),
    )


def _gated_limits(suite: Suite, pilot: Run, margins: Mapping[str, str]) -> tuple[Limit, ...]:
    facts = {known.name: known for known in pilot.info.metrics}
    check_names(margins, facts, f"{pilot.path} has no metric")
    texts = {name: text for name, text in suite.limits.items() if name not in get_args(TimingName)} | dict(margins)
    if not texts:
        raise UsageError(
            f"The suite {suite.name} has no limit on a metric; give one: --margin {next(iter(facts), 'METRIC')}=0.1sd.",
            "or add a table [limits] to the suite",
        )
    for name in texts:
        if name not in facts:
            raise InvalidError(
                f"{pilot.path}: has no scores of {name}, which is to be gated.",
                f"hotart-bench score {pilot.path} --metrics {name}",
            )
    limits = tuple(parse_limit(name, text) for name, text in texts.items())
    for limit in limits:
        check_metric_limit(limit, facts[limit.name])
    return limits


def _plan_metric(pilot: Pilot, limit: Limit, suite: Suite, power: float) -> MetricPlan:
    known = pilot.differences.within_sd is not None
    wanted = sorted({*SAMPLES, suite.samples}) if known else [1]
    return MetricPlan(
        metric=pilot.facts.name,
        unit=pilot.facts.unit,
        candidate=pilot.candidate,
        reference=pilot.reference,
        limit=limit,
        between_sd=pilot.differences.between_sd,
        within_sd=pilot.differences.within_sd,
        prompts=pilot.differences.prompts,
        pairs=pilot.differences.values,
        sizes=tuple(_size(pilot, limit, samples, len(suite.prompts), power) for samples in wanted),
    )


def _size(pilot: Pilot, limit: Limit, samples: int, prompts_now: int, power: float) -> PlannedSize:
    sd = pilot.differences.sd_of_means(samples)
    margin = _margin(pilot, limit, samples)
    return PlannedSize(
        samples=samples,
        margin=margin,
        sd=sd,
        prompts=prompts_for(margin, sd, true_loss=0.0, power=power),
        power_now=power_of_pass(prompts_now, sd, margin, 0.0),
    )


def _margin(pilot: Pilot, limit: Limit, samples: int) -> float:
    if limit.kind == "sd":
        unit = pilot.scores.sd_of_means(samples)
    else:
        unit = abs(pilot.reference_mean) if limit.kind == "relative" else 1.0
    margin = max(limit.amount * unit, limit.floor or 0.0)
    if margin <= 0 or not math.isfinite(margin):
        raise InvalidError(
            f"The limit {limit.text!r} of {limit.name} comes to {margin:g} with the scores of {pilot.reference}, "
            "and no number of prompts can hold it.",
            f"give an absolute one: --margin {limit.name}=0.05",
        )
    return margin


def _runs(suite: Suite, metrics: Sequence[MetricPlan], pace_s: float | None) -> tuple[PlannedRun, ...]:
    by_samples: dict[int, list[int]] = {}
    for size in (size for metric in metrics for size in metric.sizes):
        by_samples.setdefault(size.samples, []).append(size.prompts)
    return tuple(
        PlannedRun(
            samples=samples,
            prompts=max(prompts),
            images=max(prompts) * samples * len(suite.variants),
            seconds=None if pace_s is None else max(prompts) * samples * pace_s,
        )
        for samples, prompts in sorted(by_samples.items())
        if len(prompts) == len(metrics)
    )


def _notes(
    suite: Suite, pilot: Run, metrics: Sequence[MetricPlan], power: float, pace_s: float | None
) -> tuple[str, ...]:
    return (
        *_notes_on_pilot(suite, pilot, metrics),
        *_notes_on_power(suite, metrics, power),
        *_notes_on_time(suite, pilot, pace_s),
    )


def _notes_on_pilot(suite: Suite, pilot: Run, metrics: Sequence[MetricPlan]) -> list[str]:
    notes = []
    if any(metric.within_sd is None for metric in metrics):
        notes.append(
            "The pilot has one sample a prompt, so what more samples would gain is not known: only prompts are planned."
        )
    fewest = min(metric.prompts for metric in metrics)
    if fewest < GOOD_PILOT:
        error = 1 / math.sqrt(2 * (fewest - 1))
        notes.append(
            f"A standard deviation from {plural(fewest, 'prompt')} has a standard error of about {percent(error)}, "
            f"and the number of prompts one of about {percent(2 * error)}: a larger pilot plans better."
        )
    texts = {(prompt.text, prompt.negative) for prompt in suite.prompts}
    foreign = sum((prompt.text, prompt.negative) not in texts for prompt in pilot.info.suite.prompts)
    if foreign:
        notes.append(
            f"{plural(foreign, 'prompt')} of the pilot's {len(pilot.info.suite.prompts)} "
            f"{'is' if foreign == 1 else 'are'} not in the suite; its own are taken to spread alike."
        )
    return notes


def _notes_on_power(suite: Suite, metrics: Sequence[MetricPlan], power: float) -> list[str]:
    notes = []
    if len(metrics) > 1:
        alone = 1 - (1 - power) / len(metrics)
        notes.append(
            f"Each of the {len(metrics)} differences passes in {percent(power)} of gates when nothing was lost, and a "
            f"gate passes only if all do. At --power {alone:.3g} they all pass in at least {percent(power)}."
        )
    timed = [name for name in suite.limits if name in get_args(TimingName)]
    if timed:
        notes.append(f"For {listed(timed)} not prompts count but rounds: [measure] rounds in the suite.")
    return notes


def _notes_on_time(suite: Suite, pilot: Run, pace_s: float | None) -> list[str]:
    if pace_s is None:
        return [f"The pilot has no timings, so no time is planned: hotart-bench measure {pilot.path}"]
    timed = {timing.variant for timing in pilot.timings if timing.name == "end_to_end"}
    untimed = [variant.name for variant in suite.variants if variant.name not in timed]
    notes = [
        f"Times are those of one image after another on {pilot.info.machine.device_name}, so batches make them an "
        "upper bound; loading, scoring and timing come on top."
    ]
    if untimed:
        notes.append(f"The pilot has not timed {listed(untimed)}: taken to be as slow as its slowest variant.")
    return notes
