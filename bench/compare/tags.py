"""Whether tags explain much of the differences: a sign that prompts of a tag are not independent."""

from __future__ import annotations

from collections.abc import Sequence

from bench import stats
from bench.records import Prompt

MIN_TAG_PROMPTS = 3
"""A tag with fewer prompts gets no row of its own, and explains nothing."""
MUCH = 0.1
"""Share of the variance: with ten prompts a tag, it makes a variance that goes by prompts half of the true one."""
NOISE_P = 0.001
"""So rarely do tags that mean nothing seem to explain anything, and the share must be large as well."""
ADVICE = (
    "Where the prompts of a tag vary one text or one subject, intervals are too narrow: give them a group in the "
    "prompt file."
)


def tags_explain(prompts: Sequence[Prompt], differences: Sequence[float]) -> float | None:
    """Share of the variance of per-prompt differences that goes with the prompts' tags, where it is much; else None.

    Adjusted R^2 of the linear model of all tags with 3 prompts or more (``bench.stats.explained_by``), from 10 % on,
    where the F test's p-value is under 0.1 %. None where prompts name groups: they are the unit then.
    """
    known = large_tags(prompts)
    if not known or any(prompt.group for prompt in prompts):
        return None
    found = stats.explained_by(differences, [[float(tag in prompt.tags) for tag in known] for prompt in prompts])
    return found.share if found is not None and found.share >= MUCH and found.p < NOISE_P else None


def large_tags(prompts: Sequence[Prompt]) -> list[str]:
    """The tags that at least ``MIN_TAG_PROMPTS`` of the prompts have, in their order."""
    tags = [tag for prompt in prompts for tag in prompt.tags]
    return [tag for tag in dict.fromkeys(tags) if tags.count(tag) >= MIN_TAG_PROMPTS]
