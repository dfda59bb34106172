"""Set scores -> what each says of a candidate beside its reference: a difference, or a distance, with its interval.

Set metrics over prompts that are no distances are compared like any other metric (``bench.compare.compare_run``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from bench import stats
from bench.compare.pairing import usable_sets
from bench.compare.tags import large_tags
from bench.metrics.image_sets import ImageSet
from bench.records import Interval, Prompt, Run, SetDelta, SetScore


class Found(NamedTuple):
    """A set score that counts, and its images."""

    images: ImageSet
    score: SetScore
    value: float


Table = Mapping[tuple[str, str], Mapping[str | None, Sequence[Found]]]
"""By metric and variant, then by tag; of a metric over prompts those of the tag's prompts."""


def compare_sets(
    candidate: Run,
    pairs: Sequence[tuple[str, str]],
    *,
    reference: Run | None = None,
    suffixes: tuple[str, str] = ("", ""),
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
) -> tuple[SetDelta, ...]:
    """What metrics over tags, and distances, say of pairs of variants: by pair, metric, tag (None first).

    Tags of fewer than ``MIN_TAG_PROMPTS`` prompts have no row, as in ``compare_run``.

    A number over a tag is compared by its difference, with a jackknife over prompts or groups of them, where both
    sides are of the same prompts and samples. A distance is that of a variant from its run's first one, and stands
    where the pair is those two of one run: one over prompts is the mean over them with its BCa interval, one over
    pairs of prompts has its interval already.

    Args:
        candidate: a run as it was read.
        pairs: (candidate, reference) names of variants.
        reference: the run of the second names; None for the same run.
        suffixes: what is put behind the names of the two sides.
        metrics: names; None means all metrics of the run.
        level: two-sided coverage of the intervals that are made here.
    """
    suite, ours = candidate.info.suite, _table(candidate)
    theirs = ours if reference is None else _table(reference)
    tags = (None, *large_tags(suite.prompts))
    deltas: list[SetDelta] = []
    for one, other in pairs:
        names = one + suffixes[0], other + suffixes[1]
        from_first = reference is None and other == suite.variants[0].name
        for facts in candidate.info.metrics:
            if metrics is not None and facts.name not in metrics:
                continue
            above, below = ours.get((facts.name, one), {}), theirs.get((facts.name, other), {})
            found: list[SetDelta] = []
            for tag in tags:
                if facts.over == "tag":
                    found += _differences(names, above.get(tag, ()), below.get(tag, ()), level)
                elif facts.over == "prompt pairs" and from_first:
                    found += [_distance(names, each) for each in above.get(tag, ())]
                elif facts.over == "prompt" and facts.category == "distance" and from_first and tag in above:
                    found.append(_mean_distance(names, tag, above[tag], level))
            deltas += _adjusted(found)
    return tuple(deltas)


def _table(run: Run) -> Table:
    table: dict[tuple[str, str], dict[str | None, list[Found]]] = {}
    for images, score in usable_sets(run):
        if score.value is not None:
            own = table.setdefault((score.metric, score.variant), {})
            tags = (score.tag,) if score.prompt_id is None else (None, *images.prompts[0].tags)
            for tag in dict.fromkeys(tags):
                own.setdefault(tag, []).append(Found(images, score, score.value))
    return table


def _differences(
    names: tuple[str, str], above: Sequence[Found], below: Sequence[Found], level: float
) -> list[SetDelta]:
    """The difference of two numbers of one tag; none where they are not of the same prompts and samples."""
    if not above or not below or above[0].images.members != below[0].images.members:
        return []
    ours, theirs = above[0], below[0]
    units = [prompt.unit for prompt in ours.images.prompts]
    whole = ours.value - theirs.value
    without = [ours.score.without, theirs.score.without]
    known = {len(side) for side in without} == {len(set(units))}
    left_out = [one - two for one, two in zip(*without, strict=True)] if known else []
    freedom = max(1.0, stats.effective_groups(units) - 1.0)
    estimate = stats.jackknife(whole, left_out, level=level, freedom=freedom) if left_out else None
    method = f"jackknife over {_kind(units)}"
    return [
        _delta(
            names,
            ours.score.tag,
            [ours],
            values=(ours.value, theirs.value),
            mean=whole,
            interval=estimate and Interval(low=estimate.low, high=estimate.high, method=method, level=level),
            p=estimate and estimate.p,
        )
    ]


def _distance(names: tuple[str, str], found: Found) -> SetDelta:
    return _delta(names, found.score.tag, [found], mean=found.value, interval=found.score.interval, p=found.score.p)


def _mean_distance(names: tuple[str, str], tag: str | None, found: Sequence[Found], level: float) -> SetDelta:
    """The mean over prompts of the distances within each, beside the mean of what they are held against."""
    values, units = [one.value for one in found], [one.images.prompts[0].unit for one in found]
    scales = [one.score.scale for one in found if one.score.scale is not None]
    interval = None
    if len(set(units)) > 1:
        low, high = stats.bootstrap_bca(stats.group_units(values, units).values, level=level)
        interval = Interval(low=low, high=high, method=f"BCa bootstrap over {_kind(units)}", level=level)
    scale = stats.mean(scales) if len(scales) == len(found) else None
    return _delta(names, tag, found, mean=stats.mean(values), interval=interval, scale=scale)


def _delta(
    names: tuple[str, str],
    tag: str | None,
    found: Sequence[Found],
    *,
    mean: float,
    interval: Interval | None,
    values: tuple[float | None, float | None] = (None, None),
    p: float | None = None,
    scale: float | None = None,
) -> SetDelta:
    prompts: list[Prompt] = [prompt for one in found for prompt in one.images.prompts]
    units = {prompt.unit for prompt in prompts}
    return SetDelta(
        metric=found[0].score.metric,
        candidate=names[0],
        reference=names[1],
        tag=tag,
        prompts=len(prompts),
        groups=None if len(units) == len(prompts) else len(units),
        images=sum(len(one.images.members) for one in found),
        candidate_value=values[0],
        reference_value=values[1],
        mean=mean,
        interval=interval,
        p=p,
        scale=scale,
    )


def _kind(units: Sequence[tuple[str, str]]) -> str:
    return "prompts" if len(set(units)) == len(units) else "groups of prompts"


def _adjusted(deltas: Sequence[SetDelta]) -> list[SetDelta]:
    """The deltas of one pair and metric, with ``p_holm``: of all prompts ``p``, of tags Holm's within the tags."""
    tagged = [one.p for one in deltas if one.tag is not None and one.p is not None]
    adjusted = iter(stats.holm(tagged)) if tagged else iter(())
    return [
        one if one.p is None else msgspec.structs.replace(one, p_holm=one.p if one.tag is None else next(adjusted))
        for one in deltas
    ]
