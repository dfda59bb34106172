"""How a verb is declared: a function, its examples, and typer between the command line and it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import typer

Job = Callable[[], int | None]
"""What to do; its value is the exit code, None for 0."""
Verb = TypeVar("Verb", bound=Callable[..., int | None])


def group(help_text: str, *examples: str) -> typer.Typer:
    """A set of verbs, with plain help: it fits 20 columns and starts twice as fast as typer's rich one."""
    return typer.Typer(
        help=help_text,
        epilog=example_block(examples) if examples else None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def verb(app: typer.Typer, name: str, *examples: str) -> Callable[[Verb], Verb]:
    """Declares a function as the verb ``name``; its first docstring paragraph says what it is for.

    Typer only binds the arguments: the command's value is the job to do, and ``bench.cli`` does it
    outside of typer, which would otherwise catch Ctrl-C and broken pipes and choose other exit codes.
    """

    def declare(function: Verb) -> Verb:
        @functools.wraps(function)
        def bind(**arguments: Any) -> Job:
            return functools.partial(function, **arguments)

        app.command(name, epilog=example_block(examples))(bind)
        return function

    return declare


def example_block(examples: tuple[str, ...]) -> str:
    """Examples as the last paragraph of a help text, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
