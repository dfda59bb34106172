"""Records of the gate: verdicts, the frozen baseline that a run is compared with, and the noise of a calibration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bench.records.base import Record, TimingName, TrainingOverlap
from bench.records.finding import Finding
from bench.records.run import Fingerprint, Git, Machine, MetricFacts, TrainedOn
from bench.records.statistics import Interval
from bench.records.suite import Limit, Settings

Outcome = Literal["pass", "fail", "inconclusive", "invalid"]
"""A gate as a whole has its worst outcome: invalid, then fail, then inconclusive, then pass."""


VOTES_UNJUDGED = "The limit on votes is not judged"
"""How a gate's note begins where there is such a limit and nobody voted."""


class WorstPrompt(Record, frozen=True):
    """A prompt on which the candidate lost most."""

    prompt_id: str
    candidate: float
    reference: float
    loss: float
    """How much worse the candidate is, in the metric's unit; over 0 is worse."""


class Verdict(Record, frozen=True, kw_only=True):
    """The outcome for one metric or timed quantity of one candidate.

    A *loss* is how much worse the candidate is: over 0 is worse, whatever the metric's direction. For timed
    quantities it is the ratio of medians minus 1. For a metric that only describes it is how far the mean moved the way
    that the limit is on: its rise, its fall, or for a limit on both the size of its shift; ``shift`` is the movement
    itself.
    """

    name: str
    kind: Literal["metric", "timing"]
    unit: str
    candidate: str
    reference: str
    outcome: Outcome = "invalid"
    sentence: str = ""
    """Why, in one sentence that needs no statistics."""
    limit: Limit
    margin: float | None = None
    """The largest allowed loss, in the unit of the loss; None where it could not be computed."""
    loss: float | None = None
    interval: Interval | None = None
    """Two-sided 90 % interval of the loss; its upper end is the one-sided 95 % bound that the margin must hold."""
    shift: float | None = None
    """Of a metric that only describes, candidate - reference; else None."""
    shift_interval: Interval | None = None
    """Of ``shift``, likewise at 90 %."""
    candidate_mean: float | None = None
    """Mean over prompts; the median of a timed quantity."""
    reference_mean: float | None = None
    n: int = 0
    """Prompts, or rounds of a timed quantity."""
    samples: int = 0
    """Images a prompt, or values a round."""
    groups: int | None = None
    """Groups that the prompts fall into, which are then the unit of the interval; None where each stands alone."""
    effective: float | None = None
    """How many groups of equal size they are worth; None likewise."""
    tags_explain: float | None = None
    """Share of the variance of the losses that goes with tags, where it is much (``bench.compare.tags``)."""
    detectable: float | None = None
    """The smallest true loss beyond the margin that such a gate calls in 80 of 100 runs, in the unit of the loss."""
    needed: int | None = None
    """Prompts (rounds) that would probably decide it; only where the outcome is inconclusive."""
    equal_weights: bool = False
    training_overlap: TrainingOverlap | None = None
    """What a metric shares with what the candidate was trained on (``bench.metrics.training_data``); None of timed
    quantities, and where the run has no such metric or variant."""
    worst: tuple[WorstPrompt, ...] = ()
    """Of a metric, the up to ten prompts with the largest losses, the largest first."""


class Gate(Record, frozen=True):
    """``gate.json``: all verdicts of one gate, and what was compared."""

    schema: int
    outcome: Outcome
    run: str
    """Path of the candidate run's folder, as given."""
    run_id: str
    baseline: str
    """Path of the baseline file or run folder, as given; the run's own where two of its variants are compared."""
    baseline_id: str
    """Id of the run that the baseline was frozen from."""
    baseline_is_run: bool
    protocol_digest: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    """What the reader should know: variants that are new, quantities that were not gated and why."""
    time: str
    """ISO 8601, UTC."""
    findings: tuple[Finding, ...] = ()
    """Of each pair of variants, as information: the outcome rests on the limits alone."""


class FrozenRound(Record, frozen=True, array_like=True):
    """What a gate needs of one round of a timed quantity; in the file it is ``[median, values]``."""

    median: float | None
    """In seconds or bytes; None where a value of the round is one that no clock or memory counter gives."""
    values: int
    """How many there were, 1 or more."""


class FrozenVotes(Record, frozen=True):
    """How people's votes on one variant against the first spread beyond the prompts."""

    voters: Annotated[int, msgspec.Meta(ge=1)]
    extra: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    """What voters add to the variance over prompts (``bench.stats.votes.Spread``)."""
    noise: Annotated[float, msgspec.Meta(ge=0, le=1)]


class FrozenVariant(Record, frozen=True):
    """Per-prompt means of one variant's scores, and its timings by round."""

    fingerprint: Fingerprint
    values: dict[str, tuple[float | None, ...]]
    """Metric -> one mean over the samples for each prompt, in the order of ``Baseline.prompts``; None where no
    complete set of samples had scores.
    """
    timings: dict[TimingName, tuple[FrozenRound, ...]] = msgspec.field(default_factory=dict)
    """Quantity -> its rounds, in their order."""
    trained_on: TrainedOn | None = None
    """As the run's; None where it does not say."""
    votes: FrozenVotes | None = None
    """Of the shares in ``values["votes"]``; None where nobody voted, and of the first variant, which has half of its
    own."""
    doubts: tuple[str, ...] = ()
    """Why nothing can be said of it (``bench.soundness``), each a clause; a baseline that is written has none."""


class Acceptance(Record, frozen=True):
    """Who accepted these numbers as the baseline, against which earlier one."""

    by: str
    time: str
    """ISO 8601, UTC."""
    why: str = ""
    previous: str | None = None
    """Checksum of the baseline that this one replaced; None for the first one."""
    verdict: Outcome | None = None
    """The outcome of a gate of this run against the previous baseline."""


class SessionNoise(Record, frozen=True):
    """How far two sessions of the same weights lie apart on this machine, from ``calibrate``."""

    name: str
    """A timed quantity."""
    sd_log_ratio: float
    """Standard deviation of the log of the ratio of medians between two sessions."""
    sessions: int


class Baseline(Record, frozen=True):
    """A run frozen to what a gate needs: per-prompt values, no images. ``checksum`` guards against edits."""

    schema: int
    kind: Literal["hotart-bench baseline"]
    suite: str
    run_id: str
    protocol_digest: str
    settings: Settings
    samples: int
    seed: int
    limits: tuple[Limit, ...]
    prompts: dict[str, str]
    """Prompt id -> first 12 hex digits of the sha256 of the prompt, a zero byte, and the negative prompt, in UTF-8."""
    metrics: tuple[MetricFacts, ...]
    variants: tuple[FrozenVariant, ...]
    machine: Machine
    packages: dict[str, str]
    git: Git | None
    acceptance: Acceptance
    session_noise: tuple[SessionNoise, ...] = ()
    checksum: str = ""
    """sha256 of the file's canonical JSON with this field empty."""


NoiseSource = Literal["process", "batch", "device", "seed"]
"""What alone differs between two runs of the same weights."""


class SourceNoise(Record, frozen=True):
    """Differences of the prompts' means between runs of the same weights, in the metric's unit."""

    source: NoiseSource
    pairs: int
    """Pairs of runs behind the numbers."""
    prompts: int
    """Prompts with scores on both sides, in the pair with fewest."""
    mean_absolute: float
    """Mean size of a prompt's difference."""
    mean: float
    """Mean difference over the prompts, of the pair in which it is largest."""
    sd: float
    """Standard deviation (n - 1) of the prompts' differences, root mean square over the pairs."""
    half_width: float
    """Half width of the 95 % Student interval of the mean difference."""
    unit_sd: float | None = None
    """Standard deviation of effective groups of prompts; None where each prompt stands alone."""


class MetricNoise(Record, frozen=True):
    """The noise floor of one metric of one variant, and the smallest margin that it allows."""

    variant: str
    metric: str
    unit: str
    sources: tuple[SourceNoise, ...]
    floor: float
    """Largest size of the mean difference plus its half width over process, batch and device."""
    margin: float | None
    """The smallest margin at which runs with other seeds pass in 90 of 100 gates, never below ``floor``."""
    margin_sd: float | None
    """The margin in standard deviations of the variant's prompt means; None where those are all equal."""
    reason: str | None = None
    """Why there is no margin."""


class Calibration(Record, frozen=True):
    """``calibration.json``: A/A test on one machine, from ``calibrate``."""

    schema: int
    kind: Literal["hotart-bench calibration"]
    suite: str
    protocol_digest: str
    prompts: int
    samples: int
    machine: Machine
    packages: dict[str, str]
    noise: tuple[MetricNoise, ...]
    session_noise: tuple[SessionNoise, ...]
    """Of each timed quantity, with ``sessions - 1`` degrees of freedom for each variant."""
    notes: tuple[str, ...]
    """What the reader should know: what was not done, and why."""
    time: str
    """ISO 8601, UTC."""
