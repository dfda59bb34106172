"""Which scores count, and how two variants' scores are paired.

The unit is the prompt. Images are paired by prompt and sample, which share their noise; the samples of a
prompt are averaged over the pairs that have both scores. A score counts if it is finite, was made by the
metric's version in ``run.json``, and is of the images that ``renders.jsonl`` records; every other pair is
missing. The number that a set metric has of a prompt's images counts as the score of each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench import stats
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
    versions = {facts.name: facts.full_version for facts in run.info.metrics}
    images = {(render.variant, render.prompt_id, render.sample): render.sha256 for render in run.renders}
    reference = run.info.suite.variants[0].name
    others = other_samples(run.renders)
    table: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    for score in run.scores:
        if score.value is None or not math.isfinite(score.value):
            continue
        if versions.get(score.metric) == score.full_version and _is_of_these_images(score, reference, images, others):
            table.setdefault((score.variant, score.metric), {})[score.prompt_id, score.sample] = score.value
    for found, of_set in usable_sets(run, ("prompt",)):
        if of_set.value is not None:
            own = table.setdefault((of_set.variant, of_set.metric), {})
            own |= dict.fromkeys(found.members, of_set.value)
    return table


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
    found = []
    for prompt in suite.prompts:
        keys = [(prompt.id, sample) for sample in range(suite.samples)]
        both = [(candidate[key], reference[key]) for key in keys if key in candidate and key in reference]
        if both:
            above, below = zip(*both, strict=True)
            difference = stats.mean([one - other for one, other in both])
            found.append(PromptPair(prompt, stats.mean(above), stats.mean(below), difference, len(both)))
    return tuple(found)


def _is_of_these_images(
    score: Score,
    reference: str,
    images: Mapping[tuple[str, str, int], str | None],
    others: Mapping[tuple[str, str, int], Sequence[Render]],
) -> bool:
    key = score.variant, score.prompt_id, score.sample
    if score.image_sha256 is None or images.get(key) != score.image_sha256:
        return False  # a number that no recorded image stands behind
    compared = images.get((reference, score.prompt_id, score.sample))
    if score.reference_sha256 in (None, compared):
        return True
    return score.reference_sha256 == digest_of(other.sha256 for other in others.get(key, ()))


def cut_prompts(run: Run) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The metrics whose encoder read only the beginning of some prompts, in the run's order, each with their ids.

    By the scores of the version that counts; ids in the suite's order, at least one.
    """
    found = []
    for facts in run.info.metrics:
        own = {
            s.prompt_id
            for s in run.scores
            if s.metric == facts.name and s.full_version == facts.full_version and s.prompt_cut
        }
        prompts = tuple(prompt.id for prompt in run.info.suite.prompts if prompt.id in own)
        if prompts:
            found.append((facts.name, prompts))
    return tuple(found)
