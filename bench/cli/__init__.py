"""The command line: the verbs, and the only room that prints or exits.

Typer reads the arguments; the verb itself runs outside of typer, so that every error arrives here and
ends with one or two sentences and the exit code of the contract (``bench.cli.failures``).
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn


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
    6 the machine would not, 70 a bug of ours (with a traceback), 130 interrupted.
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
    from bench.cli.failures import explain
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
