"""Documents that users write or that we keep: text files, and JSON as the standard means it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from bench.errors import HotartError, IncomparableError, InvalidError, SuiteError

# JSON as the standard means it, no more.

T = TypeVar("T")


def loads(text: str) -> Any:
    """Decode one JSON document.

    Raises:
        ValueError: not JSON, a key given twice, a number that is not finite as a float64, a string with a
            lone surrogate (it has no UTF-8 form), or nested too deeply.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\u" in text:  # only an escape can bring a lone surrogate into text that was decoded from UTF-8
        json.dumps(value, ensure_ascii=False).encode()
    return value


def convert(value: object, kind: type[T]) -> T:
    """Check decoded JSON or TOML against a record type, without turning one type into another.

    Raises:
        ValueError: with the path of the field and what is wrong, "settings.width: expected int, got str".
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at ")
        field = re.sub(r"^\$\.?", "", path.strip("`"))
        problem = problem.replace("`", "").replace("Object missing required field", "missing field")
        raise ValueError(f"{field}: {problem[0].lower()}{problem[1:]}" if field else problem) from error


def dumps(value: object) -> str:
    """Encode as one compact line in UTF-8 text, keys in the order of ``value``.

    Raises:
        ValueError: a float that is not finite, or a string with a lone surrogate.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()
    return text


def canonical(value: object) -> bytes:
    """Encode for hashing: keys sorted by code point, no spaces, UTF-8, floats in shortest round-trip form.

    Raises:
        ValueError: as ``dumps``.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is given twice")
        table[key] = value
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a float64")
    return value


# Reading the text files that users write.


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark taken off.

    Raises:
        SuiteError: missing, no plain file, not readable, binary, or not UTF-8 (with the line).
    """
    if not exists(path):
        raise SuiteError(f"{path}: there is no such file.")
    if not path.is_file():
        raise SuiteError(f"{path}: is a folder or a device, not a file.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    if b"\0" in data:
        raise SuiteError(f"{path}: holds zero bytes: a binary file, or text that is not UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{path}:{line}: is not UTF-8.", "save the file as UTF-8") from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; no for a name that the system could not even look up."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def refuse_other_schema(
    path: Path | str,
    schema: object,
    expected: int,
    what: str,
    remake: str,
    invalid: type[HotartError] = InvalidError,
) -> None:
    """Refuse a document whose ``schema`` is not the one that is read and written.

    Args:
        path: the document, for the sentence.
        schema: what its field ``schema`` says; ``None`` where it has none.
        expected: the only schema that is read.
        what: what such documents are called, in the plural.
        remake: how an older one is made anew, as the hint.
        invalid: what is raised for a schema that is no whole number from 1 on.

    Raises:
        IncomparableError: another whole number from 1 on; newer ones want a newer program.
        HotartError: ``invalid``.
    """
    if schema == expected and type(schema) is int:
        return
    if type(schema) is not int or schema < 1:
        said = "is missing" if schema is None else f"is {schema!r}"
        raise invalid(f"{path}: the field schema {said}; {what} have schema = {expected}.", remake)
    raise IncomparableError(
        f"{path}: has schema {schema}; this hotart-bench reads {what} of schema {expected} only.",
        "pip install --upgrade hotart-bench" if schema > expected else remake,
    )
