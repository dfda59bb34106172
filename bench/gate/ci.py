"""The verdicts for CI: JUnit XML, and annotations of a GitHub Actions job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree as Xml

from bench.formatting import plain, plural
from bench.gate.outcomes import WORDS, Inconclusive, formatted, unexplained, worst_first
from bench.records import Gate, Verdict

# JUnit XML, which Jenkins, GitLab and the reporters of other forges show as tests.


def junit_xml(gate: Gate, *, inconclusive: Inconclusive = "fail") -> str:
    """The gate as a JUnit XML document, one test case a verdict, with characters that XML forbids replaced.

    Args:
        gate: the verdicts; where none of them says what the gate as a whole says, one more case does.
        inconclusive: "fail" shows inconclusive verdicts as failures, "warn" as skipped.

    Raises:
        ValueError: ``gate.time`` is not an ISO 8601 time.
    """
    root = Xml.Element("testsuites")
    for name in dict.fromkeys(verdict.candidate for verdict in gate.verdicts):
        verdicts = [one for one in gate.verdicts if one.candidate == name]
        counts = Counter(one.name for one in verdicts)
        # Unique within its candidate: the quantity, with the reference if it must be.
        tests = [one.name if counts[one.name] == 1 else f"{one.name} vs {one.reference}" for one in verdicts]
        numbers = [
            (f"{test}.{quantity}", value)
            for test, verdict in zip(tests, verdicts, strict=True)
            for quantity, value in _numbers(verdict)
        ]
        suite = _add_suite(root, gate, numbers)
        for test, verdict in zip(tests, verdicts, strict=True):
            element = _add_test(suite, name, test)
            tag = _tag(verdict, inconclusive)
            if tag is not None:
                _add_reason(element, tag, verdict.outcome, verdict.sentence, _details(verdict))
        _finish(suite, name, gate, [one.sentence for one in verdicts])
    reason = unexplained(gate)
    if reason is not None:
        suite = _add_suite(root, gate, [])
        _add_reason(_add_test(suite, "gate", "gate"), "error", "invalid", reason, gate.notes)
        _finish(suite, "gate", gate, [reason])
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _tag(verdict: Verdict, inconclusive: Inconclusive) -> str | None:
    if verdict.outcome == "inconclusive":
        return "skipped" if inconclusive == "warn" else "failure"
    return {"pass": None, "fail": "failure", "invalid": "error"}[verdict.outcome]


def _add_suite(root: Xml.Element, gate: Gate, numbers: Sequence[tuple[str, str]]) -> Xml.Element:
    suite = Xml.SubElement(root, "testsuite", {"id": str(len(root)), "package": "hotart-bench.gate"})
    holder = Xml.SubElement(suite, "properties")
    about = [
        ("gate.outcome", gate.outcome),
        ("gate.run", gate.run),
        ("gate.run_id", gate.run_id),
        ("gate.baseline", gate.baseline),
        ("gate.baseline_id", gate.baseline_id),
        ("gate.protocol_digest", gate.protocol_digest),
        *((f"gate.note.{number}", note) for number, note in enumerate(gate.notes, start=1)),
    ]
    for name, value in (*about, *numbers):
        Xml.SubElement(holder, "property", {"name": plain(name), "value": plain(value)})
    return suite


def _numbers(verdict: Verdict) -> list[tuple[str, str]]:
    """What is known of a verdict; a number that there is none of has no property, and the sentence says why."""
    found, shifted = verdict.interval, verdict.shift_interval
    numbers: list[tuple[str, str | float | None]] = [
        ("outcome", verdict.outcome),
        ("reference", verdict.reference),
        ("unit", verdict.unit if verdict.kind == "metric" else "ratio - 1"),
        ("limit", verdict.limit.text),
        ("margin", verdict.margin),
        ("loss", verdict.loss),
        ("interval.low", None if found is None else found.low),
        ("interval.high", None if found is None else found.high),
        ("interval.level", None if found is None else found.level),
        ("interval.method", None if found is None else found.method),
        ("shift", verdict.shift),
        ("shift_interval.low", None if shifted is None else shifted.low),
        ("shift_interval.high", None if shifted is None else shifted.high),
        ("candidate_mean", verdict.candidate_mean),
        ("reference_mean", verdict.reference_mean),
        ("n", verdict.n),
        ("samples", verdict.samples),
        ("detectable", verdict.detectable),
        ("needed", verdict.needed),
        ("equal_weights", "true" if verdict.equal_weights else "false"),
    ]
    return [(name, value if isinstance(value, str) else repr(value)) for name, value in numbers if value is not None]


def _details(verdict: Verdict) -> list[str]:
    words, what = formatted(verdict), "loss" if verdict.shift is None else "shift"
    allowed = f"allowed {words.margin} (limit {verdict.limit.text})"
    lines = [
        f"{what} {words.loss}, interval {words.interval}, {allowed}",
        f"{verdict.candidate} {words.candidate}, {verdict.reference} {words.reference}, {words.behind}",
    ]
    if verdict.worst:
        lost, change = ("lost", "loss") if verdict.shift is None else ("moved", verdict.limit.limited)
        lines.append(f"prompts that {lost} most (candidate, reference, {change}):")
    lines += [f"  {one.prompt_id}: {one.candidate:.6g}, {one.reference:.6g}, {one.loss:.6g}" for one in verdict.worst]
    return lines


def _add_test(suite: Xml.Element, candidate: str, name: str) -> Xml.Element:
    # Both forms want a duration, and a verdict takes next to none.
    return Xml.SubElement(suite, "testcase", {"classname": plain(candidate), "name": plain(name), "time": "0"})


def _add_reason(test: Xml.Element, tag: str, kind: str, sentence: str, details: Sequence[str]) -> None:
    # GitLab shows the text and not the message, others the message first: the sentence stands in both.
    reason = Xml.SubElement(test, tag, {"type": kind, "message": plain(sentence)})
    reason.text = plain("\n".join([sentence, *details]))


def _finish(suite: Xml.Element, name: str, gate: Gate, sentences: Sequence[str]) -> None:
    Xml.SubElement(suite, "system-out").text = plain("\n".join(sentences))
    Xml.SubElement(suite, "system-err")
    counts = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")}
    suite.attrib.update(
        name=plain(name),
        timestamp=f"{_utc(gate.time):%Y-%m-%dT%H:%M:%S}",
        # Where it ran is in the run's own records; Ant's schema says to write this where no name is given.
        hostname="localhost",
        tests=str(len(suite.findall("testcase"))),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time="0",
    )


def _utc(time: str) -> datetime:
    found = datetime.fromisoformat(time)
    return found.astimezone(UTC) if found.tzinfo is not None else found


# Annotations of a GitHub Actions job: one line of a workflow command each.

Level = Literal["error", "warning", "notice"]
MAX_A_LEVEL = 10
"""GitHub shows at most so many errors and so many warnings of one step and drops the rest without a word."""


def github_annotations(gate: Gate) -> list[str]:
    """One workflow command a verdict that did not pass, the worst first, or one notice where the whole passed.

    Fail and invalid are errors, inconclusive is a warning. Beyond ``MAX_A_LEVEL`` of a level the last one
    counts and names those left out. Each string is one line: ``::error title=...::message``.
    """
    reason, verdicts = unexplained(gate), worst_first(gate.verdicts)
    errors = [] if reason is None else [_command("error", "hotart-bench gate", reason)]
    errors += _commands("error", [one for one in verdicts if one.outcome in ("fail", "invalid")], len(errors))
    warnings = _commands("warning", [one for one in verdicts if one.outcome == "inconclusive"], 0)
    passed = f"{plural(len(verdicts), 'verdict')}, all passed, against {gate.baseline}."
    return errors + warnings or [_command("notice", "hotart-bench gate passed", passed)]


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


def _command(level: Level, title: str, message: str) -> str:
    """The escapes of GitHub's own toolkit (actions/toolkit, packages/core/src/command.ts)."""
    name = _escape(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{_escape(message)}"


def _escape(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
