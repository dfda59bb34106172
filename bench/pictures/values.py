"""What programs write -> numbers and texts, and the record that a reader gives."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from bench.records import PictureFacts

NOT_SAID = "the picture does not say"
MOST_CHARACTERS = 100_000
"""Longest prompt that is taken, as of a prompt file."""
FIELDS = tuple(
    one.name
    for one in msgspec.structs.fields(PictureFacts)
    if one.name not in ("program", "hires", "other", "unknown", "notes", "edited")
)
"""What has a reason in ``PictureFacts.unknown`` where it is None."""
KINDS = {
    "seed": "whole number from 0 to 2^64 - 1",
    "steps": "whole number, 0 or more",
    "cfg": "number",
    "size": "width and height above 0",
    "clip_skip": "whole number, 0 or more",
}
"""What is written in numbers."""


def whole(value: object) -> int | None:
    """A whole number of 64 bits, 0 or more, also written as text or as a float; None for anything else."""
    number = real(value)
    if number is None or number != int(number):
        return None
    text = str(value).strip()  # a float has no room for the last digits of a seed
    exact = int(text) if text.isascii() and text.isdigit() else int(number)
    return exact if 0 <= exact < 2**64 else None


def real(value: object) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 64:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def word(value: object) -> str | None:
    """A text that is not blank, without the space around it; None for anything else."""
    return value.strip() or None if isinstance(value, str) else None


def size_of(width: object, height: object) -> tuple[int, int] | None:
    """Width and height, None unless both are whole numbers above 0."""
    w, h = whole(width), whole(height)
    return (w, h) if w and h else None


def misread(**written: object) -> dict[str, str]:
    """By field of ``KINDS`` the reason why what is written is no value of it; ``facts`` drops those that were read."""
    return {
        name: f"it says {_shown(value)}, which is no {KINDS[name]}"
        for name, value in written.items()
        if value is not None and value != ""
    }


def _shown(value: object) -> str:
    return repr(str(value)[:40]) if isinstance(value, str | int | float) else "a list or a table"


def both(width: object, height: object) -> str | None:
    """Width and height as they are written, as one text; None where one is missing."""
    return None if width is None or height is None else f"{str(width)[:20]}x{str(height)[:20]}"


def facts(program: str, unknown: dict[str, str] | None = None, **fields: Any) -> PictureFacts:
    """The record of a picture: a field that is None gets a reason, and a text too long to be a prompt is none."""
    why = dict(unknown or {})
    for name in ("prompt", "negative"):
        text = fields.get(name)
        if text is not None and len(text) > MOST_CHARACTERS:
            fields[name] = None
            why[name] = f"it has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read"
    why |= {name: NOT_SAID for name in FIELDS if fields.get(name) is None and name not in why}
    why = {name: reason for name, reason in why.items() if fields.get(name) is None}
    return PictureFacts(program=program, unknown=why, **fields)
