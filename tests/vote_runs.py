"""Runs with a voting page, and voters whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
from fakes import make_run, write_run

from bench.records import VOTES_KIND, VOTES_SCHEMA, Ballot, CastVote, KeyPair, VotesFile
from bench.store import RunFolder
from bench.votes.key import read_key
from bench.votes.make import make_page
from bench.votes.read import check_of

SEED = 20_260_101_123

Answer = Callable[[KeyPair, random.Random], str]
"""What somebody who knows the key says of a pair: ``a``, ``b``, ``tie`` or ``bad``."""


def make_voted(folder: Path, **changes: object) -> tuple[Path, Path]:
    """A run folder of 12 prompts x 2 samples x 3 variants, and a voting page of it beside it."""
    run = write_run(make_run("run", **{"prompts": 12, **changes}), folder / "run")
    page = folder / "page"
    with RunFolder.reopen(run) as opened:
        make_page(opened, page, seed=SEED)
    return run, page


def newest_ballot(run: Path) -> Ballot:
    return read_key(run).ballots[-1]


def careful(pair: KeyPair, rng: random.Random) -> str:
    """Likes spo better than dpo better than base, sees broken pictures, and calls equal ones a tie."""
    if pair.broken is not None:
        return "b" if pair.broken == "a" else "a"
    order = ("base", "dpo", "spo")
    ranks = [order.index(side.variant) for side in (pair.a, pair.b)]
    return "tie" if ranks[0] == ranks[1] else "a" if ranks[0] > ranks[1] else "b"


def undecided(pair: KeyPair, rng: random.Random) -> str:
    """Sees broken pictures, and else says anything."""
    return careful(pair, rng) if pair.kind in ("broken", "same") else rng.choice(("a", "b", "tie"))


def careless(pair: KeyPair, rng: random.Random) -> str:
    """Takes each broken picture for the better one."""
    return pair.broken or undecided(pair, rng)


def cast(ballot: Ballot, voter: str, answer: Answer = careful, *, name: str = "", minute: int = 0) -> VotesFile:
    """A voter's file with a vote on every pair."""
    rng = random.Random(voter)
    votes = tuple(
        CastVote(
            pair=pair.id,
            choice=answer(pair, rng),  # type: ignore[arg-type]
            left=rng.choice(("a", "b")),  # type: ignore[arg-type]
            why=("detail",) if number % 2 else (),
            ms=1500 + number,
            at=f"2026-01-01T{number // 3600:02d}:{(number // 60 + minute) % 60:02d}:{number % 60:02d}.000Z",
        )
        for number, pair in enumerate(ballot.pairs)
    )
    return signed(VotesFile(
        schema=VOTES_SCHEMA, kind=VOTES_KIND, ballot=ballot.id, voter=voter, name=name, votes=votes, check=""
    ))  # fmt: skip


def signed(file: VotesFile) -> VotesFile:
    """The file with the check that the page would write."""
    return msgspec.structs.replace(file, check=check_of(file.ballot, file.voter, file.name, file.votes))


def write_file(file: VotesFile, path: Path) -> Path:
    path.write_bytes(msgspec.json.encode(file))
    return path


def panel(run: Path, folder: Path, voters: int, answer: Answer = undecided) -> list[Path]:
    """The files of so many voters."""
    ballot = newest_ballot(run)
    folder.mkdir(exist_ok=True)
    names = [f"{number:024x}" for number in range(voters)]
    return [write_file(cast(ballot, name, answer, name=f"v{name[-2:]}"), folder / f"{name}.json") for name in names]
