"""What passes between the parent and the child of ``measure``: one JSON line a message."""

from __future__ import annotations

import msgspec

from bench.measure.laps import Shot
from bench.records import Record, Settings, Timing, Variant


class Request(Record, frozen=True):
    """What a child is to measure."""

    variant: Variant
    settings: Settings
    device: str
    """torch device string, such as ``cpu`` or ``cuda:0``."""
    weights_dir: str | None
    round: int
    warmups: int
    shots: tuple[Shot, ...]
    """In order: the first image, ``warmups`` warm-ups, the timed images."""
    relatives: int = 0
    """Processes of this program beside the child that the driver lists too: a parent that rendered before."""


class Tick(Record, frozen=True, tag=True):
    """``done`` images of this process are drawn."""

    done: int


class Reply(Record, frozen=True, tag=True):
    """What was measured, and what one should know of it."""

    timings: tuple[Timing, ...]
    threads: int
    """Threads torch used for CPU work."""
    notes: tuple[str, ...]


class Failure(Record, frozen=True, tag=True):
    """An error of ``bench.errors``, by its exit code."""

    exit_code: int
    message: str
    hint: str


Message = Tick | Reply | Failure


def encode(message: Request | Message) -> bytes:
    """Write a request or message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"
