"""Timings -> what they sum up to, how weak that is, and the ratios between variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from bench import stats
from bench.comparability import check_names
from bench.errors import InvalidError
from bench.formatting import argument, plural
from bench.records import Conditions, Interval, Ratio, Run, Timing, TimingName, TimingSummary

BUSY_PERCENT = 25.0
"""From this share of all cores, or of the device's time, on, other programs are taken to disturb a timing."""
TRANSIENT = frozenset({"hardware slowdown", "heat (software slowdown)", "heat (hardware slowdown)", "power brake"})
"""Slowdowns that come and go. A power limit or set clocks are the card's own steady state: they are recorded."""
FIRM_PROCESSES = 5
FIRM_VALUES = 10
FIRM_SPREAD = 0.10
"""Interquartile range, and range of the processes' medians, as a share of the median."""
ONCE_A_PROCESS: frozenset[TimingName] = frozenset(
    {"load", "compile", "first_image", "peak_allocated", "peak_reserved", "peak_process", "peak_rss"}
)
"""What a process can measure only once; of these one value from each process is all there can be."""


def summarize_timings(run: Run) -> tuple[TimingSummary, ...]:
    """Median, 90 % quantile, interquartile range and minimum over all rounds, ordered by name, variant.

    ``weak`` says why a figure should not be relied on: few values or processes, a spread over 10 % of the
    median within or between processes and, for times and energy, what the process's conditions say: foreign load
    or processes, slowdowns. Conditions that a run did not record do not count. Quantities without a value have no
    record.
    """
    known = {_process(timing): timing.conditions for timing in run.timings if timing.conditions is not None}
    summaries = []
    for name, variant, timings in _grouped(run):
        values = [value for timing in timings for value in timing.values]
        found = stats.quantiles(values)
        summaries.append(
            TimingSummary(
                variant=variant,
                name=name,
                unit=timings[0].unit,
                n=len(values),
                rounds=len({timing.round for timing in timings}),
                median=found.median,
                p90=found.p90,
                iqr=found.iqr,
                minimum=found.minimum,
                weak=_weakness(name, timings, found, known),
            )
        )
    return tuple(summaries)


def timing_ratios(
    run: Run, *, pairs: Sequence[tuple[str, str]] | None = None, level: float = 0.95
) -> tuple[Ratio, ...]:
    """Ratio of medians of each quantity, each variant over the first, ordered by name, candidate.

    The interval is Student's t of the logs of the rounds' medians, so that it is wide with few rounds; there is
    none where a side has fewer than 2 rounds.

    Args:
        run: a run as it was read.
        pairs: (candidate, reference) variants; None means each with the first.
        level: two-sided coverage of the intervals.

    Raises:
        UsageError: an unknown variant.
        InvalidError: a value of 0 or less, which no clock or memory counter gives, and which has no ratio.
    """
    known = [variant.name for variant in run.info.suite.variants]
    for pair in pairs or ():
        check_names(pair, known, "The run has no variant")
    wanted = [(name, known[0]) for name in known[1:]] if pairs is None else pairs
    rounds = {(name, variant): timings for name, variant, timings in _grouped(run)}
    for (name, variant), timings in rounds.items():
        if min(min(timing.values) for timing in timings) <= 0:
            raise InvalidError(
                f"{run.path}: timings.jsonl gives {name} of {variant} a value of 0 or less.",
                hint=f"Measure again: hotart-bench measure {argument(run.path)}",
            )
    return tuple(
        _ratio(name, candidate, reference, rounds, level)
        for name in get_args(TimingName)
        for candidate, reference in wanted
        if (name, candidate) in rounds and (name, reference) in rounds
    )


def _grouped(run: Run) -> list[tuple[TimingName, str, list[Timing]]]:
    found: dict[tuple[TimingName, str], list[Timing]] = {}
    for timing in run.timings:
        if timing.values:
            found.setdefault((timing.name, timing.variant), []).append(timing)
    return [
        (name, variant.name, sorted(found[name, variant.name], key=lambda timing: timing.round))
        for name in get_args(TimingName)
        for variant in run.info.suite.variants
        if (name, variant.name) in found
    ]


def _ratio(
    name: TimingName,
    candidate: str,
    reference: str,
    rounds: dict[tuple[TimingName, str], list[Timing]],
    level: float,
) -> Ratio:
    above, below = ([timing.values for timing in rounds[name, side]] for side in (candidate, reference))
    interval = None
    if len(above) >= 2 and len(below) >= 2:
        low, high = stats.ratio_of_medians_interval(above, below, level=level)
        method = f"t over {min(len(above), len(below))} rounds"
        interval = Interval(low=low, high=high, method=method, level=level)
    return Ratio(
        name=name,
        candidate=candidate,
        reference=reference,
        ratio=stats.ratio_of_medians(above, below),
        interval=interval,
    )


def _weakness(
    name: TimingName,
    timings: Sequence[Timing],
    found: stats.Quantiles,
    known: dict[tuple[str, int, int], Conditions],
) -> str | None:
    if found.median <= 0:
        return "The median is 0 or less, which no clock or memory counter gives; measure again."
    said = []
    n = sum(len(timing.values) for timing in timings)
    processes = len({(timing.round, timing.process) for timing in timings})
    enough = FIRM_PROCESSES if name in ONCE_A_PROCESS else FIRM_VALUES
    if n < enough or processes < FIRM_PROCESSES:
        said.append(
            f"{plural(n, 'value')} from {plural(processes, 'process', 'processes')}; "
            f"{enough} or more from {FIRM_PROCESSES} or more processes would be firm."
        )
    limit = FIRM_SPREAD * found.median
    if found.iqr > limit:
        said.append(
            f"The middle half of the values spreads over {found.iqr / found.median:.0%} of the median; "
            f"{FIRM_SPREAD:.0%} or less would be firm."
        )
    medians = [stats.quantiles(timing.values).median for timing in timings]
    apart = max(medians) - min(medians)
    if name not in ONCE_A_PROCESS and apart > limit:
        said.append(
            f"The processes' medians lie {apart / found.median:.0%} of the median apart; "
            f"{FIRM_SPREAD:.0%} or less would be firm."
        )
    if timings[0].unit != "byte":
        said += weak_conditions(timings, known)
    return " ".join(said) or None


def weak_conditions(timings: Sequence[Timing], known: dict[tuple[str, int, int], Conditions]) -> tuple[str, ...]:
    """Why times or energies of these processes are weak, a sentence a reason.

    A process that recorded no conditions does not count.
    """
    processes = dict.fromkeys(_process(timing) for timing in timings)
    found = [known[process] for process in processes if process in known]
    busy = [one for one in found if one.cpu_percent > BUSY_PERCENT]
    shared = [one for one in found if (one.device_percent or 0) > BUSY_PERCENT]
    crowded = [one for one in found if one.other_processes]
    slowed = [{slow.reason for slow in one.slowdowns} & TRANSIENT for one in found]
    said = []
    if busy:
        most = max(one.cpu_percent for one in busy)
        said.append(
            f"Others kept up to {most:.0f}% of the CPU busy before {_of(busy, found)}; measure on a quiet machine."
        )
    if shared:
        most = max(one.device_percent or 0 for one in shared)
        said.append(
            f"Others kept the device busy for up to {most}% of the time before {_of(shared, found)}; "
            "measure while it is idle."
        )
    if crowded:
        most = max(one.other_processes or 0 for one in crowded)
        others = plural(most, "other process", "other processes")
        said.append(f"Up to {others} had the device in {_of(crowded, found)}; measure while it is free.")
    if any(slowed):
        why = ", ".join(sorted(set().union(*slowed)))
        hit = [reasons for reasons in slowed if reasons]
        said.append(f"The device slowed down ({why}) in {_of(hit, found)}; let it cool, or set lower clocks.")
    return tuple(said)


def _of(some: Sequence[object], every: Sequence[object]) -> str:
    return f"{len(some)} of {plural(len(every), 'process', 'processes')}"


def _process(timing: Timing) -> tuple[str, int, int]:
    return timing.variant, timing.round, timing.process
