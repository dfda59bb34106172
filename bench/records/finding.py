"""Records of a finding: whether a gain is real, and what it cost."""

from __future__ import annotations

from typing import Literal

from bench.records.base import Category, Record, TrainingOverlap
from bench.records.statistics import Interval

FindingWord = Literal["earned", "mixed", "bought", "worse", "not shown"]

Reading = Literal["gain", "price", "not excluded", "within its limit", "no limit", "not read"]
"""What one metric says. ``not excluded``: its interval holds its limit, so that a price is neither shown nor ruled
out."""


GAINS: tuple[Category, ...] = ("preference", "aesthetic", "alignment")
"""Categories in which a candidate can gain; every other metric can only be a price."""


class FindingMetric(Record, frozen=True):
    """One metric as a finding reads it; differences are candidate - reference in its unit, prompts as the unit."""

    metric: str
    category: Category
    higher_is_better: bool | None
    training_overlap: TrainingOverlap
    """What it shares with what the candidate was trained on."""
    reads: Reading
    reason: str = ""
    """Why it is not read, or has no limit; else empty."""
    prompts: int = 0
    missing: int = 0
    """Prompts without a score on one of the sides, which are left out."""
    reference_mean: float | None = None
    mean: float | None = None
    interval: Interval | None = None
    """Of the difference. The upper ends of all metrics of a finding hold together with 95 %, and so do the lower
    ones."""
    limit: str = ""
    """As a suite writes it."""
    own_limit: bool = False
    """Whether the suite gives it; else it is the default."""
    margin: float | None = None
    """What the limit comes to."""
    prompt_sd: float | None = None
    """Standard deviation of the reference's prompt means."""
    sample_sd: float | None = None
    """Standard deviation between the samples of one prompt of the reference, which differ by their seed alone; None
    with one sample."""
    pairs_won: float | None = None
    """Share of the pairs of images that the candidate wins, ties by half, where a metric is a model of choice."""

    @property
    def prompt_spreads(self) -> float | None:
        """The difference in spreads between prompts; None where the reference scores the same on all."""
        return self.mean / self.prompt_sd if self.mean is not None and self.prompt_sd else None

    @property
    def sample_spreads(self) -> float | None:
        """The difference in spreads between seeds; None where that is not known."""
        return self.mean / self.sample_sd if self.mean is not None and self.sample_sd else None


class Finding(Record, frozen=True):
    """Whether a candidate's gain over a reference is earned, bought, mixed with a price, or not shown."""

    candidate: str
    reference: str
    word: FindingWord
    sentences: tuple[str, ...]
    """The first one is the finding in plain words; then its evidence, and what it leaves open."""
    metrics: tuple[FindingMetric, ...]
    """All that were read, and those that could not be."""
