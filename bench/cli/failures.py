"""What a failure means to the user: its exit code, its sentences, and whether a traceback helps."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from bench.errors import HotartError, Interrupted, MachineError, SuiteError, UsageError, WeightsError
from bench.memory import is_out_of_memory

REPORT = (
    "This is a bug of hotart-bench, not of yours. Please report it in the project's issue tracker with the "
    "traceback above, the command, and what `hotart-bench doctor` prints."
)
_NEXT: dict[type[HotartError], str] = {
    SuiteError: "Correct the file; then the same command goes on.",
    UsageError: "hotart-bench --help",
    WeightsError: "`hotart-bench doctor SUITE` tells what a suite needs and what is missing.",
    MachineError: "Once that is put right, the same command continues.",
}
"""What to do next, for errors that do not say it themselves."""
_MACHINE_SAYS_NO = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The disk is read-only",
    errno.EACCES: "Permission was denied",
    errno.EPERM: "Permission was denied",
    errno.EMFILE: "Too many files are open",
    errno.ENFILE: "Too many files are open",
    errno.ENOMEM: "Out of memory",
    errno.EIO: "The disk could not be read or written",
    errno.ENAMETOOLONG: "The name is too long",
}


@dataclass(frozen=True)
class Failure:
    """How the command ends: what is printed on stderr, and the exit code."""

    exit_code: int
    message: str
    hint: str = ""
    traceback: bool = False


def explain(error: BaseException) -> Failure:
    """Failure for any error that reaches the command line, by the exit codes of the contract."""
    if isinstance(error, HotartError) and error.exit_code != HotartError.exit_code:
        return Failure(error.exit_code, error.message, error.hint or _NEXT.get(type(error), ""))
    if isinstance(error, KeyboardInterrupt):
        return Failure(
            Interrupted.exit_code,
            "Stopped. What was finished is kept; the same command continues where it stopped.",
        )
    if isinstance(error, OSError) and error.errno in _MACHINE_SAYS_NO:
        return _explain_os_error(error, _MACHINE_SAYS_NO[error.errno])
    if is_out_of_memory(error):
        return Failure(
            MachineError.exit_code,
            "Out of memory. What was finished is kept.",
            "A smaller `batch` in the suite's [settings], or another --device, needs less; "
            "`hotart-bench doctor SUITE` tells how much there is.",
        )
    if _is_bad_usage(error):
        return _explain_usage(error)
    return Failure(HotartError.exit_code, REPORT, traceback=True)


def _explain_os_error(error: OSError, why: str) -> Failure:
    where = f": {error.filename}" if error.filename is not None else ""
    return Failure(
        MachineError.exit_code,
        f"{why}{where}. What was finished is kept.",
        "Make room or choose another folder with -o; then the same command continues.",
    )


def _is_bad_usage(error: BaseException) -> bool:
    # Typer carries its own copy of click since 0.26 and used the package before: no common class to catch.
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == 2


def _explain_usage(error: Any) -> Failure:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hotart-bench"
    message = str(error.format_message()).strip()
    if message == "Missing command." and context is not None:
        message = f"What should it do? {', '.join(context.command.list_commands(context))}."
    return Failure(2, message if message.endswith((".", "?", "!")) else f"{message}.", f"{command} --help")
