"""From the embeddings of a pass to set scores: the arithmetic of each set metric, set by set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.errors import MachineError
from bench.metrics.declare import NoScoreError, SetInputs, SetMetric
from bench.metrics.image_sets import ImageSet
from bench.records import Interval, SetScore
from bench.score.batches import describe, memory_for
from bench.score.plan import SetJob, make_set_score
from bench.stats.sets import MIN_UNITS

Key = tuple[str, str, int]
"""(variant, prompt, sample)."""
Rows = Mapping[tuple[str, Key], NDArray[np.float32] | Exception]
"""By preprocessing and image, its embedding (d,), or why there is none."""
LEVEL = 0.95
LARGEST = 1e100


class SetImageError(Exception):
    """Why a set has no number: one of its images has no embedding."""


def set_scores(jobs: Sequence[SetJob], rows: Rows) -> Generator[list[SetScore], None, None]:
    """The set scores of a pass, a list a metric."""
    for metric in dict.fromkeys(job.metric for job in jobs):
        with memory_for(f"computing {metric.facts.name}"):
            scores = [set_score(job, rows) for job in jobs if job.metric == metric]
        yield scores


def set_score(job: SetJob, rows: Rows) -> SetScore:
    """The number of one set, or a null with the reason; a null that no definition asks for is tried again."""
    metric, found, make = job.metric, job.images, partial(make_set_score, job.metric, job.images)
    try:
        inputs = _inputs(job, rows)
        score = _SCORED[metric.facts.over](metric, found, inputs, make())
    except (MachineError, MemoryError):
        raise
    except NoScoreError as error:
        return make(reason=describe(error))
    except SetImageError as error:
        return make(reason=str(error), final=False)
    except Exception as error:
        return make(reason=describe(error), final=False)
    return score


def _inputs(job: SetJob, rows: Rows) -> SetInputs:
    return SetInputs(_side(job, job.images.variant, rows), _side(job, job.reference, rows) if job.reference else None)


def _side(job: SetJob, variant: str, rows: Rows) -> tuple[NDArray[np.float64], ...]:
    """A variant's unit rows, prompt by prompt."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for prompt_id, sample in job.images.members:
        row = rows[job.metric.preprocessing, (variant, prompt_id, sample)]
        if isinstance(row, Exception):
            raise SetImageError(f"{variant}/{prompt_id}, sample {sample}: {describe(row)}") from row
        found.setdefault(prompt_id, []).append(row)
    stacked = [np.stack(own).astype(np.float64) for own in found.values()]
    return tuple(own / np.linalg.norm(own, axis=1, keepdims=True) for own in stacked)


def _of_prompt(metric: SetMetric, found: ImageSet, inputs: SetInputs, empty: SetScore) -> SetScore:
    scale = None
    if metric.scale is not None:
        with contextlib.suppress(NoScoreError):  # the number itself needs no scale
            scale = _number(metric, metric.scale(inputs))
    return msgspec.structs.replace(empty, value=_number(metric, metric.compute(inputs)), scale=scale)


def _of_tag(metric: SetMetric, found: ImageSet, inputs: SetInputs, empty: SetScore) -> SetScore:
    units = [prompt.unit for prompt in found.prompts]
    left_out = []
    for unit in dict.fromkeys(units) if len(set(units)) >= MIN_UNITS else ():
        rest = tuple(rows for rows, own in zip(inputs.images, units, strict=True) if own != unit)
        left_out.append(_number(metric, metric.compute(SetInputs(rest))))
    return msgspec.structs.replace(empty, value=_number(metric, metric.compute(inputs)), without=tuple(left_out))


def _of_pairs(metric: SetMetric, found: ImageSet, inputs: SetInputs, empty: SetScore) -> SetScore:
    matrix = np.asarray(metric.compute(inputs), dtype=np.float64)
    wanted = (len(found.prompts), len(found.prompts))
    if matrix.shape != wanted:
        raise ValueError(f"it returned shape {matrix.shape}, not {wanted}")
    value, units = _number(metric, stats.pair_mean(matrix)), [prompt.unit for prompt in found.prompts]
    ends = stats.pair_interval(matrix, units, level=LEVEL)
    kind = "prompts" if len(set(units)) == len(units) else "groups of prompts"
    interval = (
        None if ends is None else Interval(low=ends[0], high=ends[1], method=f"bootstrap over {kind}", level=LEVEL)
    )
    return msgspec.structs.replace(empty, value=value, interval=interval, p=stats.swap_p(matrix, units))


_SCORED: Mapping[str, Callable[[SetMetric, ImageSet, SetInputs, SetScore], SetScore]] = {
    "prompt": _of_prompt,
    "tag": _of_tag,
    "prompt pairs": _of_pairs,
}


def _number(metric: SetMetric, value: object) -> float:
    """A finite number of a size that can be squared; ValueError where it is none."""
    number = float(value)  # type: ignore[arg-type]
    if not abs(number) <= LARGEST:  # NaN neither
        raise ValueError(f"{metric.facts.name} gave {number}")
    return number
