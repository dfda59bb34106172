"""``votes.key.json``: which variants the pictures of a run's voting pages are. It stays in the run folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench import documents
from bench.errors import UsageError
from bench.formatting import argument
from bench.records import KEY_KIND, VOTES_SCHEMA, Ballot, VoteKey

KEY = "votes.key.json"


def read_key(run: Path) -> VoteKey:
    """The key of a run's voting pages.

    Raises:
        UsageError: the run has none: no page was made of it here, or the file is another one.
        InvalidError, IncomparableError, MachineError: as ``documents.read_document``.
    """
    again = f"hotart-bench vote make {argument(run)} -o DIR"
    return documents.read_document(
        run / KEY,
        VoteKey,
        schema=VOTES_SCHEMA,
        what="vote key",
        make=again,
        remake=f"take the file back from where it was made, or make a new page: {again}",
        kind=KEY_KIND,
    )


def ballots_of(run: Path, run_id: str) -> tuple[Ballot, ...]:
    """The voting pages that were made of a run; none without a key.

    Raises:
        UsageError: the key is of another run, which lay in this folder before.
        InvalidError, IncomparableError, MachineError: as ``read_key``.
    """
    path = run / KEY
    if not path.exists() and not path.is_symlink():
        return ()
    key = read_key(run)
    if key.run_id != run_id:
        raise UsageError(
            f"{path}: is the key of pages of the run {key.run_id}; here is the run {run_id}.",
            "move it beside the old run's folder, with that run's votes",
        )
    return key.ballots


def key_text(run_id: str, ballots: tuple[Ballot, ...]) -> str:
    """The key as text of its file."""
    key = VoteKey(schema=VOTES_SCHEMA, kind=KEY_KIND, run_id=run_id, ballots=ballots)
    return documents.dumps(msgspec.to_builtins(key)) + "\n"
