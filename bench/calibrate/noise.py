"""What runs of the same weights say of noise: per metric, and per timed quantity between sessions. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import get_args

import numpy as np
from scipy.special import stdtrit

from bench import stats
from bench.compare.pairing import ImageScores, PromptPair, pair_prompts
from bench.errors import InvalidError
from bench.records import MetricFacts, MetricNoise, NoiseSource, Run, SessionNoise, SourceNoise, Suite, TimingName
from bench.stats.bounds import detectable_loss
from bench.stats.groups import effective_groups

PASSES = 0.9
"""How often a gate on nothing but noise should pass at the proposed margin."""

Table = Mapping[tuple[str, str], ImageScores]
"""``usable_scores`` of a run: by (variant, metric), then by (prompt, sample)."""


def metric_noise(
    suite: Suite,
    variant: str,
    facts: MetricFacts,
    first: Table,
    others: Mapping[NoiseSource, Sequence[Table]],
) -> MetricNoise:
    """The noise floor of one metric of one variant, and the smallest margin above it.

    Runs of the source "seed" are all paired with one another, the first run included; those of the other
    sources with the first run.

    Args:
        suite: its prompts and samples are the size that the margin is for.
        variant: its name.
        facts: the metric's.
        first: scores of the first run.
        others: scores of the runs that differ in one thing, by that thing.

    Raises:
        InvalidError: fewer than 2 prompts have scores in both runs of a pair.
    """
    key = variant, facts.name
    sources = []
    for source, tables in others.items():
        sides = [table.get(key, {}) for table in (first, *tables)]
        pairs = list(combinations(sides, 2)) if source == "seed" else [(sides[0], side) for side in sides[1:]]
        paired = [pair_prompts(suite, above, below, facts.over) for below, above in pairs]
        if min(len({one.prompt.unit for one in prompts}) for prompts in paired) < 2:
            raise InvalidError(
                f"{facts.name} of {variant}: fewer than 2 prompts, or groups of them, have scores in both runs of the "
                f"condition {source!r}, so there is no noise to be seen.",
                "look for the reasons in scores.jsonl of these runs, or leave the metric out with --metrics",
            )
        sources.append(source_noise(source, paired))
    floor = max((abs(one.mean) + one.half_width for one in sources if one.source != "seed"), default=0.0)
    seed = next((one for one in sources if one.source == "seed"), None)
    margin, reason = _margin(facts, suite, floor, seed)
    return MetricNoise(
        variant=variant,
        metric=facts.name,
        unit=facts.unit,
        sources=tuple(sources),
        floor=floor,
        margin=margin,
        margin_sd=_in_sds(margin, suite, first.get(key, {})),
        reason=reason,
    )


def source_noise(source: NoiseSource, pairs: Sequence[Sequence[PromptPair]]) -> SourceNoise:
    """Sizes of the per-prompt differences of runs that differ in one thing, in the metric's unit.

    With d_pj the difference of prompt p in pair j: mean of |d|, the largest mean over p, the root of the mean
    variance over p (n - 1), and t(n - 1) sd / sqrt(n), where n is that of the pair with the fewest prompts. Where
    prompts name groups, sd and n of the half width are those of effective groups (``bench.stats.groups``).

    Args:
        source: what differs.
        pairs: for each pair of runs its prompts, 2 or more.
    """
    differences = [[prompt.difference for prompt in prompts] for prompts in pairs]
    n = min(len(found) for found in differences)
    sd = math.sqrt(stats.mean([float(np.var(found, ddof=1)) for found in differences]))
    units = [stats.group_units([p.difference for p in pair], [p.prompt.unit for p in pair]) for pair in pairs]
    grouped = any(len(one.values) < len(found) for one, found in zip(units, differences, strict=True))
    unit_sd = math.sqrt(stats.mean([one.sd**2 for one in units])) if grouped else sd
    worth = min(one.effective for one in units)
    return SourceNoise(
        source=source,
        pairs=len(pairs),
        prompts=n,
        mean_absolute=stats.mean([abs(value) for found in differences for value in found]),
        mean=max((stats.mean(found) for found in differences), key=abs),
        sd=sd,
        half_width=float(stdtrit(max(1.0, worth - 1), 0.975)) * unit_sd / math.sqrt(worth),
        unit_sd=unit_sd if grouped else None,
    )


def session_noise(sessions: Sequence[Run], variants: Sequence[str]) -> tuple[SessionNoise, ...]:
    """How far two sessions of the same weights lie apart, for each timed quantity that all variants have.

    With m_vs the median of all values of variant v in session s, the standard deviation of the log ratio of
    two sessions is sqrt(2) times that of log m_vs between sessions (n - 1), root mean square over the variants.
    It holds the noise of a session's rounds too. Degrees of freedom: variants x (sessions - 1).

    Args:
        sessions: 2 or more runs with timings; the fewest sessions that a variant has values in are counted.
        variants: names.

    Raises:
        InvalidError: a value of 0 or less, which no clock or memory counter gives.
    """
    found = []
    for name in get_args(TimingName):
        medians = [_session_medians(sessions, variant, name) for variant in variants]
        fewest = min(len(values) for values in medians)
        if fewest < 2:
            continue
        variance = stats.mean([float(np.var(np.log(values), ddof=1)) for values in medians])
        found.append(SessionNoise(name=name, sd_log_ratio=math.sqrt(2 * variance), sessions=fewest))
    return tuple(found)


def _session_medians(sessions: Sequence[Run], variant: str, name: TimingName) -> list[float]:
    medians = []
    for run in sessions:
        values = [
            value
            for timing in run.timings
            if (timing.variant, timing.name) == (variant, name)
            for value in timing.values
        ]
        if values and min(values) <= 0:
            raise InvalidError(
                f"{run.path}: timings.jsonl gives {name} of {variant} a value of 0 or less.",
                f"remove the folder {run.path}; the same command measures it again",
            )
        medians += [stats.quantiles(values).median] if values else []
    return medians


def _margin(
    facts: MetricFacts, suite: Suite, floor: float, seed: SourceNoise | None
) -> tuple[float | None, str | None]:
    if facts.category == "distance":
        return None, "it is a distance to the reference, which has no limit"
    if seed is None:
        return None, "there is no run with other seeds"
    # The gate is symmetric: what it can tell from the margin is what it needs of one at no loss.
    worth = int(effective_groups([prompt.unit for prompt in suite.prompts]))
    # A metric that only describes may be limited either way, and then both sides must hold.
    passes = (1 + PASSES) / 2 if facts.higher_is_better is None else PASSES
    smallest = detectable_loss(worth, seed.sd if seed.unit_sd is None else seed.unit_sd, passes)
    if smallest is None:
        of = "" if worth == len(suite.prompts) else f" in groups that are worth {worth}"
        return None, f"a gate on {len(suite.prompts)} prompts{of} never passes"
    if max(smallest, floor) == 0:
        return None, "the runs have the same scores throughout, with other seeds too"
    return max(smallest, floor), None


def _in_sds(margin: float | None, suite: Suite, scores: ImageScores) -> float | None:
    means = [prompt.reference for prompt in pair_prompts(suite, scores, scores, "image")]
    if margin is None or len(means) < 2 or min(means) == max(means):
        return None
    return margin / float(np.std(means, ddof=1))
