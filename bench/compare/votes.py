"""Votes of people -> the share that each variant wins, strengths, and how often each metric says what voters said.

A vote counts if it is on two variants, the images are those that ``renders.jsonl`` records, and its voter is not left
out. Controls say who is: whoever gets two or more pairs with a broken picture wrong, and fewer than
``LEAST_RIGHT`` of them right. Votes that both pictures are bad are counted by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.compare.pairing import ImageScores, usable_scores
from bench.formatting import one_line, percent, plural
from bench.records import (
    VOTES_METRIC,
    FrozenVariant,
    Interval,
    MetricAgreement,
    MetricFacts,
    Prompt,
    Run,
    Vote,
    VotedPair,
    VotedReason,
    VotedStrength,
    Voter,
    VoteResults,
)
from bench.stats.votes import (
    MIN_VOTERS,
    Spread,
    VoteShare,
    constant_agreement,
    fit_votes,
    metric_agreement,
    mutual_agreement,
    share_of_votes,
    spread_between,
    votes_needed,
)

LEAST_RIGHT = 0.8
"""Of the pairs with a broken picture that a voter decided."""
MOST_WRONG = 1
"""So many of them wrong leave nobody out: everybody's hand slips once."""
MARGIN = 0.05
EVEN = 0.5
"""The share of votes that a variant would win against itself."""
SHORT_ID = 6
"""Digits of a voter's id that are shown, where they tell all apart."""
CONSTANT = "always the same answer"
OVER_BOTH, OVER_PROMPTS = "t over prompts and voters", "t over prompts, for these voters only"

FACTS = MetricFacts(
    name=VOTES_METRIC,
    version="1",
    summary="Share of people's blind votes won against the run's first variant, a tie being half a win.",
    unit="share of votes",
    higher_is_better=True,
    low=0.0,
    high=1.0,
    category="preference",
    encoder=None,
    trained_on=(),
    training_data="nothing: people looked at the images",
    licence="of the run's own voters",
    reference="docs/votes.md",
)
"""What votes are as a metric; no metric of the registry can have the name."""


class Counted(NamedTuple):
    """The votes of a run that count, and what became of the others."""

    votes: tuple[Vote, ...]
    """On two variants, for one of them or a tie."""
    bad: tuple[Vote, ...]
    """That both are bad."""
    voters: tuple[Voter, ...]
    outdated: int
    """Votes on images that were drawn anew since."""


def counted_votes(run: Run) -> Counted:
    """Which votes of a run count; found once a run."""
    known: Counted | None = run.__dict__.get("counted_votes")
    if known is None:
        known = run.__dict__["counted_votes"] = _count(run)
    return known


def _count(run: Run) -> Counted:
    voters = judge_voters(run.votes)
    left_out = {one.voter for one in voters if one.left_out}
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    on_pairs = [one for one in run.votes if one.kind == "pair" and one.voter not in left_out]
    current = [one for one in on_pairs if _is_of_these_images(one, images)]
    return Counted(
        votes=tuple(one for one in current if one.choice != "bad"),
        bad=tuple(one for one in current if one.choice == "bad"),
        voters=voters,
        outdated=len(on_pairs) - len(current),
    )


def _is_of_these_images(vote: Vote, images: Mapping[tuple[str, str, int], str | None]) -> bool:
    return all(
        images.get((variant, vote.prompt_id, vote.sample)) == sha256
        for variant, sha256 in ((vote.left, vote.left_sha256), (vote.right, vote.right_sha256))
    )


# Voters.


def judge_voters(votes: Sequence[Vote]) -> tuple[Voter, ...]:
    """Each voter, in the order in which they are first met, with what their controls say."""
    by_voter: dict[str, list[Vote]] = {}
    for vote in votes:
        by_voter.setdefault(vote.voter, []).append(vote)
    names = labels({voter: own[-1].name for voter, own in by_voter.items()})
    return tuple(_voter(voter, names[voter], own) for voter, own in by_voter.items())


def labels(names: Mapping[str, str]) -> dict[str, str]:
    """What voters are called, by their id: the name, and where two have it or none, the beginning of the id."""
    names = {voter: one_line(name) for voter, name in names.items()}
    known = list(names.values())
    long = next((size for size in range(SHORT_ID, 64) if len({voter[:size] for voter in names}) == len(names)), 64)
    return {
        voter: f"{name or 'no name'} ({voter[:long]})" if not name or known.count(name) > 1 else name
        for voter, name in names.items()
    }


def _voter(voter: str, label: str, votes: Sequence[Vote]) -> Voter:
    broken = [one for one in votes if one.kind == "broken" and one.choice != "bad"]
    right = sum(one.choice in ("left", "right") and one.choice != one.broken for one in broken)
    same = [one for one in votes if one.kind == "same" and one.choice != "bad"]
    firsts = {_question(one): one for one in votes if one.kind == "pair"}
    repeats = [(one, firsts[_question(one)]) for one in votes if one.kind == "repeat" and _question(one) in firsts]
    wrong = len(broken) - right
    is_out = wrong > MOST_WRONG and right < LEAST_RIGHT * len(broken)
    return Voter(
        voter=voter,
        label=label,
        votes=sum(one.kind == "pair" for one in votes),
        broken=len(broken),
        broken_right=right,
        same=len(same),
        same_tied=sum(one.choice == "tie" for one in same),
        repeated=len(repeats),
        repeated_alike=sum(_chosen(one) == _chosen(first) for one, first in repeats),
        left_out=f"took a broken picture for as good or better in {wrong} of {plural(len(broken), 'pair')}"
        if is_out
        else "",
        edited=any(one.edited for one in votes),
    )


def _question(vote: Vote) -> tuple[object, ...]:
    """What a pair and its repeat share."""
    return vote.ballot, vote.prompt_id, vote.sample, *sorted((vote.left, vote.right))


def _chosen(vote: Vote) -> str:
    """The variant that was chosen, or ``tie`` or ``bad``, which no variant can be beside a colon."""
    return {"left": f":{vote.left}", "right": f":{vote.right}"}.get(vote.choice, vote.choice)


# Shares and strengths.


def vote_results(
    run: Run, pairs: Sequence[tuple[str, str]] | None = None, *, margin: float = MARGIN, level: float = 0.95
) -> VoteResults | None:
    """All that the votes on a run say; None where there are none.

    Args:
        run: a run as it was read.
        pairs: (candidate, reference) variants; None for all that were voted on, the later of the suite first.
        margin: half the width of the interval that ``VotedPair.needed`` is about, as a share.
        level: of the intervals.
    """
    if not run.votes:
        return None
    found = counted_votes(run)
    prompts = {prompt.id: prompt for prompt in run.info.suite.prompts}
    wanted = _voted_pairs(run, found) if pairs is None else pairs
    shown = [one for pair in wanted if (one := _voted_pair(found, prompts, pair, margin, level)) is not None]
    people = len({one.voter for one in found.votes})
    fit = _strengths(run, found.votes, prompts, level)
    return VoteResults(
        voters=found.voters,
        pairs=tuple(shown),
        strengths=fit.strengths,
        reasons=tuple(_reasons(run, found.votes)),
        tie=fit.tie,
        left=fit.left,
        left_interval=fit.left_interval,
        agreement=_agreement(run, found.votes, prompts, level),
        ceiling=mutual_agreement(
            [_sign(one) for one in found.votes],
            [(one.prompt_id, one.sample, *sorted((one.left, one.right))) for one in found.votes],
        )
        if found.votes
        else None,
        these_only=people < MIN_VOTERS,
        notes=tuple(_notes(found, people)),
    )


def share_of_pair(run: Run, candidate: str, reference: str, level: float = 0.95) -> VoteShare | None:
    """The share of the votes on two variants that the candidate wins; None where nobody voted on them."""
    prompts = {prompt.id: prompt for prompt in run.info.suite.prompts}
    return _share(_of_pair(counted_votes(run).votes, (candidate, reference)), prompts, candidate, level)


# Votes as a gate knows them: shares against the first variant, which has half of them itself.


def frozen_shares(run: Run) -> dict[str, VoteShare]:
    """The share of votes against the run's first variant, by variant; those that nobody voted on are not in it."""
    first, *others = (variant.name for variant in run.info.suite.variants)
    found = counted_votes(run).votes
    prompts = {prompt.id: prompt for prompt in run.info.suite.prompts}
    shares = {name: _share(_of_pair(found, (name, first)), prompts, name, 0.95) for name in others}
    return {name: share for name, share in shares.items() if share is not None}


def are_voted_on(ours: FrozenVariant, theirs: FrozenVariant) -> bool:
    """Whether two frozen variants can be compared by votes: both have shares, and one of them by people's votes."""
    known = VOTES_METRIC in ours.values and VOTES_METRIC in theirs.values
    return known and (ours.votes is not None or theirs.votes is not None)


def frozen_spread(
    differences: Sequence[float], units: Sequence[Hashable] | None, sides: Sequence[FrozenVariant]
) -> Spread:
    """The spread of the mean difference of two frozen shares of votes."""
    votes = [side.votes for side in sides if side.votes is not None]
    return spread_between(
        differences, units, [(one.extra, one.noise) for one in votes], min(one.voters for one in votes)
    )


def signs_of_pair(run: Run, candidate: str, reference: str) -> list[float]:
    """Of each vote on two variants 1 where the candidate won, 0 for a tie, -1 where it lost."""
    votes = _of_pair(counted_votes(run).votes, (candidate, reference))
    return [2 * _points(one, candidate) - 1 for one in votes]


def _of_pair(votes: Sequence[Vote], pair: tuple[str, str]) -> list[Vote]:
    return [one for one in votes if {one.left, one.right} == set(pair)]


def _voted_pairs(run: Run, found: Counted) -> list[tuple[str, str]]:
    order = [variant.name for variant in run.info.suite.variants]
    voted = {tuple(sorted((one.left, one.right), key=order.index)) for one in (*found.votes, *found.bad)}
    return [
        (candidate, reference)
        for number, reference in enumerate(order)
        for candidate in order[number + 1 :]
        if (reference, candidate) in voted
    ]


def _points(vote: Vote, variant: str) -> float:
    """1 where the variant was chosen, 0.5 for a tie, 0 where the other was."""
    if vote.choice == "tie":
        return 0.5
    return float((vote.left if vote.choice == "left" else vote.right) == variant)


def _sign(vote: Vote) -> float:
    """1 where the first of the two names was chosen, 0 for a tie, -1 where the second was."""
    return 2 * _points(vote, min(vote.left, vote.right)) - 1


def _share(votes: Sequence[Vote], prompts: Mapping[str, Prompt], candidate: str, level: float) -> VoteShare | None:
    if not votes:
        return None
    return share_of_votes(
        [_points(one, candidate) for one in votes],
        [one.prompt_id for one in votes],
        [one.voter for one in votes],
        units=[prompts[one.prompt_id].unit for one in votes],
        level=level,
    )


def _voted_pair(
    found: Counted, prompts: Mapping[str, Prompt], pair: tuple[str, str], margin: float, level: float
) -> VotedPair | None:
    votes, bad = _of_pair(found.votes, pair), _of_pair(found.bad, pair)
    share = _share(votes, prompts, pair[0], level)
    if share is None:
        return None
    points = [_points(one, pair[0]) for one in votes]
    several = len({prompts[one.prompt_id].unit for one in votes}) > 1
    half = (share.high - share.low) / 2
    return VotedPair(
        candidate=pair[0],
        reference=pair[1],
        wins=points.count(1.0),
        ties=points.count(0.5),
        losses=points.count(0.0),
        bad=len(bad),
        prompts=len(share.by_prompt),
        voters=share.spread.voters,
        share=share.share,
        interval=Interval(low=share.low, high=share.high, method=_method(share.spread.voters), level=level)
        if several
        else None,
        needed=votes_needed(len(votes), half, margin) if several and half > margin else None,
    )


def _method(voters: int) -> str:
    return OVER_BOTH if voters >= MIN_VOTERS else OVER_PROMPTS


def _reasons(run: Run, votes: Sequence[Vote]) -> Iterator[VotedReason]:
    for variant in (one.name for one in run.info.suite.variants):
        chosen = [one for one in votes if _chosen(one) == f":{variant}"]
        named = Counter(reason for one in chosen for reason in dict.fromkeys(one.why))
        for reason, count in named.most_common():
            yield VotedReason(variant=variant, reason=reason, votes=count, of=len(chosen))


class _Fitted(NamedTuple):
    strengths: tuple[VotedStrength, ...] = ()
    tie: float | None = None
    left: float | None = None
    left_interval: Interval | None = None


def _strengths(run: Run, votes: Sequence[Vote], prompts: Mapping[str, Prompt], level: float) -> _Fitted:
    names = _connected([variant.name for variant in run.info.suite.variants], votes)
    own = [one for one in votes if one.left in names]
    if len(names) < 2 or len({prompts[one.prompt_id].unit for one in own}) < 2:
        return _Fitted()
    if {one.choice for one in own} in ({"left"}, {"right"}):
        return _Fitted()  # the side alone explains them all: its log odds would be infinite
    fit = fit_votes(
        [(names.index(one.left), names.index(one.right)) for one in own],
        [2 * _points(one, one.left) - 1 for one in own],
        [1.0] * len(own),
        [prompts[one.prompt_id].unit for one in own],
        [one.voter for one in own],
        players=len(names),
        level=level,
    )
    method = _method(len({one.voter for one in own}))

    def interval(ends: tuple[float, float]) -> Interval:
        return Interval(low=ends[0], high=ends[1], method=method, level=level)

    found = [
        VotedStrength(variant=name, strength=strength, interval=interval(ends))
        for name, strength, ends in zip(names, fit.strengths, fit.intervals, strict=True)
    ]
    ranked = tuple(sorted(found, key=lambda one: -one.strength))
    return _Fitted(ranked, fit.tie, fit.left, interval(fit.left_interval))


def _connected(names: Sequence[str], votes: Sequence[Vote]) -> list[str]:
    """The variants that are connected by votes, those with the most where there are several parts."""
    part = {name: name for name in names}
    for vote in votes:
        one, other = part[vote.left], part[vote.right]
        part = {name: one if of == other else of for name, of in part.items()}
    counts = {root: sum(part[vote.left] == root for vote in votes) for root in part.values()}
    largest = max(counts, key=lambda root: counts[root], default="")
    return [name for name in names if part[name] == largest and counts[largest]]


# Metrics beside votes.


def _agreement(
    run: Run, votes: Sequence[Vote], prompts: Mapping[str, Prompt], level: float
) -> tuple[MetricAgreement, ...]:
    table = usable_scores(run)
    found = []
    for facts in run.info.metrics:
        if facts.higher_is_better is None or facts.category == "distance" or facts.over not in ("image", "prompt"):
            continue
        scored = [(one, gap) for one in votes if (gap := _difference(one, facts, table)) is not None]
        units = [prompts[one.prompt_id].unit for one, _ in scored]
        if len(set(units)) < 2:
            continue
        own, gaps = zip(*scored, strict=True)
        said = [_sign(one) for one in own]
        decided = [(sign * gap > 0) + 0.5 * (gap == 0) for sign, gap in zip(said, gaps, strict=True) if sign]
        right = metric_agreement(said, gaps, units)
        found.append(_row(facts.name, own, right, prompts, decided, level))
    units = [prompts[one.prompt_id].unit for one in votes]
    if found and len(set(units)) > 1:
        said = [_sign(one) for one in votes]
        kinds = [tuple(sorted((one.left, one.right))) for one in votes]
        right = constant_agreement(said, kinds, units)
        found.append(_row(CONSTANT, votes, right, prompts, (), level))
    return tuple(found)


def _difference(vote: Vote, facts: MetricFacts, table: Mapping[tuple[str, str], ImageScores]) -> float | None:
    """The score of the first of the two names less that of the second, in the metric's better direction."""
    place = vote.prompt_id, vote.sample
    above, below = (table.get((name, facts.name), {}).get(place) for name in sorted((vote.left, vote.right)))
    if above is None or below is None:
        return None
    return (above - below) * (1 if facts.higher_is_better else -1)


def _row(
    name: str,
    votes: Sequence[Vote],
    right: NDArray[np.bool_],
    prompts: Mapping[str, Prompt],
    decided: Sequence[float],
    level: float,
) -> MetricAgreement:
    share = share_of_votes(
        right.astype(np.float64),
        [one.prompt_id for one in votes],
        [one.voter for one in votes],
        units=[prompts[one.prompt_id].unit for one in votes],
        level=level,
    )
    return MetricAgreement(
        metric=name,
        votes=len(votes),
        prompts=len(share.by_prompt),
        agreement=share.share,
        interval=Interval(low=share.low, high=share.high, method=_method(share.spread.voters), level=level),
        decided=stats.mean(decided) if decided else None,
    )


def _notes(found: Counted, people: int) -> list[str]:
    notes = []
    if people < MIN_VOTERS:
        notes.append(
            f"{plural(people, 'voter')}: the intervals are for these voters only; from {MIN_VOTERS} on they are for "
            "others too."
        )
    out = [one for one in found.voters if one.left_out]
    if out:
        who = f"{len(out)} of {plural(len(found.voters), 'voter')}"
        notes.append(
            f"Not counted: {who}, by the rule that at least {percent(LEAST_RIGHT)} of the broken pictures are seen."
        )
    edited = sum(one.edited for one in found.voters)
    if edited:
        notes.append(f"The files of {plural(edited, 'voter')} were edited by hand.")
    if found.outdated:
        notes.append(f"{plural(found.outdated, 'vote')} on images that were drawn anew since, not counted.")
    return notes
