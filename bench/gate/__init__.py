"""Verdicts: is the loss within its margin?

``judge`` is pure. A metric is judged in ``quality``, a timed quantity in ``timing``; what may be compared is in
``bench.comparability``, what is allowed in ``limits``. The rest shows a gate: ``junit``, ``annotations``, ``summary``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from bench.comparability import machine_differences, refuse_incomparable
from bench.errors import UsageError
from bench.formatting import did_you_mean, listed
from bench.gate.check import Check, facts_by_name, frozen_limits, invalid, is_timed
from bench.gate.outcomes import worst_first
from bench.gate.quality import judge_metric
from bench.gate.timing import ONLY_ON, judge_timing
from bench.records import SCHEMA, Baseline, FrozenRound, FrozenVariant, Gate, Limit, TimingName, Verdict
from bench.suite.limits import quantity_of

__all__ = ["judge", "like_named"]


def like_named(candidate: Baseline, reference: Baseline) -> tuple[tuple[str, str], ...]:
    """Each variant of the baseline with the one of its name, in the baseline's order.

    One that the candidate lacks is among them, so that ``judge`` calls it invalid; one that is new is not.
    """
    return tuple((name, name) for name in _names(reference))


def judge(
    candidate: Baseline,
    reference: Baseline,
    pairs: Sequence[tuple[str, str]],
    *,
    run: str,
    baseline: str,
    baseline_is_run: bool,
    time: str,
    quality_only: bool = False,
) -> Gate:
    """Verdicts on each (candidate, reference) pair of variants, one for each limit that the reference froze.

    The gate's outcome is its gravest verdict: invalid before fail before inconclusive before pass, and invalid
    where there is none.

    Args:
        candidate: the run that is judged, frozen.
        reference: the baseline; for two variants of one run the same record as ``candidate``.
        pairs: names of variants, such as ``like_named`` gives.
        run: path of the candidate's folder, for messages and the record.
        baseline: path of the baseline, likewise.
        baseline_is_run: whether the baseline is a run folder. With the same run's numbers on both sides the
            timings are of one session.
        time: ISO 8601, UTC.
        quality_only: leave timed quantities out, with a note, so that unlike machines can be compared.

    Raises:
        UsageError: no pair, a variant as its own reference, an unknown reference variant, no limit, a limit
            that makes no sense, nothing but timed limits with ``quality_only``.
        IncomparableError: another protocol, another version of a gated metric, or timings of unlike machines.
    """
    match = _Match(candidate, reference, run, baseline, _is_one_session(candidate, reference, baseline_is_run))
    _check_pairs(match, pairs)
    limits = frozen_limits(reference, baseline)
    judged, notes = _split_limits(match, limits, quality_only)
    metrics = [limit.name for limit in judged if not is_timed(limit)]
    refuse_incomparable(candidate, reference, metrics, len(judged) > len(metrics), match.labels)
    verdicts = tuple(_judge_one(match, limit, pair) for pair in pairs for limit in judged)
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
        notes=(*notes, *_unchanged(verdicts), *_notes(match, pairs, limits, baseline_is_run)),
        time=time,
    )


@dataclass(frozen=True)
class _Match:
    """The two sides, and how messages name them."""

    candidate: Baseline
    reference: Baseline
    run: str
    baseline: str
    one_session: bool

    @property
    def labels(self) -> tuple[str, str]:
        if self.run == self.baseline:
            return f"the run {self.run}", f"the baseline {self.baseline}"
        return self.run, self.baseline


def _names(side: Baseline) -> list[str]:
    return [variant.fingerprint.name for variant in side.variants]


def _variant(side: Baseline, name: str) -> FrozenVariant | None:
    return next((variant for variant in side.variants if variant.fingerprint.name == name), None)


def _is_one_session(candidate: Baseline, reference: Baseline, baseline_is_run: bool) -> bool:
    """Whether both sides are one and the same run; a folder that was rendered anew since keeps its id."""
    if not baseline_is_run or candidate.run_id != reference.run_id:
        return False
    shared = set(_names(candidate)) & set(_names(reference))
    return all(_variant(candidate, name) == _variant(reference, name) for name in shared)


def _check_pairs(match: _Match, pairs: Sequence[tuple[str, str]]) -> None:
    if not pairs:
        raise UsageError(f"{match.baseline}: has no variant to judge {match.run} against.")
    known = _names(match.reference)
    for candidate, reference in pairs:
        if reference not in known:
            near = did_you_mean(reference, known)
            raise UsageError(f"{match.baseline} has no variant {reference!r}{near}; it has {listed(known) or 'none'}.")
        if match.one_session and candidate == reference:
            raise UsageError(
                f"{match.run}: the variant {candidate!r} cannot be its own reference.",
                f"hotart-bench gate {match.run} --baseline PATH, or two variants with --candidate and --reference",
            )


def _split_limits(match: _Match, limits: Sequence[Limit], quality_only: bool) -> tuple[list[Limit], list[str]]:
    """The limits that are judged, and notes on those that are not."""
    judged, notes = [], []
    timed = [limit.name for limit in limits if is_timed(limit)]
    if quality_only and len(timed) == len(limits):
        raise UsageError(
            f"{match.baseline}: its limits are all on timed quantities ({listed(timed)}), so that nothing is left to "
            "judge by quality only.",
            'add a limit on a metric to the suite, such as mini-clip = "0.1sd"',
        )
    kinds = {side.machine.device.split(":")[0] for side in (match.candidate, match.reference)}
    for limit in limits:
        if quality_only and is_timed(limit):
            continue
        able = next((found for name, found in ONLY_ON.items() if name == limit.name), None)
        if able is not None and kinds.isdisjoint(able):
            only = " and ".join(kind.upper() for kind in able)
            notes.append(f"{limit.name} was not judged: only {only} devices have it, and neither side ran on one.")
        else:
            judged.append(limit)
    if quality_only and timed:
        notes.append(f"Quality only: {listed(timed)} not judged, as asked.")
    return judged, notes


def _judge_one(match: _Match, limit: Limit, pair: tuple[str, str]) -> Verdict:
    ours, theirs = _variant(match.candidate, pair[0]), _variant(match.reference, pair[1])
    check = _question(match, limit, pair, ours, theirs)
    if ours is None or theirs is None:
        return invalid(check, f"{match.run} has no variant {pair[0]}")
    if is_timed(limit):
        return _judge_timing(match, check, ours, theirs)
    return _judge_metric(match, check, ours, theirs)


def _question(
    match: _Match, limit: Limit, pair: tuple[str, str], ours: FrozenVariant | None, theirs: FrozenVariant | None
) -> Check:
    equal = ours is not None and theirs is not None and ours.fingerprint.digest == theirs.fingerprint.digest
    if is_timed(limit):
        unit = "byte" if quantity_of(limit.name) == "memory" else "second"
        rounds = [_rounds(side, limit.name) for side in (ours, theirs) if side is not None]
        samples = min((one.values for side in rounds for one in side), default=0)
        return Check(limit, "timing", unit, *pair, samples, equal)
    facts = facts_by_name(match.reference).get(limit.name) or facts_by_name(match.candidate).get(limit.name)
    return Check(limit, "metric", facts.unit if facts else "", *pair, match.reference.samples, equal)


def _judge_metric(match: _Match, check: Check, ours: FrozenVariant, theirs: FrozenVariant) -> Verdict:
    name = check.limit.name
    facts = facts_by_name(match.reference).get(name)
    if facts is None or name not in theirs.values:
        return invalid(check, f"{match.baseline} has no scores of it")
    if name not in ours.values:
        return invalid(check, f"{match.run} has no scores of it; hotart-bench score {match.run} makes them")
    prompts = [prompt.id for prompt in match.reference.prompts]
    return judge_metric(check, facts, prompts, ours.values[name], theirs.values[name])


def _judge_timing(match: _Match, check: Check, ours: FrozenVariant, theirs: FrozenVariant) -> Verdict:
    name = check.limit.name
    above, below = (_rounds(side, name) for side in (ours, theirs))
    if not below:
        return invalid(check, f"{match.baseline} has no timings of it")
    if not above:
        return invalid(check, f"{match.run} has no timings of it; hotart-bench measure {match.run} makes them")
    noise = next((one for one in match.reference.session_noise if one.name == name), None)
    return judge_timing(check, above, below, one_session=match.one_session, noise=noise)


def _rounds(side: FrozenVariant, name: str) -> tuple[FrozenRound, ...]:
    return side.timings.get(cast(TimingName, name), ())


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


def _notes(match: _Match, pairs: Sequence[tuple[str, str]], limits: Sequence[Limit], is_run: bool) -> list[str]:
    candidate, reference = match.candidate, match.reference
    notes = []
    taken = {name for pair in pairs for name in (pair if match.one_session else pair[:1])}
    new = [name for name in _names(candidate) if name not in taken]
    if new:
        notes.append(f"Not judged, since no pair names them: {listed(new)} of {match.run}.")
    limited = {limit.name for limit in limits}
    unlimited = [
        facts.name
        for facts in reference.metrics
        if facts.higher_is_better is not None and facts.category != "distance" and facts.name not in limited
    ]
    if unlimited:
        notes.append(f"Not judged, since the baseline has no limit on them: {listed(unlimited)}.")
    if candidate.limits != reference.limits:
        notes.append(_other_limits(candidate.limits, reference.limits))
    if candidate.run_id == reference.run_id and not is_run:
        notes.append("The baseline was frozen from this very run folder.")
    if all(is_timed(limit) for limit in limits):
        notes.append("No metric has a limit: this gate judges speed and memory only.")
    machine = machine_differences(candidate, reference, match.labels)
    if machine:
        notes.append(f"The machines differ, so part of a loss may be theirs: {'; '.join(machine)}.")
    return notes


def _other_limits(ours: dict[str, str], theirs: dict[str, str]) -> str:
    names = [*theirs, *(name for name in ours if name not in theirs)]
    differing = [
        f"{name} is {theirs.get(name, 'not limited')} there and {ours.get(name, 'not limited')} here"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]
    return f"Judged by the baseline's limits, which are not the candidate's: {'; '.join(differing)}."
