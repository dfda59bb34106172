"""Names that become file names, and the nearest match of a misspelt one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME_RULE = (
    "1 to 100 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit, "
    "without '..', no dot at the end, and none of Windows' device names (con, nul, com1, ...)"
)
"""What a variant, a case or a suite may be called: images live in folders and files of these names."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_good_name(name: str) -> bool:
    """Whether ``name`` keeps ``NAME_RULE``, so that it is one and the same file name on every system."""
    if _NAME.fullmatch(name) is None or ".." in name or name.endswith("."):
        return False
    return _DEVICE.fullmatch(name) is None


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """The end of an error sentence, " (did you mean 'steps'?)", or "" where nothing is near.

    Nearness is ``difflib``'s ratio of matching characters, at least 0.6, ignoring case.
    """
    by_folded = {name.casefold(): name for name in allowed}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f" (did you mean {by_folded[near[0]]!r}?)" if near else ""


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names as a sentence lists them, sorted, the rest counted: "a, b, c and 4 more"."""
    ordered = sorted(names)
    rest = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")
