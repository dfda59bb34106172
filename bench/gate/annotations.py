"""The verdicts as annotations of a GitHub Actions job: one line of a workflow command each."""

from typing import Literal

from bench.gate.outcomes import WORDS, gravest_first, unexplained
from bench.records import Gate, Verdict
from bench.wording import plain, plural

Level = Literal["error", "warning", "notice"]

MAX_A_LEVEL = 10
"""GitHub shows at most so many errors and so many warnings of one step and drops the rest without a word."""


def annotations(gate: Gate) -> list[str]:
    """One workflow command a verdict that did not pass, the gravest first, or one notice where the whole passed.

    Fail and invalid are errors, inconclusive is a warning. Beyond ``MAX_A_LEVEL`` of a level the last one
    counts and names those left out. Each string is one line: ``::error title=...::message``.
    """
    reason = unexplained(gate)
    errors = [] if reason is None else [_command("error", "hotart-bench gate", reason)]
    verdicts = gravest_first(gate.verdicts)
    errors += _commands("error", [one for one in verdicts if one.outcome in ("fail", "invalid")], len(errors))
    warnings = _commands("warning", [one for one in verdicts if one.outcome == "inconclusive"], 0)
    return errors + warnings or [_passed(gate)]


def _commands(level: Level, verdicts: list[Verdict], taken: int) -> list[str]:
    room = MAX_A_LEVEL - taken
    if len(verdicts) <= room:
        return [_verdict(level, one) for one in verdicts]
    rest = verdicts[room - 1 :]
    names = ", ".join(f"{one.name} of {one.candidate} ({one.outcome})" for one in rest)
    more = _command(level, f"hotart-bench gate: {plural(len(rest), 'more verdict')}", names)
    return [*(_verdict(level, one) for one in verdicts[: room - 1]), more]


def _verdict(level: Level, verdict: Verdict) -> str:
    title = f"hotart-bench gate: {verdict.name} of {verdict.candidate} {WORDS[verdict.outcome]}"
    return _command(level, title, verdict.sentence)


def _passed(gate: Gate) -> str:
    count = plural(len(gate.verdicts), "verdict")
    return _command("notice", "hotart-bench gate passed", f"{count}, all passed, against {gate.baseline}.")


def _command(level: Level, title: str, message: str) -> str:
    """The escapes of GitHub's own toolkit (actions/toolkit, packages/core/src/command.ts)."""
    name = _escape(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{_escape(message)}"


def _escape(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
