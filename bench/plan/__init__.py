"""How many prompts and samples target margins need, from the spread that a pilot run shows.

The power is the gate's own (``bench.stats.bounds``), so a run of the planned size passes as often as it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.comparability import check_names
from bench.compare.pairing import ImageScores, usable_scores
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, joined, listed, percent, plural
from bench.plan.pilot import (
    Components,
    choose_pairs,
    read_pilot,
    refuse_other_settings,
    seconds_of_all_variants,
    variance_components,
)
from bench.records import VOTES_METRIC, Limit, MetricFacts, MetricPlan, PlannedRun, PlannedSize, Run, SizePlan, Suite
from bench.stats.bounds import power_of_pass, prompts_for
from bench.stats.groups import effective_groups
from bench.suite.limits import check_metric_limit, quantity_of

__all__ = ["SAMPLES", "Components", "plan_sizes", "variance_components"]

SAMPLES = (1, 2, 4, 8)
"""Samples a prompt that are planned for; the suite's own number is added."""
GOOD_PILOT = 30
"""With fewer prompts the plan says how little its standard deviations are worth."""


def plan_sizes(
    suite: Suite,
    pilot: Run,
    *,
    margins: Sequence[Limit] = (),
    power: float = 0.8,
    candidate: str | None = None,
    reference: str | None = None,
) -> SizePlan:
    """Prompts at 1, 2, 4 and 8 samples with which each gated metric passes at a true loss of 0, and their time.

    The paired differences of a pilot are split into a part of the prompt and one of the sample
    (``variance_components``); at m samples the prompts' differences have the standard deviation
    s = sqrt(between^2 + within^2 / m), and n prompts are enough when the gate's one-sided 95 % bound is within the
    margin with the target probability: n ~ (z_0.95 + z_power)^2 s^2 / margin^2. A limit in standard
    deviations is one of the reference's prompt means at m samples, as the gate takes it. Where the suite's prompts name
    groups, n counts effective groups, s is that of their means, and prompts are planned at as many a group as the suite
    has now.

    Args:
        suite: what is to be gated: its limits, variants, prompts and samples.
        pilot: a run of any prompts with the suite's settings, which may be a limited one.
        margins: limits of metrics, instead of the suite's own on the same metrics.
        power: probability, in (0, 1), that a metric passes when nothing was lost.
        candidate: variant of the pilot; None means each that is compared with the reference.
        reference: variant of the pilot; None means its first.

    Raises:
        UsageError: an unknown variant or metric, no gated metric, a limit that says nothing of its metric.
        IncomparableError: the pilot was rendered with other settings.
        InvalidError: the pilot has one prompt, no scores of a gated metric, or its scores never differ.
    """
    if not 0 < power < 1:
        raise UsageError(f"The power is {power:g}; it is a probability between 0 and 1, such as 0.8.")
    refuse_other_settings(suite, pilot)
    facts = {known.name: known for known in pilot.info.metrics}
    limits = _gated_limits(suite, pilot, margins, facts)
    table = usable_scores(pilot)
    metrics = tuple(
        _plan_metric(pilot, table, pair, limit, facts[limit.name], suite, power)
        for pair in choose_pairs(pilot, candidate, reference)
        for limit in limits
    )
    image_s = seconds_of_all_variants(suite, pilot)
    return SizePlan(
        suite=suite.source or suite.name,
        pilot=pilot.path,
        pilot_id=pilot.info.id,
        power=power,
        metrics=metrics,
        runs=_runs(suite, metrics, image_s),
        prompts_now=len(suite.prompts),
        samples_now=suite.samples,
        notes=(
            *_notes_on_pilot(suite, pilot, metrics),
            *_notes_on_sets(suite, facts),
            *_notes_on_groups(suite, pilot),
            *_notes_on_power(suite, metrics, power),
            *_notes_on_time(suite, pilot, image_s),
        ),
    )


def _gated_limits(
    suite: Suite, pilot: Run, margins: Sequence[Limit], facts: Mapping[str, MetricFacts]
) -> tuple[Limit, ...]:
    check_names([limit.name for limit in margins], facts, f"{pilot.path} has no metric")
    for limit in margins:
        if facts[limit.name].over != "image":
            raise UsageError(
                f"--margin {limit.name}: a set metric has one number of several images, so that its spread between "
                "samples is not known; name a metric of images."
            )
    sets = {name for name, known in facts.items() if known.over != "image"}
    own = [
        limit
        for limit in suite.limits
        if quantity_of(limit.name) == "metric" and limit.name not in {*sets, VOTES_METRIC}
    ]
    limits = {limit.name: limit for limit in (*own, *margins)}
    if not limits:
        raise UsageError(
            f"The suite {suite.name} has no limit on a metric; give one: --margin {next(iter(facts), 'METRIC')}=0.1sd.",
            "or add a table [limits] to the suite",
        )
    for name, limit in limits.items():
        if name not in facts:
            raise InvalidError(
                f"{pilot.path}: has no scores of {name}, which is to be gated.",
                f"hotart-bench score {argument(pilot.path)} --metrics {name}",
            )
        check_metric_limit(limit, facts[name])
    return tuple(limits.values())


def _notes_on_sets(suite: Suite, facts: Mapping[str, MetricFacts]) -> list[str]:
    left_out = [limit.name for limit in suite.limits if limit.name in facts and facts[limit.name].over != "image"]
    notes = (
        [f"Not planned, since a set metric has one number of several images: {listed(left_out)}."] if left_out else []
    )
    if any(limit.name == VOTES_METRIC for limit in suite.limits):
        notes.append("Not planned: people's votes; hotart-bench vote status RUN says how many a margin needs.")
    return notes


def _plan_metric(
    pilot: Run,
    table: Mapping[tuple[str, str], ImageScores],
    pair: tuple[str, str],
    limit: Limit,
    facts: MetricFacts,
    suite: Suite,
    power: float,
) -> MetricPlan:
    units = {prompt.id: prompt.unit for prompt in (*pilot.info.suite.prompts, *suite.prompts)}
    differences, scores, reference_mean = read_pilot(pilot, table, pair, limit.name, units)
    worth = effective_groups([prompt.unit for prompt in suite.prompts])
    size = len(suite.prompts) / worth
    sizes = []
    for samples in sorted({*SAMPLES, suite.samples}) if differences.within_sd is not None else [1]:
        sd = differences.sd_of_groups(samples, size)
        unit = {"sd": scores.sd_of_means(samples), "relative": abs(reference_mean), "absolute": 1.0}[limit.kind]
        margin = max(limit.amount * unit, limit.floor or 0.0)
        # A shift must be within its limit on both sides: each holds so often that both hold with the power.
        each = (1 + power) / 2 if limit.limited == "shift" else power
        if not 0 < margin < math.inf:
            raise InvalidError(
                f"The limit {limit.text!r} of {limit.name} comes to {margin:g} with the scores of {pair[1]}, "
                "and no number of prompts can keep it.",
                f"give an absolute one: --margin {limit.name}=0.05",
            )
        sizes.append(
            PlannedSize(
                samples=samples,
                margin=margin,
                sd=sd,
                prompts=math.ceil(size * prompts_for(margin, sd, true_loss=0.0, power=each)),
                power_now=_power_now(limit, int(worth), sd, margin),
            )
        )
    return MetricPlan(
        metric=facts.name,
        unit=facts.unit,
        candidate=pair[0],
        reference=pair[1],
        limit=limit,
        between_sd=differences.between_sd,
        within_sd=differences.within_sd,
        prompts=differences.prompts,
        pairs=differences.values,
        sizes=tuple(sizes),
    )


def _power_now(limit: Limit, prompts: int, sd: float, margin: float) -> float:
    one_side = power_of_pass(prompts, sd, margin, 0.0)
    return max(0.0, 2 * one_side - 1) if limit.limited == "shift" else one_side


def _runs(suite: Suite, metrics: Sequence[MetricPlan], image_s: float | None) -> tuple[PlannedRun, ...]:
    by_samples: dict[int, list[int]] = {}
    for size in (size for metric in metrics for size in metric.sizes):
        by_samples.setdefault(size.samples, []).append(size.prompts)
    return tuple(
        PlannedRun(
            samples=samples,
            prompts=max(prompts),
            images=max(prompts) * samples * len(suite.variants),
            seconds=None if image_s is None else max(prompts) * samples * image_s,
        )
        for samples, prompts in sorted(by_samples.items())
        if len(prompts) == len(metrics)
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
            f"{'is' if foreign == 1 else 'are'} not in the suite; the suite's own prompts are assumed to spread alike."
        )
    return notes


def _notes_on_groups(suite: Suite, pilot: Run) -> list[str]:
    groups = {prompt.id: prompt.unit for prompt in suite.prompts}
    worth = effective_groups(list(groups.values()))
    if worth == len(groups):
        return []
    notes = [
        f"The suite's {plural(len(groups), 'prompt')} fall into {plural(len(set(groups.values())), 'group')}, worth "
        f"{worth:.3g} of equal size: groups are counted, and prompts planned at {len(groups) / worth:.3g} a group."
    ]
    seen = [groups.get(prompt.id, prompt.unit) for prompt in pilot.info.suite.prompts]
    if len(set(seen)) == len(seen):
        notes.append(
            "No group has two prompts in the pilot, so those of a group are taken to differ alike: a larger pilot may "
            "plan fewer."
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
    timed = [limit.name for limit in suite.limits if quantity_of(limit.name) != "metric"]
    if timed:
        notes.append(f"For {joined(timed)} rounds count, not prompts: [measure] rounds in the suite.")
    return notes


def _notes_on_time(suite: Suite, pilot: Run, image_s: float | None) -> list[str]:
    if image_s is None:
        return [f"The pilot has no timings, so no time is planned: hotart-bench measure {argument(pilot.path)}"]
    timed = {timing.variant for timing in pilot.timings if timing.name == "end_to_end"}
    untimed = [variant.name for variant in suite.variants if variant.name not in timed]
    notes = [
        f"Times are those of one image after another on {pilot.info.machine.device_name}, so batches make them an "
        "upper bound; loading, scoring and timing come on top."
    ]
    if untimed:
        notes.append(f"The pilot has not timed {joined(untimed)}: taken to be as slow as its slowest variant.")
    return notes
