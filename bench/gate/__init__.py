"""Verdicts: is the loss within its limit?

Read in this order: ``check`` (what is compared), ``quality`` and ``timing`` (the statistics and the outcome),
``outcomes`` (words and numbers), ``summary`` and ``ci`` (markdown, JUnit, annotations). Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from bench.comparability import machine_differences, refuse_incomparable
from bench.compare.finding import find_in_frozen
from bench.compare.tags import ADVICE
from bench.compare.votes import are_voted_on, frozen_spread
from bench.errors import UsageError
from bench.faces.asked import faces_asked
from bench.formatting import argument, did_you_mean, listed, percent
from bench.gate.check import invalid, is_timed, new_check
from bench.gate.outcomes import worst_first
from bench.gate.quality import check_metric
from bench.gate.timing import ONLY_ON, check_timing
from bench.metrics.training_data import overlap_with
from bench.records import (
    SCHEMA,
    VOTES_METRIC,
    VOTES_UNJUDGED,
    Baseline,
    FrozenRound,
    FrozenVariant,
    Gate,
    Limit,
    MetricFacts,
    Prompt,
    TimingName,
    Verdict,
)
from bench.stats.votes import MIN_VOTERS
from bench.suite.limits import check_metric_limit, quantity_of

__all__ = ["check_limits", "like_named"]

Sides = tuple[Baseline, Baseline]
"""Candidate and reference."""
Labels = tuple[str, str]
"""How messages name the two sides, candidate first."""
ALIKE = "Voters differ too, so more of them are needed as well as more prompts."
FOR_THESE = f"With fewer than {MIN_VOTERS} voters this is for these voters only."
_UNITS = {"time": "second", "memory": "byte", "energy": "joule"}


def like_named(candidate: Baseline, reference: Baseline) -> tuple[tuple[str, str], ...]:
    """Each variant of the baseline with the one of its name, in the baseline's order.

    One that the candidate lacks is among them, so that ``check_limits`` calls it invalid; one that is new is not.
    """
    return tuple((name, name) for name in _by_name(reference))


def check_limits(
    candidate: Baseline,
    reference: Baseline,
    pairs: Sequence[tuple[str, str]],
    *,
    run: str,
    baseline: str,
    baseline_is_run: bool,
    time: str,
    quality_only: bool = False,
    prompts: Sequence[Prompt] = (),
    notes: Iterable[str] = (),
) -> Gate:
    """Verdicts on each (candidate, reference) pair of variants, one for each limit that the reference froze.

    The gate's outcome is its worst: invalid before fail before inconclusive before pass, and invalid where there
    is no verdict.

    Args:
        candidate: the run that is checked, frozen.
        reference: the baseline; for two variants of one run the same record as ``candidate``.
        pairs: names of variants, such as ``like_named`` gives.
        run: path of the candidate's folder, for messages and the record.
        baseline: path of the baseline, likewise.
        baseline_is_run: whether the baseline is a run folder. With the same run's numbers on both sides the
            timings are of one session.
        time: ISO 8601, UTC.
        quality_only: leave timed quantities out, with a note, so that different machines can be compared.
        prompts: the candidate's, which say what groups and tags they have; without them each stands alone.
        notes: what the reader should know besides, such as that images were pruned.

    Raises:
        UsageError: no pair, a variant as its own reference, an unknown reference variant, no limit, a limit
            that says nothing of its metric, nothing but timed limits with ``quality_only``.
        IncomparableError: another protocol, another version of a gated metric, or timings of different machines.
    """
    sides, paths = (candidate, reference), (run, baseline)
    labels = paths if run != baseline else (f"the run {run}", f"the baseline {baseline}")
    one_session = _is_one_session(sides, baseline_is_run)
    _refuse_pairs(sides, paths, pairs, one_session)
    _refuse_limits(reference, baseline)
    limits, more = _split_limits(sides, baseline, quality_only)
    metrics = [limit.name for limit in limits if not is_timed(limit)]
    refuse_incomparable(candidate, reference, metrics, len(limits) > len(metrics), labels)
    verdicts = tuple(
        _verdict(sides, paths, limit, pair, one_session, prompts)
        for pair in pairs
        for limit in limits
        if limit.name != VOTES_METRIC or _is_voted_on(sides, pair)
    )
    more += [
        *_unvoted(sides, paths, pairs),
        *_unchanged(verdicts),
        *_tagged(verdicts),
        *_left_out(sides, run, pairs, one_session),
    ]
    more += [*_notes_on_sides(sides, labels, baseline_is_run), *notes]
    return Gate(
        schema=SCHEMA,
        outcome=worst_first(verdicts)[0].outcome if verdicts else "invalid",
        run=run,
        run_id=candidate.run_id,
        baseline=baseline,
        baseline_id=reference.run_id,
        baseline_is_run=baseline_is_run,
        protocol_digest=candidate.protocol_digest,
        verdicts=verdicts,
        notes=tuple(more),
        time=time,
        findings=find_in_frozen(*sides, pairs, prompts, "" if one_session else " of the baseline"),
    )


def _by_name(side: Baseline) -> dict[str, FrozenVariant]:
    return {variant.fingerprint.name: variant for variant in side.variants}


def _is_one_session(sides: Sides, baseline_is_run: bool) -> bool:
    """Whether both sides are one and the same run; a folder that was rendered anew since keeps its id."""
    if not baseline_is_run or sides[0].run_id != sides[1].run_id:
        return False
    ours, theirs = map(_by_name, sides)
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _refuse_pairs(sides: Sides, paths: Labels, pairs: Sequence[tuple[str, str]], one_session: bool) -> None:
    run, baseline = paths
    if not pairs:
        raise UsageError(f"{baseline}: has no variant to check {run} against.")
    known = list(_by_name(sides[1]))
    for candidate, reference in pairs:
        if reference not in known:
            near = did_you_mean(reference, known)
            raise UsageError(f"{baseline} has no variant {reference!r}{near}; it has {listed(known) or 'none'}.")
        if one_session and candidate == reference:
            raise UsageError(
                f"{run}: the variant {candidate!r} cannot be its own reference.",
                f"hotart-bench gate {argument(run)} --baseline PATH, or two variants with --candidate and --reference",
            )


def _refuse_limits(reference: Baseline, baseline: str) -> None:
    if not reference.limits and reference.settings.sampler == "none":  # external images, which have no suite file
        raise UsageError(
            f"{baseline}: its images were scored without limits, so there is nothing to check.",
            "hotart-bench score --images DIR --limits NAME=LIMIT, such as blur=0.1sd",
        )
    if not reference.limits:
        raise UsageError(
            f"{baseline}: its suite {reference.suite} has no limits, so there is nothing to check.",
            'add to the suite: [limits], and below it a line such as mini-clip = "0.1sd"',
        )
    facts = {known.name: known for known in reference.metrics}
    for limit in reference.limits:
        try:
            if limit.name in facts:
                check_metric_limit(limit, facts[limit.name])
                _refuse_limit_of_tags(limit, facts[limit.name])
        except UsageError as error:
            raise UsageError(f"{baseline}: {error}", error.hint) from error


def _refuse_limit_of_tags(limit: Limit, facts: MetricFacts) -> None:
    if facts.over in ("tag", "prompt pairs"):
        raise UsageError(
            f"limits.{limit.name}: a gate checks numbers of prompts, and this metric has one of each tag; take the "
            "limit out.",
            "hotart-bench compare RUN shows it with its interval",
        )


def _split_limits(sides: Sides, baseline: str, quality_only: bool) -> tuple[list[Limit], list[str]]:
    """The limits that are checked, and notes on those that are not."""
    limits = sides[1].limits
    timed = [limit.name for limit in limits if is_timed(limit)]
    if quality_only and len(timed) == len(limits):
        raise UsageError(
            f"{baseline}: its limits are all on timed quantities ({listed(timed)}), so that nothing is left to "
            "check by quality only.",
            'add a limit on a metric to the suite, such as mini-clip = "0.1sd"',
        )
    checked, notes = [], []
    kinds = {side.machine.device.split(":")[0] for side in sides}
    for limit in limits:
        if quality_only and is_timed(limit):
            continue
        able = ONLY_ON.get(cast(TimingName, limit.name))
        if able is not None and kinds.isdisjoint(able):
            only = " and ".join(kind.upper() for kind in able)
            notes.append(f"{limit.name} was not checked: only {only} devices have it, and neither side ran on one.")
        else:
            checked.append(limit)
    if quality_only and timed:
        notes.append(f"Quality only (--other-machine): {listed(timed)} not checked.")
    return checked, notes


def _verdict(
    sides: Sides,
    paths: Labels,
    limit: Limit,
    pair: tuple[str, str],
    one_session: bool,
    prompts: Sequence[Prompt],
) -> Verdict:
    run, baseline = paths
    name, timed = limit.name, is_timed(limit)
    ours, theirs = (_by_name(side).get(variant) for side, variant in zip(sides, pair, strict=True))
    reference_facts, facts = ({one.name: one for one in side.metrics}.get(name) for side in reversed(sides))
    equal = ours is not None and theirs is not None and ours.fingerprint.digest == theirs.fingerprint.digest
    above, below = (_rounds(side, name) for side in (ours, theirs))
    if timed:
        unit, samples = _UNITS[quantity_of(name)], min((one.values for one in above + below), default=0)
    else:
        shown = reference_facts or facts
        unit, samples = shown.unit if shown else "", sides[1].samples
    check = new_check(limit, *pair, unit=unit, samples=samples, equal_weights=equal)
    if facts is not None and ours is not None and not timed:
        check = msgspec.structs.replace(check, training_overlap=overlap_with(facts, ours.trained_on))
    if ours is None or theirs is None:
        return invalid(check, f"{run} has no variant {pair[0]}")
    for side, frozen in ((run, ours), (baseline, theirs)):
        if frozen.doubts:
            return invalid(check, f"of {frozen.fingerprint.name} in {side}, {'; '.join(frozen.doubts)}")
    if not (below if timed else reference_facts and name in theirs.values):
        return invalid(check, f"{baseline} has no {'timings' if timed else 'scores'} of it")
    if not (above if timed else name in ours.values):
        what, verb = ("timings", "measure") if timed else ("scores", "score")
        return invalid(check, f"{run} has no {what} of it; hotart-bench {verb} {argument(run)} makes them")
    if reference_facts is None:
        noise = next((one for one in sides[1].session_noise if one.name == name), None)
        return check_timing(check, above, below, one_session=one_session, noise=noise)
    known = {prompt.id: prompt for prompt in prompts}
    those = [known.get(prompt_id) or Prompt(id=prompt_id, text="") for prompt_id in sides[1].prompts]
    asked = [at for at, one in enumerate(those) if reference_facts.prompts == "all" or faces_asked(one.tags)]
    if name == VOTES_METRIC:
        return _voted(check, reference_facts, those, ours, theirs)
    mine, other = ([side.values[name][at] for at in asked] for side in (ours, theirs))
    return check_metric(check, reference_facts, [those[at] for at in asked], mine, other)


def _voted(
    check: Verdict, facts: MetricFacts, prompts: Sequence[Prompt], ours: FrozenVariant, theirs: FrozenVariant
) -> Verdict:
    """The verdict on the prompts that people voted on, on both sides."""
    columns = zip(prompts, ours.values[facts.name], theirs.values[facts.name], strict=True)
    both = [(one, above, below) for one, above, below in columns if above is not None and below is not None]
    check = msgspec.structs.replace(check, training_overlap="none")
    if len(both) < 2:
        return invalid(check, f"people voted on {len(both)} of its prompts on both sides")
    units = [one.unit for one, _, _ in both]
    spread = frozen_spread([above - below for _, above, below in both], units, (ours, theirs))
    found = check_metric(
        check, facts, [one for one, _, _ in both], [one for _, one, _ in both], [one for _, _, one in both], spread
    )
    added = [ALIKE] if found.outcome == "inconclusive" and spread.extra > 0 else []
    added += [FOR_THESE] if spread.voters < MIN_VOTERS else []
    return msgspec.structs.replace(found, sentence=" ".join([found.sentence, *added]))


# Votes, which are judged once there are some.


def _of_pair(sides: Sides, pair: tuple[str, str]) -> list[FrozenVariant | None]:
    return [_by_name(side).get(name) for side, name in zip(sides, pair, strict=True)]


def _is_voted_on(sides: Sides, pair: tuple[str, str]) -> bool:
    ours, theirs = _of_pair(sides, pair)
    return ours is not None and theirs is not None and are_voted_on(ours, theirs)


def _unvoted(sides: Sides, paths: Labels, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Notes where the limit on votes is not judged yet, or only for these voters."""
    if VOTES_METRIC not in (limit.name for limit in sides[1].limits):
        return []
    lacking = dict.fromkeys(
        path
        for side, path in zip(sides, paths, strict=True)
        if not any(variant.votes is not None for variant in side.variants)
    )
    if lacking:
        again = f"hotart-bench vote make {argument(paths[0])} -o DIR"
        return [f"{VOTES_UNJUDGED} yet: nobody voted on {listed(lacking)}; {again}."]
    named = [pair[0] for pair in pairs if not _is_voted_on(sides, pair) and _has_votes(sides, pair[0])]
    notes = [f"{VOTES_UNJUDGED} for {listed(named)}: {paths[1]} has no votes on it."] if named else []
    return notes + _few_voters(sides, paths)


def _few_voters(sides: Sides, paths: Labels) -> list[str]:
    few = dict.fromkeys(
        f"{variant.fingerprint.name} in {path}"
        for side, path in zip(sides, paths, strict=True)
        for variant in side.variants
        if variant.votes is not None and variant.votes.voters < MIN_VOTERS
    )
    return [f"Fewer than {MIN_VOTERS} people voted on {listed(few)}: for these voters only."] if few else []


def _has_votes(sides: Sides, name: str) -> bool:
    variant = _by_name(sides[0]).get(name)
    return variant is not None and variant.votes is not None


def _rounds(side: FrozenVariant | None, name: str) -> tuple[FrozenRound, ...]:
    return () if side is None else side.timings.get(cast(TimingName, name), ())


def _unchanged(verdicts: Sequence[Verdict]) -> list[str]:
    """A note where other weights gave the same scores throughout: they may not have been used at all."""
    metrics = [one for one in verdicts if one.kind == "metric" and not one.equal_weights]
    moved = {(one.candidate, one.reference) for one in metrics if one.loss != 0 or one.worst}
    same = dict.fromkeys(one.candidate for one in metrics if (one.candidate, one.reference) not in moved)
    if not same:
        return []
    return [
        f"No score changed on any gated metric, although the weights differ: {listed(list(same))}. See whether the new "
        "weights took effect."
    ]


def _tagged(verdicts: Sequence[Verdict]) -> list[str]:
    """A note where tags explain much of a metric's losses, which makes its interval doubtful."""
    shares = [
        f"{percent(one.tags_explain)} in {one.name} of {one.candidate}"
        for one in verdicts
        if one.tags_explain is not None
    ]
    return [f"Tags explain much of the losses: {listed(shares)}. {ADVICE}"] if shares else []


def _left_out(sides: Sides, run: str, pairs: Sequence[tuple[str, str]], one_session: bool) -> list[str]:
    """What no verdict is about: variants that no pair names, and metrics without a limit."""
    notes = []
    taken = {name for pair in pairs for name in (pair if one_session else pair[:1])}
    new = [name for name in _by_name(sides[0]) if name not in taken]
    if new:
        notes.append(f"Not checked, since no pair names them: {listed(new)} of {run}.")
    limited = {limit.name for limit in sides[1].limits}
    unlimited = [
        facts.name
        for facts in sides[1].metrics
        if facts.higher_is_better is not None
        and facts.category != "distance"
        and facts.over in ("image", "prompt")
        and facts.name not in limited
    ]
    if unlimited:
        whose = "suite" if one_session else "baseline"
        notes.append(f"Not checked, since the {whose} has no limit on them: {listed(unlimited)}.")
    return notes


def _notes_on_sides(sides: Sides, labels: Labels, baseline_is_run: bool) -> list[str]:
    candidate, reference = sides
    notes = []
    ours, theirs = ({limit.name: limit.text for limit in side.limits} for side in sides)
    differing = [
        f"{name} is {theirs.get(name, 'not limited')} there and {ours.get(name, 'not limited')} here"
        for name in dict.fromkeys((*theirs, *ours))
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        notes.append(f"Checked by the baseline's limits, which are not the candidate's: {'; '.join(differing)}.")
    if candidate.run_id == reference.run_id and not baseline_is_run:
        notes.append("The baseline was frozen from this very run folder.")
    if all(is_timed(limit) for limit in reference.limits):
        notes.append("No metric has a limit: this gate checks speed and memory only.")
    machine = machine_differences(candidate, reference, labels)
    if machine:
        notes.append(f"The machines differ, so part of a loss may be theirs: {'; '.join(machine)}.")
    return notes
