"""Records of the ledger: what was built, tried, voted on, accepted and shipped, by the hashes of its files."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bench.records.base import Record

LEDGER_SCHEMA = 1
"""Version of a line of the ledger."""

LedgerEvent = Literal["built", "tried", "voted", "accepted", "shipped"]

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class LedgerFile(Record, frozen=True):
    """A file that took part in an event."""

    role: str
    """What it was there: ``output``, ``model 1``, ``checkpoint of spo``, ``lora:0 of spo``, ``baseline``."""
    name: str
    """Without folders."""
    sha256: Sha256


class LedgerEntry(Record, frozen=True, omit_defaults=True):
    """One line of a ledger. It never changes: ``id`` is the sha256 of the line's canonical JSON without it."""

    schema: int
    event: LedgerEvent
    time: str
    """ISO 8601, UTC, to the millisecond."""
    what: str
    """What happened, in a sentence."""
    files: tuple[LedgerFile, ...]
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    """What else tells it from another such event: ids of runs, the protocol, an outcome, a recipe."""
    by: str = ""
    """Who accepted it, or shipped it; empty where nobody was asked."""
    id: str = ""
