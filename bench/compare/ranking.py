"""Three or more variants ranked by the prompts that each wins, ties or loses against each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from bench import stats
from bench.comparability import check_names
from bench.compare.pairing import ImageScores, usable_scores
from bench.records import Interval, MetricFacts, Ranking, Run, Strength, Suite

MIN_RANKED = 3
"""Two variants are a pair, which ``compare_run`` covers."""
TOLD_APART_P = 0.05


def rank_variants(run: Run, *, metrics: Sequence[str] | None = None, level: float = 0.95) -> tuple[Ranking, ...]:
    """Each metric's ranking of the run's variants by Davidson's model, in the order of the run's metrics.

    On each prompt two variants are compared by their means over the same samples, in the metric's better
    direction; prompts are the unit (see ``bench.stats.fit_davidson``). It goes by how often a variant is
    better, not by how much: ``compare_run`` says that.

    There is none for a metric of category "distance" or without a better direction, nor where fewer than 3
    variants have scores or fewer than 2 prompts, or groups of prompts, have scores of all that do.

    Args:
        run: a run as it was read.
        metrics: names; None means all metrics of the run.
        level: two-sided coverage of the intervals of strengths.

    Raises:
        UsageError: an unknown metric.
    """
    known = [facts.name for facts in run.info.metrics]
    check_names(metrics or (), known, "The run has no metric")
    wanted = known if metrics is None else metrics
    table = usable_scores(run)
    rankings = []
    for facts in run.info.metrics:
        if facts.name not in wanted or facts.higher_is_better is None or facts.category == "distance":
            continue
        scores: dict[str, ImageScores] = {
            variant.name: table[variant.name, facts.name]
            for variant in run.info.suite.variants
            if (variant.name, facts.name) in table
        }
        found = _ranking(facts, run.info.suite, scores, level)
        if found is not None:
            rankings.append(found)
    return tuple(rankings)


def _ranking(facts: MetricFacts, suite: Suite, scores: dict[str, ImageScores], level: float) -> Ranking | None:
    if len(scores) < MIN_RANKED:
        return None
    shared = _shared_samples(suite, list(scores.values()))
    owners = {prompt.id: prompt.unit for prompt in suite.prompts}
    units = [owners[prompt[0][0]] for prompt in shared]
    if len(set(units)) < 2:
        return None
    better = 1 if facts.higher_is_better else -1
    # Sums of the same number of samples rank as means do, and exactly rounded ones tie where images do.
    totals = [[better * math.fsum(own[key] for key in prompt) for own in scores.values()] for prompt in shared]
    fit = stats.fit_davidson(totals, level=level, groups=units)
    names = list(scores)
    # Equal strengths come out equal up to rounding, and keep the suite's order.
    order = sorted(range(len(names)), key=lambda index: -round(fit.strengths[index], 9))
    samples = sum(map(len, shared))
    return Ranking(
        metric=facts.name,
        strengths=tuple(_strength(names[index], index, fit, level) for index in order),
        tied_sets=tuple(tuple(names[order[place]] for place in places) for places in _tied_places(fit, order)),
        tie=fit.tie,
        prompts=len(shared),
        samples=samples,
        missing=len(suite.prompts) * suite.samples - samples,
        left_out=tuple(variant.name for variant in suite.variants if variant.name not in scores),
    )


def _shared_samples(suite: Suite, sides: Sequence[ImageScores]) -> list[list[tuple[str, int]]]:
    """For each prompt that has any, the (prompt, sample) keys that all of ``sides`` have a score for."""
    shared = set(sides[0]).intersection(*sides[1:])
    keys = ([(prompt.id, sample) for sample in range(suite.samples)] for prompt in suite.prompts)
    return [found for prompt in keys if (found := [key for key in prompt if key in shared])]


def _tied_places(fit: stats.DavidsonFit, order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The tied sets as places in the ranking, 0 for the strongest."""
    apart = [
        (one, other)
        for one, other in itertools.combinations(range(len(order)), 2)
        if fit.pair_p[min(order[one], order[other]), max(order[one], order[other])] <= TOLD_APART_P
    ]
    return stats.tied_sets(len(order), apart)


def _strength(name: str, index: int, fit: stats.DavidsonFit, level: float) -> Strength:
    low, high = fit.intervals[index]
    return Strength(
        variant=name,
        strength=fit.strengths[index],
        interval=Interval(low=low, high=high, method="Davidson's model, sandwich over prompts", level=level),
        wins=fit.wins[index],
        ties=fit.ties[index],
        losses=fit.losses[index],
    )
