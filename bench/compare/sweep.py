"""A swept LoRA: every metric over the weight, and the weights that no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from bench import stats
from bench.compare.pairing import pair_prompts, usable_scores
from bench.records import Category, Delta, MetricFacts, Run, SweepCurve, SweepPoint

PIXEL_SHIFT = "pixel shift"


def sweep_curve(run: Run, deltas: Sequence[Delta]) -> SweepCurve | None:
    """The points of a run of ``hotart-bench sweep``, from the deltas of ``compare_run``; None for another run.

    The front is over the first metric of preference (else of aesthetics), the first of alignment, and the pixel
    shift, by mean differences: the intervals say how sure each is.
    """
    sweep = run.info.suite.sweep
    if sweep is None:
        return None
    reference = run.info.suite.variants[0].name
    spreads = _spreads(run, reference)
    points = []
    for weight, variant in zip(sweep.weights, sweep.variants, strict=True):
        found = {
            one.metric: one
            for one in deltas
            if one.tag is None and (one.candidate, one.reference) == (variant, reference)
        }
        shift = 0.0 if variant == reference and spreads else _shift(found, spreads)
        points.append(SweepPoint(weight=weight, variant=variant, deltas=found, pixel_shift=shift, on_front=False))
    goals = _goals(run.info.metrics, with_pixels=bool(spreads))
    return SweepCurve(points=_mark_front(points, goals, reference), goals=tuple(name for name, _ in goals))


def _spreads(run: Run, reference: str) -> dict[str, float]:
    """Standard deviation of the reference's prompt means, by statistic of the pixels; those without any left out."""
    table = usable_scores(run)
    found = {}
    for facts in run.info.metrics:
        if facts.category == "pixels":
            scores = table.get((reference, facts.name), {})
            means = [prompt.reference for prompt in pair_prompts(run.info.suite, scores, scores, "image")]
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
            if spread > 0:
                found[facts.name] = spread
    return found


def _shift(deltas: dict[str, Delta], spreads: dict[str, float]) -> float | None:
    shares = [deltas[name].mean / spread for name, spread in spreads.items() if name in deltas]
    return math.sqrt(stats.mean([share**2 for share in shares])) if shares else None


def _goals(metrics: Sequence[MetricFacts], *, with_pixels: bool) -> list[tuple[str, int]]:
    """Name and sign of what the front is about: +1 where more is better."""

    def first(*categories: Category) -> list[tuple[str, int]]:
        found = [one for category in categories for one in metrics if one.category == category]
        directed = [(one.name, 1 if one.higher_is_better else -1) for one in found if one.higher_is_better is not None]
        return directed[:1]

    goals = [*first("preference", "aesthetic"), *first("alignment")]
    return [*goals, (PIXEL_SHIFT, -1)] if goals and with_pixels else goals


def _mark_front(
    points: Sequence[SweepPoint], goals: Sequence[tuple[str, int]], reference: str
) -> tuple[SweepPoint, ...]:
    places = [_place(point, goals, reference) for point in points]
    return tuple(
        msgspec.structs.replace(
            point,
            on_front=place is not None and bool(goals) and not any(_beats(other, place) for other in places if other),
        )
        for point, place in zip(points, places, strict=True)
    )


def _place(point: SweepPoint, goals: Sequence[tuple[str, int]], reference: str) -> tuple[float, ...] | None:
    """How good a point is in each goal, more being better; None where one is not known."""
    place = []
    for name, sign in goals:
        if name == PIXEL_SHIFT:
            if point.pixel_shift is None:
                return None
            value = point.pixel_shift
        elif name in point.deltas:
            value = point.deltas[name].mean
        elif point.variant == reference:
            value = 0.0
        else:
            return None
        place.append(sign * value)
    return tuple(place)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other
