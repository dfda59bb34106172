"""Texts as TOML writes them: paths of Windows stay readable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bench.errors import UsageError

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_NO_LITERAL = re.compile(r"['\x00-\x08\x0a-\x1f\x7f]")
MOST_COLUMNS = 110


def string(text: str) -> str:
    """A text as a TOML string: a literal one where it has backslashes, as paths of Windows, else a basic one.

    A literal string cannot hold a single quote or a control character; then backslashes are escaped.

    Raises:
        UsageError: a lone surrogate, as in a file name that is not UTF-8; TOML cannot hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r}: is not UTF-8, which TOML is; rename the file.") from error
    if "\\" in text and _NO_LITERAL.search(text) is None:
        return f"'{text}'"
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\u{ord(character):04x}" if character < " " or character == "\x7f" else character


def key(name: str) -> str:
    """A name as a key: bare where it may be."""
    return name if _BARE.fullmatch(name) else string(name)


def value(found: object) -> str:
    """A text, number or truth value; a list of them on one line."""
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, str):
        return string(found)
    if isinstance(found, int | float):
        return repr(found)
    if isinstance(found, Iterable):
        return f"[{', '.join(map(value, found))}]"
    raise TypeError(f"TOML of {type(found).__name__}")


def field(name: str, found: object) -> str:
    """``name = value``; a list that is too long for a line with a line for each item."""
    line = f"{key(name)} = {value(found)}"
    if len(line) <= MOST_COLUMNS or isinstance(found, str) or not isinstance(found, Iterable):
        return line
    return "\n".join([f"{key(name)} = [", *(f"  {value(one)}," for one in found), "]"])


def inline(table: Mapping[str, object]) -> str:
    """A table on one line: ``{ path = 'C:\\x.safetensors', weight = 0.8 }``."""
    return f"{{ {', '.join(f'{key(name)} = {value(found)}' for name, found in table.items())} }}"
