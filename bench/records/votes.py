"""Records of votes: pages and their key, the file that a voter gives back, the journal, the results."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from bench.records.base import Record
from bench.records.statistics import Interval

VOTES_SCHEMA = 1
"""Version of a voter's file and of the key."""
VOTES_KIND: Literal["hotart-bench votes"] = "hotart-bench votes"
KEY_KIND: Literal["hotart-bench votes key"] = "hotart-bench votes key"
VOTES_METRIC = "votes"
"""The name of people's votes among the metrics: in limits, gates, findings."""

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,64}$")]
Name = Annotated[str, msgspec.Meta(max_length=100)]
Moment = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")]
"""UTC, to the millisecond, so that the later one of two sorts later."""
Why = Annotated[str, msgspec.Meta(max_length=40)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
PairKind = Literal["pair", "same", "repeat", "broken"]
"""A pair of two variants; or a control: one picture twice, a pair again with its sides changed, a picture and a broken
copy of it."""


class KeyPicture(Record, frozen=True):
    """What a picture of a voting page is."""

    file: str
    """Its name in the page's folder ``pictures``."""
    variant: str
    sha256: str
    """Of the image in the run folder."""


class KeyPair(Record, frozen=True):
    """A pair of a voting page."""

    id: Id
    kind: PairKind
    prompt_id: str
    sample: int
    a: KeyPicture
    b: KeyPicture
    broken: Literal["a", "b"] | None = None
    """Which one is the broken copy."""


class Ballot(Record, frozen=True):
    """A voting page that was made of a run."""

    id: Id
    time: str
    """ISO 8601, UTC."""
    seed: int
    longest_side_px: int
    """Of its pictures."""
    pairs: tuple[KeyPair, ...]


class VoteKey(Record, frozen=True):
    """``votes.key.json``: which variants the pictures of voting pages are. It never leaves the run folder."""

    schema: int
    kind: Literal["hotart-bench votes key"]
    run_id: str
    ballots: tuple[Ballot, ...]
    """The oldest first."""


class CastVote(Record, frozen=True):
    """One vote of a voter's file, by the page's own names."""

    pair: Id
    choice: Literal["a", "b", "tie", "bad"]
    left: Literal["a", "b"]
    """Which picture was shown on the left."""
    why: tuple[Why, ...]
    ms: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    """From the moment that both pictures were there, in milliseconds."""
    at: Moment

    def __post_init__(self) -> None:
        """Refuses what looks like a time and is none, such as the 30th of February."""
        try:
            datetime.fromisoformat(self.at)
        except ValueError as error:
            raise ValueError(f"at: {self.at!r} is no time that exists ({error})") from error


class VotesFile(Record, frozen=True):
    """What a voter gives back: all votes on one page."""

    schema: int
    kind: Literal["hotart-bench votes"]
    ballot: Id
    voter: Id
    """Made at random by the voter's browser, so that two of one name are two."""
    name: Name
    votes: tuple[CastVote, ...]
    check: str
    """Of all other fields (``bench.votes.read.check_of``): it finds a file that was edited by hand."""


class Vote(Record, frozen=True, omit_defaults=True):
    """One line of ``votes.jsonl``: a vote, with what was voted on."""

    ballot: Id
    pair: Id
    voter: Id
    name: Name
    kind: PairKind
    prompt_id: str
    sample: int
    left: str
    """The variant on the left."""
    right: str
    left_sha256: str
    right_sha256: str
    choice: Literal["left", "right", "tie", "bad"]
    """``bad``: both are; such a vote is counted by itself, and is neither a tie nor a loss."""
    seconds: Seconds
    at: Moment
    broken: Literal["left", "right"] | None = None
    why: tuple[Why, ...] = ()
    edited: bool = False
    """Whether it is of a file that was edited by hand and taken all the same."""


class Voter(Record, frozen=True):
    """What somebody's control pairs say."""

    voter: str
    label: str
    """Name, and where two have it, the beginning of the id."""
    votes: int
    """On pairs of two variants."""
    broken: int
    """Control pairs with a broken picture that were decided for one side or called a tie."""
    broken_right: int
    same: int
    """Pairs of one picture twice."""
    same_tied: int
    repeated: int
    """Pairs that were answered twice, with changed sides."""
    repeated_alike: int
    left_out: str = ""
    """Why their votes do not count, as a clause; empty where they do."""
    edited: bool = False


class VotedPair(Record, frozen=True):
    """What people say of two variants."""

    candidate: str
    reference: str
    wins: int
    ties: int
    losses: int
    """Of the candidate, votes."""
    bad: int
    """Votes that both are bad, which are in none of the others."""
    prompts: int
    voters: int
    share: float
    """Of the votes that the candidate wins, a tie being half a win; the mean over prompts, in [0, 1]."""
    interval: Interval | None
    """None with fewer than 2 prompts."""
    needed: int | None
    """Votes for an interval of +- 5 points, prompts and voters growing alike; None where it is that narrow already."""


class VotedStrength(Record, frozen=True):
    """A variant's strength by Davidson's model of the votes."""

    variant: str
    strength: float
    """exp of the difference of two strengths is the odds of win to loss; they sum to 0."""
    interval: Interval


class MetricAgreement(Record, frozen=True):
    """How often a metric says of two pictures what a voter said."""

    metric: str
    votes: int
    prompts: int
    agreement: float
    """Share of the votes that the metric agrees with, ties being right where both have one; its threshold for a tie
    was chosen on other prompts."""
    interval: Interval | None
    decided: float | None
    """The same of the votes for one side, a tie of the metric being half right: 0.5 is a coin. None without such."""


class VotedReason(Record, frozen=True):
    """How often a reason was named for choosing a variant."""

    variant: str
    reason: str
    votes: int
    of: int
    """Votes for the variant, with a reason or without."""


class VoteResults(Record, frozen=True):
    """All that the votes on a run say."""

    voters: tuple[Voter, ...]
    pairs: tuple[VotedPair, ...]
    strengths: tuple[VotedStrength, ...]
    """Of variants that are connected by votes, the strongest first; empty under two prompts, and where every vote is
    for the picture on one side."""
    reasons: tuple[VotedReason, ...]
    """In the suite's order of variants, the commonest reason first."""
    tie: float | None
    """Davidson's nu."""
    left: float | None
    """Log odds that the left of two equals gains by its side."""
    left_interval: Interval | None
    agreement: tuple[MetricAgreement, ...]
    """The metrics in the run's order; last what always the same answer would reach."""
    ceiling: float | None
    """How often two voters say the same of a pair; None where none is of two voters."""
    these_only: bool
    """Whether fewer than 8 voters count, so that intervals are for these voters only."""
    notes: tuple[str, ...]
