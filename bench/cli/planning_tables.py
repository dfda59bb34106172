"""A plan and a calibration as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.cli.printing import Column, format_duration, print_table, printable
from bench.records import Calibration, MetricNoise, MetricPlan, SessionNoise, SizePlan
from bench.wording import NONE, decimals_for, number, percent, plural, signed

LOWER_BOUND = (
    "A margin is the smallest loss that matters to you; this noise is only its lower bound, not a reason for it."
)


def print_plan(plan: SizePlan) -> None:
    """Prints on stdout the prompts that each metric needs, and then the runs that serve them all."""
    print(
        printable(
            f"Prompts with which a metric passes in {percent(plan.power)} of gates when nothing was lost, "
            f"by samples a prompt (pilot: {plan.pilot})\n"
        )
    )
    samples = [run.samples for run in plan.runs]
    columns = [Column("metric"), Column("pair"), Column("limit"), Column("sd", number=True)]
    columns += [Column(f"{plural(n, 'sample')}", number=True) for n in samples]
    print_table([*columns, Column("now", number=True)], [_plan_row(metric, plan) for metric in plan.metrics])
    now = f"{plural(plan.prompts_now, 'prompt')} x {plural(plan.samples_now, 'sample')}"
    print(f"\nsd: of a prompt's difference at 1 sample; now: how often a gate with the suite's {now} passes.\n")
    headings = ("samples", "prompts", "images", "time")
    rows = [
        [
            str(run.samples),
            f"{run.prompts:,}",
            f"{run.images:,}",
            NONE if run.seconds is None else format_duration(run.seconds),
        ]
        for run in plan.runs
    ]
    print_table([Column(heading, number=True) for heading in headings], rows)
    print()
    for note in plan.notes:
        print(printable(note))


def print_calibration(calibration: Calibration, limits: Mapping[str, str]) -> None:
    """Prints on stdout the noise by its source, the margins that it allows, and the noise between sessions."""
    print(
        f"{calibration.suite}: the same weights against themselves "
        f"({plural(calibration.prompts, 'prompt')} x {plural(calibration.samples, 'sample')})\n"
    )
    several = len({noise.variant for noise in calibration.noise}) > 1
    headings = ("a prompt differs by", "the mean by", "+-95 %")
    columns = [Column("metric"), Column("other"), *(Column(heading, number=True) for heading in headings)]
    print_table(columns, [row for noise in calibration.noise for row in _source_rows(noise, several)])
    print()
    columns = [Column("metric"), *(Column(name, number=True) for name in ("noise floor", "margin", "in sd"))]
    rows = [_margin_row(noise, limits, several) for noise in calibration.noise]
    print_table([*columns, Column("suite's limit", number=True)], rows)
    print(
        f"\nmargin: the smallest at which runs with other seeds pass in 90 of 100 gates of this size.\n{LOWER_BOUND}\n"
    )
    for noise in calibration.noise:
        if noise.reason is not None:
            print(f"{_label(noise, several)} has no margin: {noise.reason}.")
    _print_sessions(calibration.session_noise, len({noise.variant for noise in calibration.noise}))
    for note in calibration.notes:
        print(printable(note))


def _plan_row(metric: MetricPlan, plan: SizePlan) -> list[str]:
    prompts = {size.samples: size.prompts for size in metric.sizes}
    first = metric.sizes[0]
    now = next((size.power_now for size in metric.sizes if size.samples == plan.samples_now), None)
    return [
        metric.metric,
        f"{metric.candidate} - {metric.reference}",
        metric.limit.text,
        number(first.sd, decimals_for(first.sd)),
        *(f"{prompts[run.samples]:,}" for run in plan.runs),
        percent(now),
    ]


def _source_rows(noise: MetricNoise, several: bool) -> list[list[str]]:
    decimals = decimals_for(max((source.half_width for source in noise.sources), default=0.0))
    return [
        [
            _label(noise, several),
            source.source,
            number(source.mean_absolute, decimals),
            signed(source.mean, decimals),
            number(source.half_width, decimals),
        ]
        for source in noise.sources
    ]


def _margin_row(noise: MetricNoise, limits: Mapping[str, str], several: bool) -> list[str]:
    return [
        _label(noise, several),
        round_up(noise.floor),
        round_up(noise.margin),
        round_up(noise.margin_sd),
        limits.get(noise.metric, NONE),
    ]


def round_up(value: float | None) -> str:
    """Two figures, rounded up: a margin must not be under its bound for the sake of a shorter number."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    decimals = 1 - math.floor(math.log10(value))
    raised = math.ceil(value * 10.0**decimals - 1e-9) / 10.0**decimals
    return f"{raised:.{max(0, decimals)}f}"


def _print_sessions(found: Sequence[SessionNoise], variants: int) -> None:
    if not found:
        return
    rows = [
        [one.name, f"{100 * one.sd_log_ratio:.2g} %", str(one.sessions), str(variants * (one.sessions - 1))]
        for one in found
    ]
    headings = ("sessions differ by", "sessions", "degrees of freedom")
    print_table([Column("median of"), *(Column(heading, number=True) for heading in headings)], rows)
    print("\nsessions differ by: standard deviation of the log ratio of two sessions' medians.\n")


def _label(noise: MetricNoise, several: bool) -> str:
    return f"{noise.metric} of {noise.variant}" if several else noise.metric
