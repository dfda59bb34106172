"""Reading the text files that users write."""

from __future__ import annotations

from pathlib import Path

from bench.errors import SuiteError


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
