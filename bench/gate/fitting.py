"""Markdown that is cut by whole rows to a size, and says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.wording import listed, plural

_ROOM_FOR_NOTE_BYTES = 1_000


@dataclass(frozen=True)
class Section:
    """Part of a document: ``rows`` may be cut from the end, ``head`` and ``tail`` stand as long as a row does."""

    what: str
    """What one row is, in the singular."""
    rows: tuple[str, ...]
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


def fitted(sections: Sequence[Section], most_bytes: int, rest: str) -> str:
    """The sections in order, empty ones left out, in at most ``most_bytes`` of UTF-8.

    Rows are left out from the end of a section that does not fit; the last line then counts them by kind and
    ends with ``rest``, a sentence on where they stand.
    """
    left = most_bytes - _ROOM_FOR_NOTE_BYTES
    parts: list[str] = []
    dropped: Counter[str] = Counter()
    for section in sections:
        kept = _rows_within(section, left)
        dropped[section.what] += len(section.rows) - kept
        if kept:
            parts.append(_joined(section, kept))
            left -= _size(parts[-1])
    cut = [plural(count, what) for what, count in dropped.items() if count]
    if cut:
        parts.append(f"_Cut to fit here: {listed(cut)} left out. {rest}_\n")
    return "\n".join(parts)


def _rows_within(section: Section, most_bytes: int) -> int:
    used = _size(_joined(section, 0))
    for count, row in enumerate(section.rows):
        used += _size(row) + 1
        if used > most_bytes:
            return count
    return len(section.rows)


def _joined(section: Section, kept: int) -> str:
    return "\n".join([*section.head, *section.rows[:kept], *section.tail]) + "\n"


def _size(text: str) -> int:
    # The newline that joins a part to the next one is counted too.
    return len(text.encode()) + 1
