"""A frozen baseline on disk: strict JSON whose diff can be read, one line a prompt and variant."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bench import documents
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, listed
from bench.records import BASELINE_SCHEMA, Baseline, FrozenVariant
from bench.store.journal import make_folder, write_whole

KIND: Final[Literal["hotart-bench baseline"]] = "hotart-bench baseline"
_RESTORE = "restore the file from version control, or freeze the run anew: hotart-bench baseline RUN -o FILE --replace"


def write_baseline(baseline: Baseline, path: str | Path) -> Baseline:
    """Write a frozen baseline, whole or not at all, in the place of an earlier one; returns it with its checksum.

    UTF-8 JSON: each entry of a table on a line, a list of numbers on one, prompts in the suite's order, variants in
    the run's. 500 prompts and 10 metrics take about 56 kB a variant and 30 kB beside.

    Raises:
        UsageError: nobody has accepted it.
        InvalidError: a variant of it cannot be judged.
        MachineError: the disk is full, read-only or cannot be written for another reason.
        ValueError: what ``read_baseline`` would refuse (an internal error).
    """
    if not baseline.acceptance.by:
        raise UsageError(f"{path}: a baseline needs somebody who accepts it.", "hotart-bench baseline --help")
    for variant in baseline.variants:
        if variant.doubts:
            raise InvalidError(f"{path}: {variant.fingerprint.name} cannot be frozen: {'; '.join(variant.doubts)}.")
    table = _to_table(baseline)
    signed = msgspec.structs.replace(baseline, checksum=_checksum(table))
    if _from_table({**table, "checksum": signed.checksum}) != signed:
        raise ValueError("the baseline does not read as it was written")
    path = Path(path)
    make_folder(path.parent)
    write_whole(path, ("\n".join(_lines({**table, "checksum": signed.checksum})) + "\n").encode())
    return signed


def read_baseline(path: str | Path) -> Baseline:
    """A frozen baseline from its file.

    Raises:
        UsageError: there is no such file, or it is not a baseline.
        IncomparableError: its schema is another than this program's.
        InvalidError: it is truncated, was edited (the checksum is another), or is damaged otherwise.
        MachineError: it cannot be read.
    """
    path = Path(path)
    table = documents.read_table(
        path,
        schema=BASELINE_SCHEMA,
        what="baseline",
        make=f"make one: hotart-bench baseline RUN -o {argument(path)}",
        remake=_RESTORE,
        kind=KIND,
    )
    if table.get("checksum") != _checksum(table):
        raise InvalidError(
            f"{path}: is not as it was frozen: its checksum does not fit its content. Numbers that people rely on "
            "are not edited by hand.",
            _RESTORE,
        )
    try:
        return _from_table(table)
    except ValueError as error:
        raise InvalidError(f"{path}: is not a valid baseline: {error}.", _RESTORE) from error


def _checksum(table: Mapping[str, Any]) -> str:
    return documents.sha256_of(documents.canonical({**table, "checksum": ""}))


def _to_table(baseline: Baseline) -> dict[str, Any]:
    """The record as the file holds it: of a variant the scores by prompt, so that a prompt is a line."""
    table: dict[str, Any] = msgspec.to_builtins(baseline)
    for variant in table["variants"]:
        columns = variant.pop("values")
        rows = zip(*columns.values(), strict=True) if columns else [()] * len(baseline.prompts)
        timings = variant.pop("timings")
        del variant["doubts"]  # there are none
        if variant["votes"] is None:
            del variant["votes"]
        if not variant["fingerprint"]["runtime"]:
            del variant["fingerprint"]["runtime"]
        variant["metrics"] = list(columns)
        variant["values"] = dict(zip(baseline.prompts, map(list, rows), strict=True))
        variant["timings"] = timings
    return table


def _from_table(table: Mapping[str, Any]) -> Baseline:
    """The record that a decoded file stands for; ValueError with the field where it stands for none."""
    bare = documents.convert({**table, "variants": []}, Baseline)
    variants = documents.convert(table.get("variants"), tuple[dict[str, Any], ...])
    baseline = msgspec.structs.replace(bare, variants=tuple(_variant(one, list(bare.prompts)) for one in variants))
    for problem in _problems(baseline):
        raise ValueError(problem)
    return baseline


def _variant(table: Mapping[str, Any], prompts: list[str]) -> FrozenVariant:
    metrics = documents.convert(table.get("metrics"), tuple[str, ...])
    rows = documents.convert(table.get("values"), dict[str, tuple[float | None, ...]])
    rest = {name: value for name, value in table.items() if name != "metrics"}
    bare = documents.convert({**rest, "values": {}}, FrozenVariant)
    name = bare.fingerprint.name
    if list(rows) != prompts:
        raise ValueError(f"the variant {name} does not have a line for each prompt, in the order of prompts")
    wrong = [prompt_id for prompt_id, row in rows.items() if len(row) != len(metrics)]
    if wrong:
        raise ValueError(f"the variant {name} does not have {len(metrics)} values for {listed(wrong, 3)}")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"the variant {name} names a metric twice")
    columns: list[tuple[float | None, ...]] = list(zip(*rows.values(), strict=True))
    return msgspec.structs.replace(bare, values=dict(zip(metrics, columns, strict=True)))


def _problems(baseline: Baseline) -> Iterator[str]:
    names = [variant.fingerprint.name for variant in baseline.variants]
    metrics = [facts.name for facts in baseline.metrics]
    if not baseline.prompts or not names or baseline.samples < 1:
        yield "it has no prompt, no variant or no sample"
    for what, found in (("variant", names), ("metric", metrics)):
        if len(set(found)) < len(found):
            yield f"it names a {what} twice ({listed(found, 5)})"
    for variant in baseline.variants:
        unknown = set(variant.values) - set(metrics)
        if unknown:
            yield f"the variant {variant.fingerprint.name} has values of {listed(unknown, 3)}, unknown to metrics"
        for name, rounds in variant.timings.items():
            if not rounds or not all(one.values > 0 and (one.median is None or one.median > 0) for one in rounds):
                yield f"the variant {variant.fingerprint.name} has a round of {name} without a value over 0"
    for noise in baseline.session_noise:
        if not noise.sd_log_ratio >= 0 or noise.sessions < 2:
            yield f"session_noise of {noise.name} is {noise.sd_log_ratio} from {noise.sessions} sessions"
    for variant in baseline.variants:
        # Converting may have made infinity of a number with hundreds of digits.
        columns: list[tuple[str, tuple[float | None, ...]]] = [*variant.values.items()]
        columns += [(name, tuple(one.median for one in rounds)) for name, rounds in variant.timings.items()]
        for column, values in columns:
            if not all(value is None or math.isfinite(value) for value in values):
                yield f"the variant {variant.fingerprint.name} has a value of {column} that is not finite"


def _lines(value: object) -> Iterator[str]:
    """JSON over lines: an entry of a table or of a list of tables on one, any other list on one.

    Nothing is indented, and numbers stand without spaces: with thousands of lines that is a tenth of the file.
    """
    if isinstance(value, dict):
        entries, ends = [(f"{json.dumps(key, ensure_ascii=False)}: ", one) for key, one in value.items()], "{}"
    elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
        entries, ends = [("", one) for one in value], "[]"
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return
    if not entries:
        yield ends
        return
    yield ends[0]
    for number, (key, one) in enumerate(entries, start=1):
        first, *rest = _lines(one)
        *body, last = [key + first, *rest]
        yield from body
        yield last + ("," if number < len(entries) else "")
    yield ends[1]
