"""The command line: the only room that prints or exits.

``bench.cli.app`` finds the verb and reads its arguments, the verb's own module does the work, and every error
arrives here, where it ends with one or two sentences and the exit code of the contract.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from bench.cli.printing import say, stop_writing
from bench.errors import HotartError, Interrupted, MachineError, SuiteError, UsageError, WeightsError, shortened
from bench.machine import is_out_of_memory
from bench.stopping import on_stop

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
_ENVIRONMENT = {
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
    errno.EISDIR: "A folder is where a file belongs",
    errno.ENOTDIR: "A file is where a folder belongs",
    errno.EEXIST: "Something else is there already",
    errno.ELOOP: "A link leads back to itself",
    errno.EFBIG: "The file is too large",
    errno.EPIPE: "A connection or pipe was closed at its other end",
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


_received: list[int] = []
"""The signal that asked this process to stop; a library may have swallowed what was raised for it."""


def main() -> NoReturn:
    """Run the command line of this process and exit with its code.

    The first signal to stop is raised once, as KeyboardInterrupt; any later one, and any that comes when the command
    has ended, ends the process at once. So none can find a place where it is lost or shown as a traceback.
    """
    try:
        on_stop(_stop)
        sys.unraisablehook = _hide_interrupts
        _prepare_streams()
        code = run_command_line(sys.argv[1:])
        _end_at_once_with(code)
    except KeyboardInterrupt as error:  # between two of these lines
        code = _tell(error)
    sys.exit(code)


def run_command_line(arguments: Sequence[str]) -> int:
    """Exit code of one command; results go to stdout, messages to stderr.

    0 done or passed, 1 a regression, 2 bad usage, 3 bad weights, 4 not comparable, 5 inconclusive or invalid,
    6 environment error, 70 internal error (with a traceback), 130 interrupted. Only a verb that says that it is done,
    and help that was asked for, end with 0; after a signal to stop nothing does.
    """
    try:
        from bench.cli.app import parse  # here, so that an interrupt while typer is imported ends with 130 too

        job = parse(arguments)
        code = job if isinstance(job, int) else job()
        if not isinstance(code, int):
            raise TypeError("The verb does not say how it ended.")
        _flush()
        if _received:
            raise KeyboardInterrupt
    except BaseException as error:  # also a SystemExit of some library, which must not end as a success
        return _tell(error)
    return code


def explain(error: BaseException) -> tuple[int, str, str]:
    """Exit code, sentence and next command for any error that reaches the command line, by the contract."""
    if isinstance(error, HotartError) and error.exit_code != HotartError.exit_code:
        return error.exit_code, error.message, error.hint or _NEXT.get(type(error), "")
    if isinstance(error, KeyboardInterrupt):
        said = "Stopped. What was finished is kept; the same command continues where it stopped."
        return Interrupted.exit_code, said, ""
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f": {error.filename}" if error.filename is not None else ""
        said = f"{_ENVIRONMENT[error.errno]}{where}. What was finished is kept."
        room = "Make room or choose another folder with -o; then the same command continues."
        return MachineError.exit_code, shortened(said), room if error.errno in _NO_ROOM else _NEXT[MachineError]
    if is_out_of_memory(error):
        return (
            MachineError.exit_code,
            "Out of memory. What was finished is kept.",
            "A smaller `batch` in the suite's [settings], or another --device, needs less; "
            "`hotart-bench doctor SUITE` tells how much there is.",
        )
    if isinstance(error, UnicodeDecodeError):
        from bench.metrics.registry import find_plugins  # here: only this error needs it

        for problem in find_plugins()[1]:  # torch and others read the lists of all packages, and stop at a damaged one
            return MachineError.exit_code, problem, ""
    # Typer carries its own copy of click since 0.26 and used the package before: no common class to catch.
    if hasattr(error, "format_message") and getattr(error, "exit_code", None) == UsageError.exit_code:
        return _explain_usage(error)
    return HotartError.exit_code, REPORT, ""


def _explain_usage(error: Any) -> tuple[int, str, str]:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hotart-bench"
    message = str(error.format_message()).strip()
    if message == "Missing command." and context is not None:
        message = f"What should it do? {', '.join(context.command.list_commands(context))}."
    return UsageError.exit_code, message if message.endswith((".", "?", "!")) else f"{message}.", f"{command} --help"


def _tell(error: BaseException) -> int:
    if _received and not isinstance(error, Interrupted):
        error = KeyboardInterrupt()  # whatever a library made of it
    exit_code, message, hint = explain(error)
    lines = ["".join(traceback.format_exception(error)).rstrip()] if exit_code == HotartError.exit_code else []
    lines += [f"hotart-bench: {message}", *([f"  next: {hint}"] if hint else [])]
    try:
        say("\n".join(lines))
    except OSError:  # nobody can read it; the code tells
        stop_writing(sys.stderr)
    try:
        _flush()
    except OSError:
        stop_writing(sys.stdout)
    return exit_code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        stop_writing(sys.stdout)


def _prepare_streams() -> None:
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- None where it was closed
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Prompts hold any character; a terminal that cannot show one gets its escape instead of a crash.
            stream.reconfigure(errors="backslashreplace")


def _stop(number: int, frame: FrameType | None) -> None:
    # `kill`, a closed terminal and a scheduler's timeout end as Ctrl-C does: cleanly, with 130.
    _received.append(number)
    _end_at_once_with(Interrupted.exit_code)
    raise KeyboardInterrupt


def _end_at_once_with(code: int) -> None:
    on_stop(lambda *_: os._exit(code))


def _hide_interrupts(unraisable: Any) -> None:
    """What an object's finalizer could not hand on: an interrupt there is told by the exit code."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
