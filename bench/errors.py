"""Every error a user can meet, as one tree, each with the exit code of the contract.

::

    HotartError            70  base; on its own: internal error
    ├── UsageError          2  a flag, name or path that cannot be right
    │   └── SuiteError      2  a suite, prompt or recipe file that cannot be read as one
    ├── WeightsError        3  a checkpoint, LoRA or metric weight: missing, damaged, of another shape
    ├── IncomparableError   4  another protocol, another run in the folder, a newer schema
    ├── InvalidError        5  results that allow no verdict
    ├── MachineError        6  environment error: disk, memory, permission, folder in use
    │   ├── InUse           6  another process is at work in a folder or file
    │   └── OutOfMemory     6  a device's memory is too small for a batch
    └── Interrupted       130  stopped by the user
"""

from __future__ import annotations

MOST_CHARACTERS = 2000
"""Of a sentence, and of a hint; a sentence quotes what a file holds, which may be anything."""


def shortened(message: str) -> str:
    """A sentence without its middle where it is longer than ``MOST_CHARACTERS``."""
    if len(message) <= MOST_CHARACTERS:
        return message
    return f"{message[:1500]} [... {len(message) - 1900} characters left out ...] {message[-400:]}"


class HotartError(Exception):
    """An error with a sentence for the user and, where there is one, the next command.

    Args:
        message: what is wrong: the file, the field, the allowed values. The middle of a longer one than
            ``MOST_CHARACTERS`` is left out.
        hint: what to do next, usually a command; a longer one is left out, since half a command is none.
    """

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = shortened(message)
        super().__init__(self.message)
        self.hint = hint if len(hint) <= MOST_CHARACTERS else ""


class UsageError(HotartError):
    """A flag, name or path that cannot be right (exit code 2)."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite, prompt or recipe file that cannot be read as one (exit code 2)."""


class WeightsError(HotartError):
    """A checkpoint, LoRA or metric weight that is missing or damaged (exit code 3)."""

    exit_code = 3


class IncomparableError(HotartError):
    """Things that must not be mixed or compared (exit code 4)."""

    exit_code = 4


class InvalidError(HotartError):
    """Results that allow no verdict: nothing rendered, missing images (exit code 5)."""

    exit_code = 5


class MachineError(HotartError):
    """Environment error: disk full, read-only, out of memory, folder in use (exit code 6)."""

    exit_code = 6


class InUse(MachineError):
    """Another process is at work in a folder or file (exit code 6)."""


class OutOfMemory(MachineError):
    """A device's memory is too small for what the suite asks of it at once (exit code 6)."""


class Interrupted(HotartError):
    """Stopped by the user; what was finished is kept (exit code 130)."""

    exit_code = 130
