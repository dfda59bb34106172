"""Records of set metrics: one number of the images of a prompt or of a tag, and what it means."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bench.records.base import Dtype, Record
from bench.records.statistics import Interval

Number = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]
"""Finite, and such that sums of squares are; a set metric that gives another one has no number."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class SetScore(Record, frozen=True, omit_defaults=True):
    """One line of ``sets.jsonl``: a set metric of a variant's images of a prompt or tag, or None with the reason.

    Only samples and prompts count that every variant has, so that values of two variants are of as many images
    (``bench.metrics.image_sets``).
    """

    variant: str
    prompt_id: str | None
    """None where the set is of several prompts."""
    tag: str | None
    """Of the prompts; None where the set is of one prompt, or of all."""
    metric: str
    version: str
    prompts: int
    images: int
    """Of the variant; a metric that compares reads as many of the reference variant."""
    images_sha256: str | None
    """Over the sha256 of all that was read; None where no value was reached, so that the next ``score`` tries again."""
    value: Number | None
    reason: str | None = None
    metric_dtype: Dtype = "float32"
    scale: Number | None = None
    """What the value is to be held against, where the metric has such a number: of a drift, that between two noises
    of the reference variant."""
    without: tuple[Number, ...] = ()
    """Of a metric over tags: the value with each prompt, or group of prompts, left out in turn, in the suite's order;
    empty under 3 of them."""
    interval: Interval | None = None
    """Of a metric over pairs of prompts; None under 3 prompts or groups of them."""
    p: Share | None = None
    """Likewise: how often the candidate's and the reference's images, swapped prompt by prompt at random, lie as far
    apart."""

    @property
    def full_version(self) -> str:
        """As ``MetricFacts.full_version``, of this value."""
        return self.version if self.metric_dtype == "float32" else f"{self.version} in {self.metric_dtype}"


class SetDelta(Record, frozen=True):
    """What a set metric says of a candidate beside its reference, over all prompts or those of a tag.

    Of a metric over tags it is a difference; of one of category "distance" the distance itself.
    """

    metric: str
    candidate: str
    reference: str
    tag: str | None
    """None: all prompts."""
    prompts: int
    groups: int | None
    """Groups that the prompts fall into, which are then the unit; None where each prompt stands alone."""
    images: int
    """Of each side."""
    candidate_value: float | None
    """None, as ``reference_value``, of a distance."""
    reference_value: float | None
    mean: float
    """Candidate minus reference, or the distance, in the metric's unit."""
    interval: Interval | None
    """None where there are too few prompts, or groups of them."""
    p: float | None
    """Of a difference two-sided, of a distance of whole sets one-sided. None as ``interval``, and of a drift, of which
    0 means that the weights are the same."""
    p_holm: float | None = None
    """``p`` by Holm, of a tag within all tags of the pair and metric."""
    scale: float | None = None
    """What a distance is to be held against (``SetScore.scale``): the mean over the same prompts."""
