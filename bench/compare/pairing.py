"""Which scores count, and how two variants' scores are paired.

The unit is the prompt. Images are paired by prompt and sample, which share their noise; the samples of a
prompt are averaged over the pairs that have both scores. A score counts if it is finite, was made by the
metric's version in ``run.json``, and is of the images that ``renders.jsonl`` records; every other pair is
missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench import stats
from bench.metrics.image_checks import digest_of, other_samples
from bench.records import Prompt, Render, Run, Score, Suite

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
    return pair_prompts(candidate.info.suite, above, below)


def usable_scores(run: Run) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    """The scores that count, by (variant, metric), then by (prompt, sample), in the metric's unit."""
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
    return table


def pair_prompts(suite: Suite, candidate: ImageScores, reference: ImageScores) -> tuple[PromptPair, ...]:
    """The suite's prompts with at least one pair of scores, in its order, with their paired means."""
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
