"""Step scores -> curves of paired differences, and how early the order of the final images shows.

The unit is the prompt, or the group of prompts, as everywhere. Only images count that have a score at every step of a
curve, so that its steps are of the same images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.compare.pairing import usable_scores
from bench.records import Run, StepCurve, StepOrder, StepScore, Suite

DECIDED = 0.9
"""Share of the pairs in the final order from which on the images count as decided."""
Key = tuple[str, int]
"""Prompt id and sample."""
Paths = Mapping[tuple[str, str], Mapping[Key, NDArray[np.float64]]]
"""(variant, metric) -> image -> its values at the steps, (k,)."""


def steps_of(scores: Iterable[StepScore]) -> tuple[int, ...]:
    """The steps that were scored, rising."""
    return tuple(sorted({score.step for score in scores}))


def paths_of(run: Run, scores: Sequence[StepScore], steps: Sequence[int]) -> Paths:
    """The values of each image that has one at every step, of the image that the run holds."""
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    place = {step: number for number, step in enumerate(steps)}
    table: dict[tuple[str, str], dict[Key, NDArray[np.float64]]] = {}
    for score in scores:
        if score.value is None or images.get((score.variant, score.prompt_id, score.sample)) != score.image_sha256:
            continue
        own = table.setdefault((score.variant, score.metric), {})
        values = own.setdefault((score.prompt_id, score.sample), np.full(len(steps), math.nan))
        values[place[score.step]] = score.value
    return {
        which: {key: values for key, values in own.items() if np.isfinite(values).all()} for which, own in table.items()
    }


def step_curves(
    run: Run, scores: Sequence[StepScore], pairs: Sequence[tuple[str, str]], *, level: float = 0.95
) -> tuple[StepCurve, ...]:
    """The difference of each pair of variants at each step, by metric, with a simultaneous band.

    Args:
        run: whose images' paths were scored.
        scores: of ``steps.jsonl``.
        pairs: (candidate, reference).
        level: two-sided coverage of a whole curve.
    """
    steps = steps_of(scores)
    paths, finals = paths_of(run, scores, steps), usable_scores(run)
    curves = []
    for metric in dict.fromkeys(score.metric for score in scores):
        for candidate, reference in pairs:
            above, below = paths.get((candidate, metric), {}), paths.get((reference, metric), {})
            rows = _by_prompt(run.info.suite, {key: above[key] - below[key] for key in above if key in below})
            if len(set(rows.units)) < 2:
                continue
            band = stats.simultaneous_band(rows.grouped(), level=level)
            ends = finals.get((candidate, metric), {}), finals.get((reference, metric), {})
            last = [ends[0][key] - ends[1][key] for key in rows.keys if key in ends[0] and key in ends[1]]
            curves.append(
                StepCurve(
                    metric=metric,
                    candidate=candidate,
                    reference=reference,
                    steps=steps,
                    mean=tuple(band.mean.tolist()),
                    low=tuple(band.low.tolist()),
                    high=tuple(band.high.tolist()),
                    level=level,
                    final=stats.mean(last) if len(last) == len(rows.keys) else None,
                    prompts=len(rows.units),
                    missing=len(run.info.suite.prompts) * run.info.suite.samples - len(rows.keys),
                )
            )
    return tuple(curves)


def step_orders(
    run: Run,
    scores: Sequence[StepScore],
    pairs: Sequence[tuple[str, str]],
    final_metrics: Mapping[str, str],
    *,
    level: float = 0.95,
) -> tuple[StepOrder, ...]:
    """How early the final order shows: of two variants on the same noise, and of two samples of one variant.

    Args:
        run: whose images' paths were scored.
        scores: of ``steps.jsonl``.
        pairs: (candidate, reference); samples are paired within the first pair's reference.
        final_metrics: step metric -> the metric that tells the order of the final images; others tell their own.
        level: two-sided coverage of a whole curve.
    """
    suite, table = run.info.suite, _Table.of(run, scores)
    found = []
    for metric in dict.fromkeys(score.metric for score in scores):
        final_metric = final_metrics.get(metric, metric)
        sides = [*pairs, *([(pairs[0][1], pairs[0][1])] if pairs and suite.samples > 1 else [])]
        for pair in sides:
            compared, last = _compared(suite, table, pair, metric, final_metric)
            rows = _by_prompt(suite, {key: _agreement(*one) for key, one in compared.items()})
            if len(set(rows.units)) < 2:
                continue
            band = stats.simultaneous_band(rows.grouped(), level=level)
            found.append(
                StepOrder(
                    metric=metric,
                    final_metric=metric if last else final_metric,
                    final_is_last_step=last,
                    candidate=pair[0],
                    reference=pair[1],
                    steps=table.steps,
                    agreement=tuple(band.mean.tolist()),
                    low=tuple(np.maximum(band.low, 0).tolist()),
                    high=tuple(np.minimum(band.high, 1).tolist()),
                    rank_correlation=_rank_correlations(compared.values()),
                    level=level,
                    prompts=len(rows.units),
                    pairs=len(compared),
                    reversed_steps=tuple(step for step, high in zip(table.steps, band.high, strict=True) if high < 0.5),
                    decided_step=_decided(table.steps, band.mean),
                )
            )
    return tuple(found)


class OrderDifference(NamedTuple):
    """How many more pairs one metric has in the final order than another at each step, with a simultaneous band."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    """Share of pairs of the one less that of the other, in [-1, 1]; a tie counts half."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    prompts: int
    pairs: int
    """Those that both metrics have at every step."""


def order_difference(
    run: Run,
    scores: Sequence[StepScore],
    pair: tuple[str, str],
    metrics: tuple[str, str],
    final_metric: str,
    *,
    level: float = 0.95,
) -> OrderDifference | None:
    """Whether the first of two metrics tells the final order earlier than the second, on the same pairs of images.

    Args:
        run: whose images' paths were scored.
        scores: of ``steps.jsonl``.
        pair: (candidate, reference); of one variant twice, two samples of each prompt are compared.
        metrics: of the steps.
        final_metric: that tells the order of the final images for both; None is returned where the run lacks it.
        level: two-sided coverage of the whole curve.
    """
    suite, table = run.info.suite, _Table.of(run, scores)
    (one, one_last), (other, other_last) = (_compared(suite, table, pair, name, final_metric) for name in metrics)
    if one_last or other_last:
        return None
    gaps: dict[tuple[object, ...], NDArray[np.float64]] = {
        key: _agreement(*one[key]) - _agreement(*other[key]) for key in one if key in other
    }
    rows = _by_prompt(suite, gaps)
    if len(set(rows.units)) < 2:
        return None
    band = stats.simultaneous_band(rows.grouped(), level=level)
    mean, low, high = (tuple(side.tolist()) for side in band)
    return OrderDifference(table.steps, mean, low, high, len(rows.units), len(gaps))


class _Table(NamedTuple):
    """The scores of a run at its steps and of its final images."""

    steps: tuple[int, ...]
    paths: Paths
    finals: Mapping[tuple[str, str], Mapping[Key, float]]

    @classmethod
    def of(cls, run: Run, scores: Sequence[StepScore]) -> _Table:
        steps = steps_of(scores)
        return cls(steps, paths_of(run, scores, steps), usable_scores(run))


def _compared(
    suite: Suite, table: _Table, pair: tuple[str, str], metric: str, final_metric: str
) -> tuple[dict[tuple[str, int, int], Pair], bool]:
    """The pairs of images, and whether the metric's own last step stands for the final ones, which have no scores."""
    above, below = (table.paths.get((variant, metric), {}) for variant in pair)
    ends = [table.finals.get((variant, final_metric), {}) for variant in pair]
    last = not all(ends)
    if last:
        ends = [_last(above), _last(below)]
    if pair[0] == pair[1]:
        return _seed_pairs(suite, above, ends[0]), last
    return _variant_pairs(above, below, *ends), last


def _last(side: Mapping[Key, NDArray[np.float64]]) -> dict[Key, float]:
    return {key: float(values[-1]) for key, values in side.items()}


Pair = tuple[NDArray[np.float64], float]
"""Of two images: the difference at each step, (k,), and that of the final images."""


def _variant_pairs(
    above: Mapping[Key, NDArray[np.float64]],
    below: Mapping[Key, NDArray[np.float64]],
    above_ends: Mapping[Key, float],
    below_ends: Mapping[Key, float],
) -> dict[tuple[str, int, int], Pair]:
    """The two variants' images of each prompt and sample."""
    keys = [key for key in above if key in below and key in above_ends and key in below_ends]
    return {(*key, key[1]): (above[key] - below[key], above_ends[key] - below_ends[key]) for key in keys}


def _seed_pairs(
    suite: Suite, paths: Mapping[Key, NDArray[np.float64]], ends: Mapping[Key, float]
) -> dict[tuple[str, int, int], Pair]:
    """Every two samples of each prompt."""
    found = {}
    for prompt in suite.prompts:
        keys = [(prompt.id, sample) for sample in range(suite.samples)]
        there = [key for key in keys if key in paths and key in ends]
        for one, other in itertools.combinations(there, 2):
            found[prompt.id, one[1], other[1]] = (paths[one] - paths[other], ends[one] - ends[other])
    return found


def _agreement(at_steps: NDArray[np.float64], final: float) -> NDArray[np.float64]:
    """1 where a step has the final order, 0 where it has the other, one half where either is a tie."""
    same: NDArray[np.float64] = (1 + np.sign(at_steps) * np.sign(final)) / 2
    return same


def _rank_correlations(pairs: Iterable[Pair]) -> tuple[float | None, ...]:
    """Spearman's rho by step; each pair counts both ways round, since which image comes first is no fact."""
    listed = list(pairs)
    differences = np.array([at_steps for at_steps, _ in listed])
    final = np.array([end for _, end in listed])
    both, ends = np.concatenate([differences, -differences]), np.concatenate([final, -final])
    if not ends.any():
        return tuple(None for _ in differences.T)
    return tuple(stats.spearman_rho(column, ends) if column.any() else None for column in np.moveaxis(both, 1, 0))


def _decided(steps: Sequence[int], agreement: NDArray[np.float64]) -> int | None:
    late = [step for step, share in zip(steps, agreement, strict=True) if share < DECIDED]
    after = [step for step in steps if not late or step > late[-1]]
    return after[0] if after else None


class _Rows(NamedTuple):
    """Curves of prompts, a row each: the means over their images, or pairs of images."""

    keys: tuple[tuple[object, ...], ...]
    """Of the images or pairs that count."""
    curves: NDArray[np.float64]
    """(prompts, k)."""
    units: tuple[tuple[str, str], ...]

    def grouped(self) -> NDArray[np.float64]:
        """A row for each group of prompts, with the means of the columns as they were."""
        return stats.group_rows(self.curves, self.units)


def _by_prompt(suite: Suite, curves: Mapping[tuple[object, ...], NDArray[np.float64]]) -> _Rows:
    own: dict[object, list[NDArray[np.float64]]] = {}
    for key, curve in curves.items():
        own.setdefault(key[0], []).append(curve)
    prompts = [prompt for prompt in suite.prompts if prompt.id in own]
    means = np.array([np.mean(own[prompt.id], axis=0) for prompt in prompts])
    return _Rows(tuple(curves), means, tuple(prompt.unit for prompt in prompts))
