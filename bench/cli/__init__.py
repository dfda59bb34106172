"""The command line: the verbs, and the only room that prints or exits.

Typer reads the arguments; the verb itself runs outside of typer, so that every error arrives here and
ends with one or two sentences and the exit code of the contract (``bench.cli``).
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from bench.errors import HotartError, Interrupted, MachineError, SuiteError, UsageError, WeightsError
from bench.machine import is_out_of_memory

# What a failure means to the user: its exit code, its sentences, and whether a traceback helps.

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


# The command line: the verbs, and the only room that prints or exits.


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Prompts hold any character; a terminal that cannot show one gets its escape instead of a crash.
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run_command_line(sys.argv[1:]))


def run_command_line(arguments: Sequence[str]) -> int:
    """Exit code of one command; results go to stdout, messages to stderr.

    0 done or passed, 1 a regression, 2 bad usage, 3 bad weights, 4 not comparable, 5 inconclusive or invalid,
    6 environment error, 70 internal error (with a traceback), 130 interrupted.
    """
    code = 0
    try:
        from bench.cli.app import parse

        job = parse(arguments)
        if job is not None:
            code = job() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; a verdict stands all the same.
        _abandon_stdout()
    except (Exception, KeyboardInterrupt) as error:
        return _tell(error)
    return code


def _tell(error: BaseException) -> int:
    from bench.cli.printing import printable

    failure = explain(error)
    if failure.traceback:
        import traceback

        traceback.print_exception(error)
    print(f"hotart-bench: {printable(failure.message)}", file=sys.stderr)
    if failure.hint:
        print(f"  next: {printable(failure.hint)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _abandon_stdout()
    return failure.exit_code


def _abandon_stdout() -> None:
    """Points stdout at nothing, or the interpreter would complain again when it flushes at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def _stop(number: int, frame: FrameType | None) -> None:
    # `kill` and a scheduler's timeout end as Ctrl-C does: cleanly, with 130.
    raise KeyboardInterrupt
