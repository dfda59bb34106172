"""Commands of ours that stand in a text, and whether the command line would take them."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

from bench.cli.app import GROUPS, VERBS, build

WORD = r"(?:[^\s`;,:()'\"]|'[^']*'|\"[^\"]*\")+"
COMMAND = re.compile(rf"hotart-bench ((?:(?:{'|'.join(GROUPS)}) )?[a-z]+)((?: {WORD})*)")
"""A verb and its words; a hint goes on in prose after a comma, a semicolon or a bracket."""
NO_VERBS = {"again", "calibration", "installed", "is", "knows", "reads", "renders", "votes"}
"""What stands after the program's name in sentences about it."""


def wrong_commands(text: str) -> list[str]:
    """The commands in a text that name a verb or a flag which does not exist, or that no shell could split."""
    return [found[0] for found in COMMAND.finditer(text) if not _is_taken(found[1], found[2])]


def _is_taken(verb: str, rest: str) -> bool:
    name, _, inner = verb.partition(" ")
    if name in NO_VERBS or verb in GROUPS:
        return True
    if name not in VERBS:
        return False
    if name in GROUPS:
        if inner not in GROUPS[name][0]:
            return False
        command = _command(name).get_command(None, inner)
    else:
        command = _command(name)
    try:
        words = shlex.split(rest)
    except ValueError:
        return False
    known = {flag for param in command.params for flag in param.opts} | {"--help"}
    flags = [word for word in words if re.match("--?[a-z]", word)]
    return all(flag.rstrip(".") in known for flag in flags)


@functools.cache
def _command(name: str) -> Any:
    return build().get_command(None, name)
