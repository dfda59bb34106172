"""What voters give back -> votes of a run: by the key, each vote told apart, none dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from bench.compare.votes import labels
from bench.documents import read_document
from bench.errors import UsageError
from bench.formatting import argument, listed, one_line, plural, quoted
from bench.records import VOTES_KIND, VOTES_SCHEMA, Ballot, CastVote, KeyPair, Vote, VotesFile
from bench.store import RunFolder
from bench.votes.key import ballots_of, read_key

MOST_SHOWN = 3
CLOCKS_DIFFER = timedelta(minutes=10)
"""So far ahead the clock of a voter's browser may be without a word."""


class Added(NamedTuple):
    """What came of files of votes."""

    new: int
    changed: int
    """Votes that a voter gave again later, with another answer: the later one counts."""
    known: int
    """Votes that were there already, whole or in a later version."""
    voters: tuple[str, ...]
    """Of the files, by ``labels``."""
    notes: tuple[str, ...]


def check_of(ballot: str, voter: str, name: str, votes: Iterable[CastVote]) -> str:
    """FNV-1a, 32 bits in 8 hex digits, over page, voter, name and a line for each vote, as the page computes it.

    It finds a file that somebody edited. It is no signature: whoever can read this can make it anew.

    Source: G. Fowler, L. C. Noll and P. Vo, "The FNV non-cryptographic hash algorithm".
    """
    lines = (f"{one.pair}|{one.choice}|{one.left}|{','.join(one.why)}|{one.ms}|{one.at}" for one in votes)
    found = 0x811C9DC5
    for byte in "\n".join((ballot, voter, name, *lines)).encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{found:08x}"


def read_votes(path: Path) -> VotesFile:
    """A voter's file.

    Raises:
        UsageError: there is none, or it is another kind of file.
        InvalidError, IncomparableError, MachineError: as ``documents.read_document``.
    """
    return read_document(
        path,
        VotesFile,
        schema=VOTES_SCHEMA,
        what="file of votes",
        make="a voter saves it from the page that hotart-bench vote make writes",
        remake="have the voter save it again, from the same browser",
        kind=VOTES_KIND,
    )


def vote_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and of a folder its JSON files by name.

    Raises:
        UsageError: a folder without one.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path}: holds no file of votes (*.json).")
        found += inside
    return found


def add_votes(folder: RunFolder, paths: Sequence[Path], *, edited: bool = False) -> Added:
    """Take voters' files into ``votes.jsonl``: all of them, or with an error none.

    The newest vote of a voter on a pair counts, by the time in the file. A vote on a pair that its page does not have
    is left out, with a note.

    Args:
        folder: the run, locked.
        paths: files, or folders of them.
        edited: whether files that were edited by hand are taken, and marked.

    Raises:
        UsageError: a page of another run, an edited file without ``edited``, no page was made of this run.
        InvalidError, IncomparableError, MachineError: as ``read_votes``.
    """
    run = folder.run()
    ballots = {one.id: one for one in ballots_of(folder.path, run.info.id)}
    if not ballots:
        read_key(folder.path)  # says what is missing
    newest = {(one.ballot, one.voter, one.pair): one for one in folder.votes()}
    counts = {"new": 0, "changed": 0, "known": 0}
    fresh: dict[tuple[str, str, str], Vote] = {}
    voters: dict[str, str] = {}
    notes: list[str] = []
    for path in vote_files(paths):
        file = read_votes(path)
        votes, problems = _votes_of(path, file, ballots, folder.path, edited)
        notes += problems
        voters[file.voter] = one_line(file.name)
        for vote in votes:
            key = vote.ballot, vote.voter, vote.pair
            before = newest.get(key)
            if before is not None and before.at >= vote.at:
                counts["known"] += 1
                continue
            counts["new" if before is None else "changed"] += 1
            newest[key] = fresh[key] = vote
    if folder.append_votes(fresh.values()):
        notes.append(
            f"gate.json was taken out: the gate's verdict was of the run before these votes; gate again "
            f"(hotart-bench gate {argument(folder.path)})."
        )
    notes += _same_names({one.voter: one_line(one.name) for one in newest.values()}, voters.values())
    return Added(**counts, voters=tuple(labels(voters).values()), notes=tuple(notes))


def _votes_of(
    path: Path, file: VotesFile, ballots: dict[str, Ballot], run: Path, edited: bool
) -> tuple[list[Vote], list[str]]:
    ballot = ballots.get(file.ballot)
    if ballot is None:
        raise UsageError(
            f"{path}: holds votes on the page {file.ballot}, which was not made of {run}; its pages are "
            f"{listed(ballots)}.",
            f"hotart-bench vote add RUN {argument(path)} with the run folder that the page was made of",
        )
    was_edited = file.check != check_of(file.ballot, file.voter, file.name, file.votes)
    if was_edited and not edited:
        raise UsageError(
            f"{path}: was changed after the page saved it, so the votes of {quoted(file.name)} may not be theirs.",
            "have the voter save it again; --edited takes it as it is, and marks the voter",
        )
    pairs = {pair.id: pair for pair in ballot.pairs}
    last = {vote.pair: vote for vote in sorted(file.votes, key=lambda vote: vote.at)}
    unknown = [pair for pair in last if pair not in pairs]
    twice = len(file.votes) - len(last)
    notes = []
    if unknown:
        notes.append(
            f"{path}: {plural(len(unknown), 'vote')} on pairs that its page does not have left out "
            f"({listed(unknown, MOST_SHOWN)})."
        )
    if twice:
        notes.append(f"{path}: {plural(twice, 'vote')} given again on the same pair; the latest counts.")
    notes += _future(path, last.values())
    known = [(pairs[vote.pair], vote) for vote in last.values() if vote.pair in pairs]
    return [_vote(file, pair, vote, was_edited) for pair, vote in known], notes


def _future(path: Path, votes: Iterable[CastVote]) -> list[str]:
    """A note on votes of a time that is not yet."""
    now = f"{datetime.now(UTC) + CLOCKS_DIFFER:%Y-%m-%dT%H:%M:%S.000Z}"
    late = [vote.at for vote in votes if vote.at > now]
    if not late:
        return []
    return [
        f"{path}: {plural(len(late), 'vote')} of a time that is not yet (up to {max(late)}): the clock of the browser "
        "was wrong, and an answer that is given anew before then would not count."
    ]


def _vote(file: VotesFile, pair: KeyPair, vote: CastVote, edited: bool) -> Vote:
    left, right = (pair.a, pair.b) if vote.left == "a" else (pair.b, pair.a)
    sides = {"a": "left", "b": "right"} if vote.left == "a" else {"b": "left", "a": "right"}
    return Vote(
        ballot=file.ballot,
        pair=pair.id,
        voter=file.voter,
        name=one_line(file.name),
        kind=pair.kind,
        prompt_id=pair.prompt_id,
        sample=pair.sample,
        left=left.variant,
        right=right.variant,
        left_sha256=left.sha256,
        right_sha256=right.sha256,
        choice=sides.get(vote.choice, vote.choice),  # type: ignore[arg-type]
        seconds=vote.ms / 1000,
        at=vote.at,
        broken=None if pair.broken is None else sides[pair.broken],  # type: ignore[arg-type]
        why=vote.why,
        edited=edited,
    )


def _same_names(names: dict[str, str], added: Iterable[str]) -> list[str]:
    """A note on the names of the files that were added that more than one voter has."""
    times = Counter(names.values())
    found = [name for name in dict.fromkeys(added) if name and times[name] > 1]
    if not found:
        return []
    return [
        f"More than one voter is called {listed(map(quoted, found), MOST_SHOWN)}: they are told apart by the number "
        "that their browsers drew, so one person in two browsers counts as two."
    ]
