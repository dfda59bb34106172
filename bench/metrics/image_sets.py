"""Which images a set metric reads: the sets of a run, of its prompts or tags. Imports no torch.

Numbers of sets are compared only at an equal number of images from equal noise. So a sample of a prompt counts if every
variant that has an image of the prompt has a usable one of this sample, and a prompt counts in a tag if every variant
has one. An image is usable if it was rendered and equals no other of its variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from bench.metrics.image_checks import duplicates
from bench.records import MetricFacts, Prompt, Run, SetScore

MIN_TAG_PROMPTS = 2
"""Prompts that a number over a tag needs."""
Samples = Mapping[str, tuple[int, ...]]
"""By prompt id, the samples that count."""


class ImageSet(NamedTuple):
    """The images of one variant that one number is of."""

    variant: str
    prompt_id: str | None
    tag: str | None
    prompts: tuple[Prompt, ...]
    """Those of ``members``, in the suite's order."""
    members: tuple[tuple[str, int], ...]
    """(prompt, sample) of each image that is read, of the variant and, where it is compared, of the reference."""
    digest: str
    """Over the sha256 of all these images, with their places."""
    reason: str | None
    """Why there can be no number; None where there can."""

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Which set of a run it is."""
        return self.variant, self.prompt_id, self.tag


class Usable(NamedTuple):
    """The images of a run that count in sets; the same for every metric."""

    images: Mapping[tuple[str, str, int], str]
    """(variant, prompt, sample) -> sha256 of those that are usable."""
    samples: Samples
    """Those that every variant has that has an image of the prompt."""
    shared: Samples
    """Of the prompts of which every variant has such samples."""


def usable_images(run: Run) -> Usable:
    """The images of a run that count in sets."""
    equal = duplicates(run.renders)
    images = {
        (one.variant, one.prompt_id, one.sample): one.sha256
        for one in run.renders
        if one.sha256 is not None and (one.variant, one.prompt_id, one.sample) not in equal
    }
    owned: dict[str, dict[str, set[int]]] = {}
    for variant, prompt_id, sample in images:
        owned.setdefault(prompt_id, {}).setdefault(variant, set()).add(sample)
    variants = {variant for variant, _, _ in images}
    samples = {prompt_id: tuple(sorted(set.intersection(*own.values()))) for prompt_id, own in owned.items()}
    shared = {prompt_id: found for prompt_id, found in samples.items() if found and owned[prompt_id].keys() == variants}
    return Usable(images, samples, shared)


def sets_of(
    run: Run, usable: Usable, facts: MetricFacts, *, min_samples: int = 1, variants: Collection[str] | None = None
) -> Iterator[ImageSet]:
    """Every set of a run that a set metric has a number or a null of, variant by variant.

    A metric over prompts has one of each prompt, any other one of all prompts, then of each tag. One of category
    "distance" has none of the reference variant.

    Args:
        run: a run as it was read.
        usable: its ``usable_images``.
        facts: of the metric.
        min_samples: images of a prompt that a metric over prompts needs.
        variants: those whose sets are wanted; None for all that have an image.
    """
    suite, with_images = run.info.suite, {variant for variant, _, _ in usable.images}
    reference, compares = suite.variants[0].name, facts.category == "distance"
    lacking = "the reference variant has no image" if compares and reference not in with_images else None
    names = [one.name for one in suite.variants if one.name in with_images and not (compares and one.name == reference)]
    for name in names if variants is None else [name for name in names if name in variants]:
        sides = (name, reference) if compares else (name,)
        if facts.over == "prompt":
            for prompt in suite.prompts:
                if any((name, prompt.id, sample) in usable.images for sample in range(suite.samples)):
                    yield _of_prompt(usable, sides, prompt, min_samples, lacking)
            continue
        for tag in (None, *dict.fromkeys(tag for prompt in suite.prompts for tag in prompt.tags)):
            meant = tuple(prompt for prompt in suite.prompts if tag is None or tag in prompt.tags)
            yield _of_tag(usable, sides, meant, tag, lacking)


def is_current_set(score: SetScore | None, found: ImageSet, facts: MetricFacts) -> bool:
    """Whether a set score is of the metric's version and dtype and of the images that the run has now."""
    return score is not None and score.full_version == facts.full_version and score.images_sha256 == found.digest


def _of_prompt(
    usable: Usable, sides: tuple[str, ...], prompt: Prompt, min_samples: int, lacking: str | None
) -> ImageSet:
    samples = usable.samples.get(prompt.id, ())
    members = tuple((prompt.id, sample) for sample in samples)
    alone = [side for side in sides if any((side, *member) not in usable.images for member in members)]
    reason = lacking
    if reason is None and alone:
        reason = "the reference variant has no image of this prompt"
    if reason is None and len(samples) < min_samples:
        reason = f"{_count(len(samples))} of the prompt that every variant has; {min_samples} are needed"
    return ImageSet(sides[0], prompt.id, None, (prompt,), members, _digest(usable, sides, members), reason)


def _of_tag(
    usable: Usable, sides: tuple[str, ...], meant: tuple[Prompt, ...], tag: str | None, lacking: str | None
) -> ImageSet:
    prompts = tuple(prompt for prompt in meant if prompt.id in usable.shared)
    members = tuple((prompt.id, sample) for prompt in prompts for sample in usable.shared[prompt.id])
    reason = lacking
    if reason is None and len(prompts) < MIN_TAG_PROMPTS:
        where = "the suite" if tag is None else "the tag"
        reason = f"{len(prompts)} of {len(meant)} prompts of {where} have images of every variant; 2 are needed"
    return ImageSet(sides[0], None, tag, prompts, members, _digest(usable, sides, members), reason)


def _count(samples: int) -> str:
    return f"there {'is' if samples == 1 else 'are'} {samples} sample{'' if samples == 1 else 's'}"


def _digest(usable: Usable, sides: Iterable[str], members: Iterable[tuple[str, int]]) -> str:
    """sha256 of the lines ``prompt TAB sample TAB sha256``, each image followed by that of the reference."""
    places = [(side, prompt, sample) for prompt, sample in members for side in sides]
    lines = [f"{prompt}\t{sample}\t{usable.images.get((side, prompt, sample))}\n" for side, prompt, sample in places]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
