"""Paired differences -> a finding: is the gain earned, bought, mixed with a price, or not shown?

``docs/finding.md`` has the rules and how often they are wrong. ``find`` is the one function that decides; the others
gather what it reads, from runs or from frozen baselines. The sentences are ``finding_words``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from bench import stats
from bench.comparability import common_metrics, run_labels
from bench.compare.finding_words import sentences
from bench.compare.flat import flat_scores
from bench.compare.pairing import ImageScores, pair_prompts, usable_scores
from bench.compare.votes import EVEN, FACTS, are_voted_on, frozen_spread, share_of_pair, signs_of_pair
from bench.errors import UsageError
from bench.faces.asked import asked_prompts
from bench.metrics.training_data import overlap_with
from bench.records import (
    GAINS,
    VOTES_METRIC,
    Baseline,
    Finding,
    FindingMetric,
    FindingWord,
    FrozenVariant,
    Interval,
    Limit,
    MetricFacts,
    Prompt,
    Reading,
    Run,
    Suite,
    TrainedOn,
    TrainingOverlap,
)
from bench.stats.bounds import METHOD, MIN_PROMPTS, mean_bounds
from bench.stats.effects import sd
from bench.stats.groups import Units, group_units
from bench.stats.votes import Spread, voted_bounds
from bench.suite.limits import check_metric_limit, limit_outcome, metric_margin, parse_limit

ERROR = 0.05
"""How often any of the ends on one side of all intervals of a finding misses."""
DEFAULTS = {"better": "0.1sd", "describes": "+-0.5sd", "safety": "+0.5sd", "votes": "0.05"}
"""Limits where the suite gives none: of a metric with a better direction, of one that only describes, and of one of
safety, which may fall as far as it will. A tenth of a standard deviation of the reference's prompt means is the margin
that gates of such metrics use. Half of one is Cohen's medium effect, by his description one that is visible to the
naked eye of a careful observer (J. Cohen, Statistical power analysis for the behavioral sciences, 1988). Of votes, a
twentieth: who won half of them and is now at 45 of 100 lost the choice."""


@dataclass(frozen=True)
class PairedMetric:
    """What a finding reads of one metric: a value a prompt on each side, from images or from whole sets of them."""

    facts: MetricFacts
    overlap: TrainingOverlap
    """With what the candidate was trained on."""
    candidate: Sequence[float]
    """(n,) a prompt's mean in the metric's unit."""
    reference: Sequence[float]
    """(n,) likewise, of the same prompts."""
    units: Sequence[tuple[str, str]] | None = None
    """(n,) ``Prompt.unit``; None where each prompt stands alone."""
    limit: Limit | None = None
    """The suite's own."""
    missing: int = 0
    """Prompts that a side has no value of."""
    sample_sd: float | None = None
    """Standard deviation between the samples of one prompt of the reference."""
    pairs: Sequence[float] = field(default=())
    """Differences of the pairs of images, for a metric that is a model of choice."""
    spread: Spread | None = None
    """Of people's votes, how they spread over prompts and voters; None of any other metric."""


def find(candidate: str, reference: str, metrics: Sequence[PairedMetric]) -> Finding:
    """The finding on one candidate, from all metrics at once.

    Every metric that can be read gets one interval of its mean difference (``mean_bounds``), with each end at
    1 - ``ERROR`` / m for m metrics (Bonferroni), so that all upper ends hold together, and all lower ones. A gain is
    shown where the whole interval lies on the better side of 0; a price where the whole of it lies beyond the metric's
    limit. With the gains' training overlap and the prices the word follows (``word_of``).

    Args:
        candidate: a variant's name.
        reference: the variant that it is compared with.
        metrics: all that both have scores of, whatever they say: choosing among them by their results would make the
            error rates wrong.
    """
    reasons = [_unreadable(one) for one in metrics]
    level = 1 - 2 * ERROR / max(1, reasons.count(""))
    found = tuple(
        _read(one, level, reasons.count("")) if not reason else replace(_begun(one), reads="not read", reason=reason)
        for one, reason in zip(metrics, reasons, strict=True)
    )
    word = word_of(found)
    return Finding(
        candidate=candidate,
        reference=reference,
        word=word,
        sentences=sentences(word, candidate, reference, found),
        metrics=found,
    )


def word_of(metrics: Sequence[FindingMetric]) -> FindingWord:
    """The rules of docs/finding.md: the first that holds.

    1. A metric without training overlap gains: *mixed* where a price is shown, else *earned*.
    2. A metric of unknown overlap gains: *not shown*.
    3. A metric with overlap gains: *bought*.
    4. A metric with a better direction lost more than its limit, or one that only describes moved beyond a limit that
       the suite itself gives: *worse*.
    5. *not shown*.
    """
    gains = [one.training_overlap for one in metrics if one.reads == "gain"]
    prices = [one for one in metrics if one.reads == "price"]
    if "none" in gains:
        return "mixed" if prices else "earned"
    if "unknown" in gains:
        return "not shown"
    if gains:
        return "bought"
    return "worse" if any(one.higher_is_better is not None or one.own_limit for one in prices) else "not shown"


def _begun(one: PairedMetric) -> FindingMetric:
    return FindingMetric(
        metric=one.facts.name,
        category=one.facts.category,
        higher_is_better=one.facts.higher_is_better,
        training_overlap=one.overlap,
        reads="not read",
        prompts=len(one.candidate),
        missing=one.missing,
        reference_mean=stats.mean(one.reference) if len(one.reference) else None,
        mean=stats.mean(np.asarray(one.candidate) - np.asarray(one.reference)) if len(one.reference) else None,
    )


def _unreadable(one: PairedMetric) -> str:
    """Why nothing can be read of a metric, as a clause; empty where it can."""
    if one.facts.over == "tag":
        return "it has a number of each tag, none of a prompt"
    if len(one.candidate) < 2:
        return "fewer than 2 prompts have scores on both sides"
    worth = float(len(one.candidate)) if one.units is None else group_units(one.reference, one.units).effective
    if worth < MIN_PROMPTS:
        return f"fewer than {MIN_PROMPTS} prompts{' of different groups' if one.units else ''} decide nothing"
    above, below = np.asarray(one.candidate), np.asarray(one.reference)
    if (above == below).all():
        return ""  # nothing moved, which is an answer
    if one.spread is not None:
        return ""  # a variant has half of the votes against itself, on every prompt
    return flat_scores(above, below, one.facts.high if one.facts.higher_is_better else one.facts.low)


def _read(one: PairedMetric, level: float, together: int) -> FindingMetric:
    above, below = np.asarray(one.candidate), np.asarray(one.reference)
    units = group_units(above - below, one.units)
    if one.spread is None:
        low, high = mean_bounds(units.values, level, freedom=_freedom(units))
    else:
        low, high = voted_bounds(units.values, one.spread, level)
    limit, own, no_limit = _limit_of(one)
    margin, reason = (None, no_limit) if limit is None else metric_margin(limit, below.tolist())
    many = f", {together} metrics together (Bonferroni)" if together > 1 else ""
    begun = replace(
        _begun(one),
        interval=Interval(low=low, high=high, method=METHOD + many, level=level),
        limit="" if limit is None else limit.text,
        own_limit=own,
        margin=margin,
        prompt_sd=sd(below),
        sample_sd=one.sample_sd,
        pairs_won=stats.win_rate([_better(one.facts) * value for value in one.pairs]).rate if one.pairs else None,
    )
    reads = _reading(one.facts, limit, margin, low, high)
    return replace(begun, reads=reads, reason=reason if reads == "no limit" else no_limit)


def _freedom(units: Units) -> float | None:
    return units.freedom if units.effective < len(units.values) else None


def _better(facts: MetricFacts) -> int:
    return -1 if facts.higher_is_better is False else 1


def _kind(facts: MetricFacts) -> str:
    if facts.name == VOTES_METRIC:
        return "votes"
    if facts.higher_is_better is not None:
        return "better"
    return "safety" if facts.category == "safety" else "describes"


def _limit_of(one: PairedMetric) -> tuple[Limit | None, bool, str]:
    """The limit that counts, whether it is the suite's own, and why that does not count where it says nothing."""
    default = parse_limit(one.facts.name, DEFAULTS[_kind(one.facts)])
    if one.limit is None:
        return default, False, ""
    try:
        check_metric_limit(one.limit, one.facts)
    except UsageError as error:
        return default, False, error.message
    return one.limit, True, ""


def _reading(facts: MetricFacts, limit: Limit | None, margin: float | None, low: float, high: float) -> Reading:
    """What an interval of the difference says."""
    if facts.higher_is_better is False:
        low, high = -high, -low
    if facts.higher_is_better is not None and facts.category in GAINS and low > 0:
        return "gain"
    if limit is None or margin is None:
        return "no limit"
    # A loss is a fall of what was turned so that higher is better.
    falls = limit.limited in ("loss", "fall")
    ends = (-high, -low) if falls else (low, high)
    outcome = limit_outcome(*ends, margin, limit.limited)
    readings: dict[str, Reading] = {"pass": "within its limit", "fail": "price", "inconclusive": "not excluded"}
    return readings[outcome]


# What a finding reads: of two variants of runs, or of frozen baselines.


def find_in_run(run: Run, pairs: Sequence[tuple[str, str]]) -> tuple[Finding, ...]:
    """A finding for each (candidate, reference) pair of variants of one run that has scores."""
    first = run.info.suite.variants[0].name
    return _in_runs((run, run), ("", ""), pairs, run.info.metrics, (first, first))


def find_in_runs(candidate: Run, reference: Run, pairs: Sequence[tuple[str, str]]) -> tuple[Finding, ...]:
    """Likewise for a variant of one run and one of another, called ``variant@run``; by the limits of the reference.

    Raises:
        IncomparableError, UsageError: as ``compare_runs``.
    """
    labels = run_labels(candidate, reference)
    metrics = common_metrics(candidate, reference, labels, None)
    firsts = (candidate.info.suite.variants[0].name, reference.info.suite.variants[0].name)
    return _in_runs((candidate, reference), (f"@{labels[0]}", f"@{labels[1]}"), pairs, metrics, firsts)


def _in_runs(
    runs: tuple[Run, Run],
    suffixes: tuple[str, str],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[MetricFacts],
    firsts: tuple[str, str],
) -> tuple[Finding, ...]:
    suite, table = runs[0].info.suite, usable_scores(runs[0])
    other_table = table if runs[1] is runs[0] else usable_scores(runs[1])
    limits = {limit.name: limit for limit in runs[1].info.suite.limits}
    trained_on = runs[0].info.trained_on
    found = []
    for one, other in pairs:
        read = [
            _paired(suite, facts, overlap_with(facts, trained_on.get(one)), ours, theirs, limits.get(facts.name))
            for facts in metrics
            if not (facts.category == "distance" and (one == firsts[0] or other == firsts[1]))
            if (ours := table.get((one, facts.name))) and (theirs := other_table.get((other, facts.name)))
        ]
        # A distance to the reference variant describes how far two variants are from a third, which is neither.
        read = [metric for metric in read if metric.facts.category != "distance"]
        read += _votes(runs, (one, other), limits.get(VOTES_METRIC))
        if read:
            read += _of_tags(metrics, trained_on.get(one))
            found.append(find(one + suffixes[0], other + suffixes[1], read))
    return tuple(found)


def _votes(runs: tuple[Run, Run], pair: tuple[str, str], limit: Limit | None) -> list[PairedMetric]:
    """What people say of two variants of one run; none of two runs, whose images nobody saw beside each other."""
    share = share_of_pair(runs[0], *pair) if runs[0] is runs[1] else None
    if share is None:
        return []
    prompts = [prompt for prompt in runs[0].info.suite.prompts if prompt.id in share.by_prompt]
    return [
        PairedMetric(
            facts=FACTS,
            overlap="none",
            candidate=[share.by_prompt[prompt.id] for prompt in prompts],
            reference=[EVEN] * len(prompts),
            units=_units(prompts),
            limit=limit,
            pairs=signs_of_pair(runs[0], *pair),
            spread=share.spread,
        )
    ]


def _paired(
    suite: Suite,
    facts: MetricFacts,
    overlap: TrainingOverlap,
    ours: ImageScores,
    theirs: ImageScores,
    limit: Limit | None,
) -> PairedMetric:
    prompts = pair_prompts(suite, ours, theirs, facts.over)
    choice = facts.category == "preference"
    return PairedMetric(
        facts=facts,
        overlap=overlap,
        candidate=[one.candidate for one in prompts],
        reference=[one.reference for one in prompts],
        units=_units([one.prompt for one in prompts]),
        limit=limit,
        missing=len(asked_prompts(facts.prompts, suite.prompts)) - len(prompts),
        sample_sd=_sample_sd(theirs) if facts.over == "image" else None,
        pairs=[ours[key] - theirs[key] for key in ours.keys() & theirs.keys()] if choice else (),
    )


def _of_tags(metrics: Sequence[MetricFacts], variant: TrainedOn | None) -> list[PairedMetric]:
    """The metrics over tags, which have nothing to read and are named all the same."""
    return [PairedMetric(facts, overlap_with(facts, variant), (), ()) for facts in metrics if facts.over == "tag"]


def _units(prompts: Sequence[Prompt]) -> Sequence[tuple[str, str]] | None:
    return [prompt.unit for prompt in prompts] if any(prompt.group for prompt in prompts) else None


def _sample_sd(scores: ImageScores) -> float | None:
    """Pooled standard deviation of the samples of a prompt; None where no prompt has two."""
    samples: dict[str, list[float]] = {}
    for (prompt_id, _), value in scores.items():
        samples.setdefault(prompt_id, []).append(value)
    several = [values for values in samples.values() if len(values) > 1]
    counts = np.array([len(values) for values in several], dtype=np.intp)
    squares = np.empty(len(several))
    for count in set(counts.tolist()):
        values = np.array([values for values in several if len(values) == count])
        squares[counts == count] = np.sum((values - values.mean(axis=1, keepdims=True)) ** 2, axis=1)
    freedom = int(np.sum(counts - 1))
    return float(np.sqrt(sum(squares.tolist()) / freedom)) if freedom else None


def find_in_frozen(
    candidate: Baseline,
    reference: Baseline,
    pairs: Sequence[tuple[str, str]],
    prompts: Sequence[Prompt],
    suffix: str = "",
) -> tuple[Finding, ...]:
    """A finding for each pair of variants of two frozen runs, from their prompt means; without samples and images.

    Args:
        candidate: the run that is judged.
        reference: what it is compared with, whose limits count.
        pairs: names of variants, of the candidate's and of the reference's.
        prompts: the candidate's, which say what groups they have.
        suffix: what follows the names of the reference's variants, so that two of one name are told apart.
    """
    sides = [{one.fingerprint.name: one for one in side.variants} for side in (candidate, reference)]
    limits = {limit.name: limit for limit in reference.limits}
    versions = {facts.name: facts.full_version for facts in reference.metrics}
    known = {prompt.id: prompt for prompt in prompts}
    those = [known.get(one) or Prompt(id=one, text="") for one in reference.prompts]
    found = []
    for one, other in pairs:
        ours, theirs = sides[0].get(one), sides[1].get(other)
        if ours is None or theirs is None or ours.doubts or theirs.doubts:
            continue
        read = [
            _frozen(those, facts, (ours, theirs), above, below, limits.get(facts.name))
            for facts in candidate.metrics
            if facts.category != "distance" and versions.get(facts.name) == facts.full_version
            if facts.name != VOTES_METRIC or are_voted_on(ours, theirs)
            if (above := ours.values.get(facts.name)) and (below := theirs.values.get(facts.name))
        ]
        if read:
            read += _of_tags(candidate.metrics, ours.trained_on)
            found.append(find(one, other + suffix, read))
    return tuple(found)


def _frozen(
    prompts: Sequence[Prompt],
    facts: MetricFacts,
    sides: tuple[FrozenVariant, FrozenVariant],
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    limit: Limit | None,
) -> PairedMetric:
    voted = facts.name == VOTES_METRIC
    both = [
        (prompt, above, below)
        for prompt, above, below in zip(prompts, ours, theirs, strict=True)
        if above is not None and below is not None
    ]
    return PairedMetric(
        facts=facts,
        overlap="none" if voted else overlap_with(facts, sides[0].trained_on),
        candidate=[above for _, above, _ in both],
        reference=[below for _, _, below in both],
        units=_units([prompt for prompt, _, _ in both]),
        limit=limit,
        missing=0 if voted else max(0, len(asked_prompts(facts.prompts, prompts)) - len(both)),
        spread=frozen_spread([above - below for _, above, below in both], _units([one for one, _, _ in both]), sides)
        if voted and len(both) > 1
        else None,
    )
