"""Files that are read: plain ones only, of a sane size; strict JSON and TOML, text, sha256, time; replacing a file."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import sys
import time
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec

from bench.errors import HotartError, IncomparableError, InvalidError, MachineError, SuiteError, UsageError
from bench.formatting import did_you_mean

T = TypeVar("T")


def utc_now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse_time(moment: str) -> datetime | None:
    """An ISO 8601 time, of no zone UTC; None for a text of a file that is none."""
    try:
        found = datetime.fromisoformat(moment)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except ValueError:
        return None


def sha256_of(content: Path | bytes) -> str:
    """The sha256 of a file's bytes or of these bytes, 64 lower-case hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open_plain(content) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileState(NamedTuple):
    """What stays equal while nothing writes to a file or puts another in its place, for all that its owner can do.

    ``ctime_ns`` is the time of the last change of any kind, which no program can set back, unlike ``mtime_ns``. Where a
    file system keeps no such time (Windows has that of the creation; FAT; some network shares) a change that restores
    size and ``mtime_ns`` is not seen.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def file_state(path: Path) -> FileState:
    """The state of a file, links followed.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


# JSON as the standard means it, no more.


def loads(text: str, *, finite: bool = True) -> Any:
    """Decode one JSON document.

    Args:
        text: the document.
        finite: whether a number has to be finite; Python's own ``json`` also writes and reads NaN and Infinity.

    Raises:
        ValueError: not JSON, a key given twice, a number that is not finite as a float64, a string with a
            lone surrogate (it has no UTF-8 form), or nested too deeply.
    """
    refuse, number = (_refuse_constant, _finite) if finite else (None, None)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=refuse, parse_float=number)
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
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a float64")
    return value


# JSON documents of our own, which have a schema and most of them a kind.


def read_document(
    path: Path, record: type[T], *, schema: int, what: str, make: str, remake: str, kind: str | None = None
) -> T:
    """The record that a JSON document of ours holds; arguments and errors as ``read_table``.

    Raises:
        InvalidError: a field that the record does not have, lacks or has of another type.
    """
    table = read_table(path, schema=schema, what=what, make=make, remake=remake, kind=kind)
    try:
        return convert(table, record)
    except ValueError as error:
        raise InvalidError(f"{path}: is not a valid {what}: {error}.", remake) from error


def read_table(
    path: Path, *, schema: int, what: str, make: str, remake: str, kind: str | None = None
) -> dict[str, Any]:
    """A JSON document of ours, decoded, its kind and schema checked.

    Args:
        path: the file.
        schema: the only schema that is read.
        what: what such a document is called, for the sentences.
        make: how one is made, the hint where there is none.
        remake: how it is made anew, the hint where it is damaged or of another schema.
        kind: its field ``kind``; None where such documents have none.

    Raises:
        UsageError: there is no such file, or it is of another kind.
        InvalidError: it is truncated or damaged.
        IncomparableError: another schema.
        MachineError: it cannot be read.
    """
    refuse_url(path)
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path.parent}: there is no {what} here (no {path.name}).", make) from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        table = loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise InvalidError(f"{path}: is not a valid {what}: {error}.", remake) from error
    if kind is not None and (not isinstance(table, dict) or table.get("kind") != kind):
        raise UsageError(f"{path}: is not a {what} (its kind is not {kind!r}).", make)
    if not isinstance(table, dict):
        raise InvalidError(f"{path}: is not a valid {what}: expected an object.", remake)
    refuse_other_schema(path, table.get("schema"), schema, f"{what}s", remake)
    return table


# Text files that users write, and the strict TOML of suites and recipes.


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file; a doubled key is refused.

    Raises:
        SuiteError: as ``read_text``, not valid TOML, or a text with a tab or line end, as a Windows path in double
            quotes has.
    """
    text = read_text(path)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        windows = re.search(r'"[A-Za-z]:\\[^\\]|"[^"\n]*\\[^btnfreuU"\\\n]', text) is not None
        raise SuiteError(f"{path}: is not valid TOML: {error}.", _SINGLE_QUOTES if windows else "") from error
    _refuse_control_characters(path, "", table)
    return table


_SINGLE_QUOTES = r"a backslash in double quotes begins an escape; write a path of Windows as 'C:\models\x.safetensors'"
_ESCAPES = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r", "\x1b": r"\e"}
"""Control characters that a folder's or a file's first letter makes of a backslash: ``"C:\\temp"`` holds a tab."""


def _refuse_control_characters(path: Path, place: str, value: object) -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        _refuse_control_characters(path, f"{place}.{name}" if place else str(name), one)
    found = next((sign for sign in value if sign in _ESCAPES), None) if isinstance(value, str) else None
    if found is not None:
        raise SuiteError(f"{path}: {place} holds a control character, written as {_ESCAPES[found]}.", _SINGLE_QUOTES)


def refuse_unknown_fields(path: Path | str, place: str, table: Mapping[str, Any], record: type | Sequence[str]) -> None:
    """Refuse a field that a record does not have.

    Args:
        path: the file, for the sentence.
        place: where the table stands in it, such as ``settings.``; empty at the top.
        table: the table.
        record: the msgspec type that it will become, or the names of its fields.

    Raises:
        SuiteError: naming the field, the nearest match and the known ones.
    """
    known = [one.encode_name for one in msgspec.structs.fields(record)] if isinstance(record, type) else record
    for name in table:
        if name not in known:
            raise SuiteError(
                f"{path}: unknown field {place}{name}{did_you_mean(name, known)}; "
                f"{'here' if place else 'at the top'} stand {', '.join(known)}."
            )


def refuse_unknown_choice(path: Path | str, field: str, value: object, choices: Collection[str]) -> None:
    """Refuse a text that is not among a field's choices; any other type is left to the type check.

    Raises:
        SuiteError: naming the field, the nearest match and the choices.
    """
    if isinstance(value, str) and value not in choices:
        raise SuiteError(
            f"{path}: {field} is {value!r}{did_you_mean(value, choices)}; allowed are {', '.join(choices)}."
        )


def refuse_unknown_choices(path: Path | str, field: str, values: object, choices: Collection[str]) -> None:
    """The same for each text of a list."""
    for index, value in enumerate(values if isinstance(values, list) else ()):
        refuse_unknown_choice(path, f"{field}[{index}]", value, choices)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of a UTF-16 file with its byte order mark, which is taken off.

    Raises:
        UsageError: a URL.
        SuiteError: missing, not a plain file, too large, not readable, binary, or of another encoding (with the place).
    """
    refuse_url(path)
    if not exists(path):
        raise SuiteError(f"{path}: there is no such file.")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    binary = f"{path}: holds zero bytes: a binary file, or text that is not UTF-8."
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in data and not is_utf16:
        raise SuiteError(binary)
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if is_utf16:
            raise SuiteError(
                f"{path}: is not whole UTF-16, as its first bytes say.", "save the file as UTF-8"
            ) from error
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        wrong = data[error.start : error.start + 1]
        byte = f"byte {column} of the line is 0x{wrong.hex()}, {wrong.decode('cp1252', 'replace')!r} in Windows-1252"
        raise SuiteError(f"{path}:{line}: is not UTF-8: {byte}.", "save the file as UTF-8") from error
    if "\0" in text:
        raise SuiteError(binary)
    return text


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+")


def refuse_url(place: str | Path) -> None:
    """Refuse a URL where a file or folder of this machine is meant; a Path has lost a slash of it.

    Raises:
        UsageError: it is one; only a run folder may lie on an object store.
    """
    if _URL.match(str(place)):
        url = _URL.sub(r"\1//", str(place), count=1)
        raise UsageError(
            f"{url} is a URL, and this has to lie on this machine: only run folders are read from and written to an "
            "object store.",
            "give a path of this machine",
        )


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; no for a name that the system could not even look up."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


REPLACE_WAITS_S = (0.01, 0.03, 0.1, 0.3, 1.0)
"""How long a file is waited for on Windows before it is replaced once more."""


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a file its final name: the old file or the new one is there, never none.

    Windows does not replace a file that another process has open, a virus scanner for one, so it is tried again for a
    second and a half.

    Raises:
        OSError: the system will not.
    """
    for wait_s in REPLACE_WAITS_S if sys.platform == "win32" else ():
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(wait_s)
        else:
            return
    temporary.replace(path)


# Whatever is read goes through here: a pipe would wait for ever, and a device never ends.

DOCUMENT_BYTES = 2**27
"""The most that is read of a suite, a prompt file, a configuration, a baseline, a ``run.json``: 128 MiB."""
IMAGE_BYTES = 2**29
"""The most that is read of an image: twice the pixels of the largest that is decoded, at 16 bits a channel."""
JOURNAL_BYTES = 2**32
"""The most that is read of a journal: ten million lines or so."""

NOT_PLAIN = "it is a pipe, socket or device, not a plain file"


def open_plain(path: Path) -> io.FileIO:
    """A plain file, open for reading in binary.

    Raises:
        OSError: there is none, or it cannot be read; also a folder, pipe, socket or device, whose ``strerror`` says so.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # what opening a socket says
            raise OSError(errno.EINVAL, NOT_PLAIN, str(path)) from error
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return io.FileIO(path, opener=lambda *_: handle)
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, NOT_PLAIN, str(path))


def read_bytes(path: Path, most_bytes: int = DOCUMENT_BYTES) -> bytes:
    """The bytes of a plain file.

    Raises:
        OSError: as ``open_plain``, or it is larger than ``most_bytes``.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            said = f"it holds {size / 2**20:,.1f} MiB; at most {most_bytes // 2**20:,} are read of such a file"
            raise OSError(errno.EFBIG, said, str(path))
        return file.readall()


def resolved(path: str | Path) -> Path:
    """The absolute path without symbolic links, of a link that leads back to itself as far as that goes."""
    return Path(os.path.realpath(path))


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
        invalid: what is raised for a schema that is not a whole number from 1 on.

    Raises:
        IncomparableError: another whole number from 1 on; newer ones need a newer program.
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
