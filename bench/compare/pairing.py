"""Which scores count, and how two variants' scores are paired.

The unit is the prompt. Images are paired by prompt and sample, which share their noise; the samples of a
prompt are averaged over the pairs that have both scores. A score counts if it is finite, was made by the
metric's version in ``run.json``, and is of the images that ``renders.jsonl`` records; every other pair is
missing. The number that a set metric has of a prompt's images counts as the score of each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics.image_checks import digest_of, other_samples
from bench.metrics.image_sets import ImageSet, Usable, is_current_set, sets_of, usable_images
from bench.records import Over, Prompt, Render, Run, Score, SetScore, Suite

ImageScores = Mapping[tuple[str, int], float]
"""Scores of one metric of one variant by prompt id and sample number."""


class PromptPair(NamedTuple):
    """One prompt's means over its pairs of images, in the metric's unit."""

    prompt: Prompt
    candidate: float
    reference: float
    difference: float
    """Mean of candidate - reference over the pairs."""
    samples: int
    """Pairs of images behind the means, at least 1."""


def paired_prompts(candidate: Run, reference: Run, variants: tuple[str, str], metric: str) -> tuple[PromptPair, ...]:
    """Each prompt's paired means of one metric, in the suite's order; prompts without a pair are left out.

    ``variants`` names one of the candidate run and one of the reference run, which may be the same run.
    Nothing is refused here: ``bench.compare`` does that.
    """
    above = usable_scores(candidate).get((variants[0], metric), {})
    below = usable_scores(reference).get((variants[1], metric), {})
    over: Over = next((facts.over for facts in candidate.info.metrics if facts.name == metric), "image")
    return pair_prompts(candidate.info.suite, above, below, over)


def usable_scores(run: Run) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    """The scores that count, by (variant, metric), then by (prompt, sample), in the metric's unit; found once a run."""
    known: dict[tuple[str, str], dict[tuple[str, int], float]] | None = run.__dict__.get("usable_scores")
    if known is None:
        known = run.__dict__["usable_scores"] = _usable_scores(run)
    return known


def _usable_scores(run: Run) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    current = {(facts.name, facts.version, facts.metric_dtype) for facts in run.info.metrics}
    images = {(render.variant, render.prompt_id, render.sample): render.sha256 for render in run.renders}
    reference = run.info.suite.variants[0].name
    others = cache(lambda: other_samples(run.renders))  # few runs have a need for it
    table: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    for score in run.scores:
        if score.value is None or score.image_sha256 is None or not math.isfinite(score.value):
            continue  # no number, or one that no recorded image stands behind
        if images.get((score.variant, score.prompt_id, score.sample)) != score.image_sha256:
            continue
        if (score.metric, score.version, score.metric_dtype) not in current:
            continue
        if _compares_these_images(score, reference, images, others):
            table.setdefault((score.variant, score.metric), {})[score.prompt_id, score.sample] = score.value
    for found, of_set in usable_sets(run, ("prompt",)):
        if of_set.value is not None:
            own = table.setdefault((of_set.variant, of_set.metric), {})
            own |= dict.fromkeys(found.members, of_set.value)
    return table


def _compares_these_images(
    score: Score,
    reference: str,
    images: Mapping[tuple[str, str, int], str | None],
    others: Callable[[], Mapping[tuple[str, str, int], Sequence[Render]]],
) -> bool:
    """Whether a score compares its image with what the run has: the reference's image, or the prompt's other ones."""
    if score.reference_sha256 in (None, images.get((reference, score.prompt_id, score.sample))):
        return True
    own = others().get((score.variant, score.prompt_id, score.sample), ())
    return score.reference_sha256 == digest_of(other.sha256 for other in own)


def usable_sets(
    run: Run, over: tuple[Over, ...] = ("prompt", "tag", "prompt pairs")
) -> Iterator[tuple[ImageSet, SetScore]]:
    """The set scores that count, each with its images, of metrics over these, in the order of ``sets_of``."""
    known = {(one.variant, one.prompt_id, one.tag, one.metric): one for one in run.set_scores}
    usable = usable_images(run) if known else Usable({}, {}, {})
    for facts in run.info.metrics:
        for found in sets_of(run, usable, facts) if facts.over in over else ():
            score = known.get((*found.key, facts.name))
            if score is not None and score.value is not None and is_current_set(score, found, facts):
                yield found, score


def _of_equal_sets(candidate: ImageScores, reference: ImageScores) -> tuple[ImageScores, ImageScores]:
    """A set metric's numbers of two sides, without the prompts of which they are not of the same samples."""
    ours, theirs = _samples(candidate), _samples(reference)
    equal = {prompt_id for prompt_id in ours if ours[prompt_id] == theirs.get(prompt_id)}
    above, below = ({key: value for key, value in side.items() if key[0] in equal} for side in (candidate, reference))
    return above, below


def _samples(side: ImageScores) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for prompt_id, sample in side:
        found.setdefault(prompt_id, set()).add(sample)
    return found


def pair_prompts(suite: Suite, candidate: ImageScores, reference: ImageScores, over: Over) -> tuple[PromptPair, ...]:
    """The suite's prompts with at least one pair of scores, in its order, with their paired means.

    Of a metric over prompts only those of which both sides have the same samples: two images are worth fewer different
    ones than three.
    """
    if over == "prompt":
        candidate, reference = _of_equal_sets(candidate, reference)
    keys = [(prompt.id, sample) for prompt in suite.prompts for sample in range(suite.samples)]
    sides = [np.array([side.get(key, math.nan) for key in keys]) for side in (candidate, reference)]
    above, below = (side.reshape(len(suite.prompts), suite.samples) for side in sides)
    both = ~(np.isnan(above) | np.isnan(below))
    paired = np.flatnonzero(both.any(axis=1))
    above, below, both = above[paired], below[paired], both[paired]
    means = (_means(values, both) for values in (above, below, above - below))
    prompts = [suite.prompts[place] for place in paired]
    return tuple(map(PromptPair._make, zip(prompts, *means, both.sum(axis=1).tolist(), strict=True)))


def _means(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> list[float]:
    """``stats.mean`` of each row's values that are ``counted``, one at least."""
    sums = map(math.fsum, np.where(counted, values, 0.0).tolist())
    means = np.fromiter(sums, np.float64, len(values)) / counted.sum(axis=1)
    if not np.isfinite(means).all():
        raise ValueError("values must be finite")
    # Equal values are their own mean, though their rounded sum over n may not be.
    least = np.where(counted, values, np.inf).min(axis=1, initial=np.inf)
    most = np.where(counted, values, -np.inf).max(axis=1, initial=-np.inf)
    found: list[float] = np.minimum(np.maximum(means, least), most).tolist()
    return found


def cut_prompts(run: Run) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The metrics whose encoder read only the beginning of some prompts, in the run's order, each with their ids.

    By the scores of the version that counts; ids in the suite's order, at least one.
    """
    versions = {facts.name: facts.full_version for facts in run.info.metrics}
    cut: dict[str, set[str]] = {}
    for score in run.scores:
        if score.prompt_cut and score.full_version == versions.get(score.metric):
            cut.setdefault(score.metric, set()).add(score.prompt_id)
    found = []
    for facts in run.info.metrics:
        prompts = tuple(prompt.id for prompt in run.info.suite.prompts if prompt.id in cut.get(facts.name, ()))
        if prompts:
            found.append((facts.name, prompts))
    return tuple(found)
