"""``[judges.NAME]`` of a suite file: who answers questions about images, besides the judge of the embedded family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bench import documents
from bench.errors import SuiteError
from bench.formatting import quoted
from bench.records import Judge

MEANS = ("soft-tifa-am", "soft-tifa-gm")
"""The metrics of each judge, before its name: arithmetic and geometric mean of a prompt's answers."""
OURS = "mini"
"""The judge of the embedded family, which every suite has."""
KINDS = ("command", "endpoint", "vlm")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


def metric_names(judge: str) -> tuple[str, ...]:
    """The metrics that are made of a judge's answers."""
    return tuple(f"{mean}-{judge}" for mean in MEANS)


def is_of_judge(metric: str) -> bool:
    """Whether a metric is made of a judge's answers."""
    return metric.startswith(tuple(f"{mean}-" for mean in MEANS))


def read_judges(file: str, table: object) -> tuple[Judge, ...]:
    """The judges of a suite file's ``judges``.

    Raises:
        SuiteError: not tables; an unknown field; a name that will not do; none or several of ``command``, ``endpoint``
            and ``vlm``; fields of another kind; an address that is none, or holds a password; a key in the place of
            the name of an environment variable, which the sentence does not repeat.
    """
    if not isinstance(table, dict):
        raise SuiteError(f"{file}: judges is {table!r}; write a table [judges.NAME] for each.")
    return tuple(_judge(file, name, inner) for name, inner in table.items())


def _judge(file: str, name: str, table: object) -> Judge:
    place = f"judges.{name}"
    if not _NAME.fullmatch(name) or name == OURS:
        why = "is the embedded family's own" if name == OURS else "has lower-case letters, digits, '-' and '_'"
        raise SuiteError(f"{file}: the judge's name {quoted(name)} {why}; it becomes a part of its metrics' names.")
    if not isinstance(table, dict):
        raise SuiteError(f"{file}: {place} is {table!r}; a judge is a table with one of {', '.join(KINDS)}.")
    fields = tuple(field for field in Judge.__struct_fields__ if field != "name")
    documents.refuse_unknown_fields(file, f"{place}.", table, fields)
    _refuse_key(file, place, table.get("key", ""))
    try:
        judge = documents.convert({"name": name, **table}, Judge)
    except ValueError as error:
        raise SuiteError(f"{file}: {place}: {error}.") from error
    _check_kind(file, place, judge, table)
    return judge


def _refuse_key(file: str, place: str, key: object) -> None:
    # The key itself would go on into run.json, and into this sentence.
    if key != "" and not (isinstance(key, str) and _VARIABLE.fullmatch(key)):
        raise SuiteError(
            f"{file}: {place}.key is not the name of an environment variable, such as JUDGE_KEY; a key itself must "
            "not stand in a suite.",
            'export JUDGE_KEY=... and write key = "JUDGE_KEY"',
        )


def _check_kind(file: str, place: str, judge: Judge, table: Mapping[str, Any]) -> None:
    given = [kind for kind in KINDS if kind in table]
    if len(given) != 1:
        raise SuiteError(f"{file}: {place} has {' and '.join(given) or 'none'} of {', '.join(KINDS)}; it needs one.")
    for field in ("model", "version", "key"):
        if field in table and given[0] != "endpoint":
            raise SuiteError(f"{file}: {place}.{field} goes with an endpoint, not with {given[0]}.")
    if judge.vlm and "timeout_s" in table:
        raise SuiteError(f"{file}: {place}.timeout_s goes with a program or an endpoint; a vlm has no time limit.")
    empty = not getattr(judge, given[0]) or (given[0] == "command" and not judge.command[0].strip())
    if empty or (judge.endpoint and not judge.model):
        raise SuiteError(f"{file}: {place}.{'model' if judge.endpoint else given[0]} is empty or missing.")
    if judge.endpoint:
        _check_address(f"{file}: {place}.endpoint", judge.endpoint)


def _check_address(place: str, address: str) -> None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise SuiteError(f"{place} is no address, such as http://127.0.0.1:8000/v1.") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SuiteError(f"{place} holds a user, a password, a query or a fragment; name the key in key.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SuiteError(f"{place} is {address!r}; write an address such as http://127.0.0.1:8000/v1.")
