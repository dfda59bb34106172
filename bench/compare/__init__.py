"""Run [x Run] -> paired differences and means of scores, prompts as the unit, or groups of them (``Prompt.group``).

``pairing`` says which scores count and how images are paired, ``sets`` compares numbers of tags, ``ranking`` ranks
three or more variants, ``timing`` sums up timings, and ``sweep`` draws a metric over the weight of a LoRA. What makes
runs comparable is in ``bench.comparability``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench import stats
from bench.comparability import check_names, common_metrics, run_labels
from bench.compare.pairing import ImageScores, PromptPair, pair_prompts, paired_prompts, usable_scores
from bench.compare.ranking import rank_variants
from bench.compare.rates import rate_changes
from bench.compare.sets import compare_sets
from bench.compare.tags import MIN_TAG_PROMPTS, tags_explain
from bench.compare.timing import summarize_timings, timing_ratios
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.faces.asked import asked_prompts
from bench.formatting import argument, listed
from bench.metrics.training_data import overlap_with
from bench.records import Delta, Interval, MetricFacts, MetricMean, Run, Suite

__all__ = [
    "MIN_TAG_PROMPTS",
    "SMALL_SAMPLE_PROMPTS",
    "Pairs",
    "PromptPair",
    "compare_run",
    "compare_runs",
    "compare_sets",
    "metric_means",
    "paired_prompts",
    "rank_variants",
    "rate_changes",
    "summarize_timings",
    "timing_ratios",
    "variant_pairs",
]

SMALL_SAMPLE_PROMPTS = 30
"""Under this many prompts, or effective groups of them, the bootstrap covers too little, and a t interval stands beside
it."""
Units = Sequence[tuple[str, str]]
"""The unit of each prompt: ``Prompt.unit``."""
Pairs = Sequence[tuple[str, str]]
"""(candidate, reference) names of variants."""


def variant_pairs(suite: Suite) -> tuple[tuple[str, str], ...]:
    """Who is compared with whom by default: each variant with the first, and spo with dpo."""
    reference, *others = (variant.name for variant in suite.variants)
    pairs = [(name, reference) for name in others]
    if "spo" in others and "dpo" in others:
        pairs.append(("spo", "dpo"))
    return tuple(pairs)


def compare_run(
    run: Run,
    *,
    pairs: Pairs | None = None,
    metrics: Sequence[str] | None = None,
    tags: bool = True,
    level: float = 0.95,
) -> tuple[Delta, ...]:
    """Paired differences between variants of one run, ordered by pair, metric, tag (None first).

    A metric of category "distance" measures how far a variant is from the reference variant, so pairs with
    that variant have no such difference. Where no image has both scores there is no record either.

    p-values are adjusted within the metrics of a pair, and those of tags within the tags of a pair and metric
    (see ``adjust_p_values``).

    Args:
        run: a run as it was read.
        pairs: (candidate, reference) variants; None means ``variant_pairs``.
        metrics: names; None means all metrics of the run.
        tags: also one record for each tag with at least ``MIN_TAG_PROMPTS`` prompts that have scores.
        level: two-sided coverage of the intervals.

    Raises:
        UsageError: an unknown variant or metric, or a variant compared with itself.
        InvalidError: a pair that was named has no image with a score on both sides.
    """
    check_names(metrics or (), [facts.name for facts in run.info.metrics], "The run has no metric")
    chosen = [facts for facts in run.info.metrics if metrics is None or facts.name in metrics]
    variants = _variants(run)
    for pair in pairs or ():
        check_names(pair, variants, "The run has no variant")
        if pair[0] == pair[1]:
            raise UsageError(f"Variant {pair[0]!r} is compared with itself; name two of {listed(variants)}.")
    wanted = variant_pairs(run.info.suite) if pairs is None else pairs
    return _compare((run, run), ("", ""), wanted, chosen, tags, level, must_exist=pairs is not None)


def compare_runs(
    candidate: Run,
    reference: Run,
    *,
    pairs: Pairs | None = None,
    metrics: Sequence[str] | None = None,
    tags: bool = True,
    level: float = 0.95,
) -> tuple[Delta, ...]:
    """Paired differences between two runs of one protocol, ordered as in ``compare_run``.

    Variants are called ``variant@run``, with the name of the run's folder, or its id where those are equal.

    Args:
        candidate: a run as it was read.
        reference: the run that it is compared with.
        pairs: (variant of the candidate run, variant of the reference run); None means those of like name.
        metrics: names; None means all that both runs have.
        tags: as in ``compare_run``, by the tags in the candidate's suite.
        level: two-sided coverage of the intervals.

    Raises:
        IncomparableError: another protocol, another version of a metric, or nothing in common, with all
            that differs in one message.
        UsageError: both are one run folder, or a variant or metric that is not there.
        InvalidError: a pair that was named has no image with a score on both sides.
    """
    labels = run_labels(candidate, reference)
    chosen = common_metrics(candidate, reference, labels, metrics)
    ours, theirs = _variants(candidate), _variants(reference)
    for pair in pairs or ():
        check_names(pair[:1], ours, f"The run {labels[0]} has no variant")
        check_names(pair[1:], theirs, f"The run {labels[1]} has no variant")
    like_named = [(name, name) for name in ours if name in theirs]
    if pairs is None and not like_named:
        raise IncomparableError(
            f"The runs share no variant: {labels[0]} has {listed(ours)}, {labels[1]} has {listed(theirs)}.",
        )
    wanted = like_named if pairs is None else pairs
    suffixes = f"@{labels[0]}", f"@{labels[1]}"
    return _compare((candidate, reference), suffixes, wanted, chosen, tags, level, must_exist=pairs is not None)


def metric_means(run: Run, *, level: float = 0.95) -> tuple[MetricMean, ...]:
    """Each variant's mean of each metric with its BCa interval over prompts or their groups, by metric and variant.

    The reference variant has no distance from itself, so it has no row for metrics of category "distance".
    """
    suite, table = run.info.suite, usable_scores(run)
    found = []
    for facts in (facts for facts in run.info.metrics if facts.over in ("image", "prompt")):
        for number, variant in enumerate(suite.variants):
            if number == 0 and facts.category == "distance":
                continue
            scores = table.get((variant.name, facts.name), {})
            prompts = pair_prompts(suite, scores, scores, facts.over)
            means, units = [pair.candidate for pair in prompts], [pair.prompt.unit for pair in prompts]
            found.append(
                MetricMean(
                    variant=variant.name,
                    metric=facts.name,
                    mean=stats.mean(means) if means else None,
                    interval=_bca(means, units, level),
                    prompts=len(means),
                    missing=len(asked_prompts(facts.prompts, suite.prompts)) * suite.samples - len(scores),
                )
            )
    return tuple(found)


def adjust_p_values(deltas: Sequence[Delta]) -> tuple[Delta, ...]:
    """``deltas`` in their order, with ``p_holm`` and ``p_bh`` filled in within each one's family.

    The differences over all prompts of one pair of variants are a family: one for each metric compared.
    The tags of one pair and one metric are another: one for each tag compared. A difference without a
    p-value is in no family. Naming fewer metrics makes the first family smaller, so that choice must not
    be made by the results.
    """
    families: dict[tuple[str, str, str | None], list[int]] = {}
    for number, delta in enumerate(deltas):
        if delta.p is not None:
            within = None if delta.tag is None else delta.metric
            families.setdefault((delta.candidate, delta.reference, within), []).append(number)
    adjusted = list(deltas)
    for numbers in families.values():
        p_values = [p for number in numbers if (p := deltas[number].p) is not None]
        both = zip(stats.holm(p_values), stats.benjamini_hochberg(p_values), strict=True)
        for number, (p_holm, p_bh) in zip(numbers, both, strict=True):
            adjusted[number] = msgspec.structs.replace(deltas[number], p_holm=p_holm, p_bh=p_bh)
    return tuple(adjusted)


def _variants(run: Run) -> list[str]:
    return [variant.name for variant in run.info.suite.variants]


def _compare(
    runs: tuple[Run, Run],
    suffixes: tuple[str, str],
    pairs: Pairs,
    metrics: Sequence[MetricFacts],
    tags: bool,
    level: float,
    *,
    must_exist: bool,
) -> tuple[Delta, ...]:
    suite, table = runs[0].info.suite, usable_scores(runs[0])
    other_table = table if runs[1] is runs[0] else usable_scores(runs[1])
    firsts = [_variants(run)[0] for run in runs]
    deltas: list[Delta] = []
    for one, other in pairs:
        names, before = (one + suffixes[0], other + suffixes[1]), len(deltas)
        for facts in metrics:
            if facts.category == "distance" and (one == firsts[0] or other == firsts[1]):
                continue
            above: ImageScores = table.get((one, facts.name), {})
            below: ImageScores = other_table.get((other, facts.name), {})
            overlap = overlap_with(facts, runs[0].info.trained_on.get(one))
            found = _deltas(names, facts, suite, pair_prompts(suite, above, below, facts.over), tags, level)
            deltas += [msgspec.structs.replace(delta, training_overlap=overlap) for delta in found]
        if must_exist and metrics and len(deltas) == before:
            raise InvalidError(
                f"{names[0]} and {names[1]} have no image with a score on both sides.",
                hint=f"hotart-bench score {argument(runs[0].path)}",
            )
    return adjust_p_values(deltas)


def _deltas(
    names: tuple[str, str],
    facts: MetricFacts,
    suite: Suite,
    prompts: Sequence[PromptPair],
    tags: bool,
    level: float,
) -> list[Delta]:
    if not prompts:
        return []
    asked = asked_prompts(facts.prompts, suite.prompts)
    deltas = [_delta(names, facts, None, prompts, len(asked) * suite.samples, level)]
    for tag in dict.fromkeys(tag for prompt in suite.prompts for tag in prompt.tags) if tags else ():
        tagged = [prompt for prompt in prompts if tag in prompt.prompt.tags]
        planned = sum(tag in prompt.tags for prompt in asked) * suite.samples
        if len(tagged) >= MIN_TAG_PROMPTS:
            deltas.append(_delta(names, facts, tag, tagged, planned, level))
    return deltas


def _delta(
    names: tuple[str, str],
    facts: MetricFacts,
    tag: str | None,
    prompts: Sequence[PromptPair],
    planned: int,
    level: float,
) -> Delta:
    differences = [prompt.difference for prompt in prompts]
    # Where a metric only describes, higher counts as the win: the rate says how often it rose.
    better = -1 if facts.higher_is_better is False else 1
    count = stats.win_rate([better * difference for difference in differences])
    samples = sum(prompt.samples for prompt in prompts)
    above, below = [prompt.candidate for prompt in prompts], [prompt.reference for prompt in prompts]
    units = [prompt.prompt.unit for prompt in prompts]
    points = [(float(difference > 0) + float(difference >= 0)) / 2 for difference in differences]
    alone = stats.effective_share(points, units)
    low, high = stats.wilson_interval((count.wins + count.ties / 2) * (alone / len(prompts)), alone, level=level)
    return Delta(
        metric=facts.name,
        candidate=names[0],
        reference=names[1],
        tag=tag,
        prompts=len(prompts),
        samples=samples,
        missing=planned - samples,
        candidate_mean=stats.mean(above),
        reference_mean=stats.mean(below),
        mean=stats.mean(differences),
        interval=_bca(differences, units, level),
        small_sample=_student(differences, units, level),
        d_z=stats.d_z(differences),
        wins=count.wins,
        ties=count.ties,
        losses=count.losses,
        win_rate=count.rate,
        win_interval=Interval(low=low, high=high, method="Wilson", level=level),
        correlation=stats.pearson_r(above, below),
        p=stats.sign_flip_p(stats.group_sums(differences, units)),
        groups=None if len(set(units)) == len(units) else len(set(units)),
        tags_explain=tags_explain([one.prompt for one in prompts], differences) if tag is None else None,
    )


def _bca(values: Sequence[float], units: Units, level: float) -> Interval | None:
    if len(set(units)) < 2:
        return None
    low, high = stats.bootstrap_bca(stats.group_units(values, units).values, level=level)
    return Interval(low=low, high=high, method=f"BCa bootstrap over {_kind(units)}", level=level)


def _student(values: Sequence[float], units: Units, level: float) -> Interval | None:
    if len(set(units)) < 2:
        return None
    found = stats.group_units(values, units)
    if found.effective >= SMALL_SAMPLE_PROMPTS:
        return None
    low, high = stats.t_interval(found.values, level=level, freedom=found.freedom)
    return Interval(low=low, high=high, method=f"Student's t over {_kind(units)}", level=level)


def _kind(units: Units) -> str:
    return "prompts" if len(set(units)) == len(units) else "groups of prompts"
